"""Functions of a graph as StableHLO modules, for any runtime that takes one."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def lowered(function: tf.types.experimental.PolymorphicFunction, given: Sequence[tf.TensorSpec],
            variables: Sequence[tf.Variable]) -> tuple[bytes, tuple[int, ...]]:
    """Return the portable module of a function that XLA compiles, and the variables it takes.

    Args:
        function: of `jit_compile=True`.
        given: its arguments, which are the module's first.
        variables: those that it may read; their numbers are returned, in the order of the module's
            further arguments.
    """
    numbers = {id(variable.handle): number for number, variable in enumerate(variables)}
    captured = function.get_concrete_function(*given).captured_inputs
    module = function.experimental_get_compiler_ir(*given)(stage="stablehlo_serialized")
    return module, tuple(numbers[id(each)] for each in captured)
