"""What all layers with weights of a Caffe network share, and how layers share their weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from pixelnet_tf.errors import ModelError

#: A filler, or the configuration that a saved model has of it; None for Keras' zeros.
GivenFiller = keras.initializers.Initializer | Mapping[str, Any] | str | None
#: The gradient that goes with the value of a `tf.custom_gradient`.
GradientOf = Callable[..., Any]
#: A size: a number where it is known, else a scalar tensor.
Size = int | tf.Tensor
TensorOrSpec = tf.Tensor | keras.KerasTensor

#: Axes of Caffe's kernel (out, in, height, width) taken from Keras' (height, width, in, out).
KERNEL_ORDER = (3, 2, 0, 1)
#: Axes of Caffe's matrix (out, in) taken from Keras' (in, out).
MATRIX_ORDER = (1, 0)


class UnknownSizeError(ModelError):
    """A layer's weights depend on a size of its input that is not fixed."""


class _SharedBlob(NamedTuple):
    owner: str
    variable: keras.Variable
    order: tuple[int, ...]


@dataclass
class _NetworkBlobs:
    """Blobs of the network that is being built: those with a name, and how many weights may come.
    """

    shared: dict[str, _SharedBlob]
    left: float


_network: ContextVar[_NetworkBlobs | None] = ContextVar("network", default=None)


@contextlib.contextmanager
def network_blobs(limit: float = math.inf) -> Iterator[None]:
    """Build the layers of one network inside the block: blobs of one name are one variable.

    More weights than `limit`, of all its layers together, raise `ModelError` before memory is
    taken for them.
    """
    token = _network.set(_NetworkBlobs({}, limit))
    try:
        yield
    finally:
        _network.reset(token)


def claim_weights(*shapes: Sequence[int]) -> None:
    """Count new weights of these shapes; `ModelError` where the network may have no more."""
    network = _network.get()
    if network is None:
        return
    count = sum(math.prod(shape) for shape in shapes)
    if count > network.left:
        raise ModelError(
            f"it would start with {count:,} weights that are in no file; the network may still "
            f"have {network.left:,}: give files that belong together, or a smaller network"
        )
    network.left -= count


def require(condition: tf.Tensor, said: Sequence, values: tf.Tensor) -> tf.Tensor:
    """Return the values once it is clear that a condition holds.

    Raises `tf.errors.InvalidArgumentError` where it does not, with what is `said` (texts and
    tensors).
    """
    holds = tf.debugging.Assert(condition, said)
    with tf.control_dependencies([] if holds is None else [holds]):
        return tf.identity(values)


class CaffeLayer(keras.layers.Layer):
    """A layer with blobs, which are its weights in the order in which it adds them.

    Args:
        multipliers: the (lr_mult, decay_mult) of each blob.
        blob_names: the name of each blob, `""` for one of the layer's own. As in Caffe, layers
            share blobs, and nothing else: the first layer built within `network_blobs` makes a
            named blob, later ones take it, each with its own stride, dilation and other blobs.
    """

    def __init__(self, multipliers: Sequence[Sequence[float]] = (),
                 blob_names: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.caffe_multipliers = tuple(tuple(map(float, pair)) for pair in multipliers)
        self.blob_names = tuple(blob_names)
        self._added = 0

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        """Variables in the order of Caffe's blobs, each with its axes in the `blob_order`."""
        return ()

    def blob_order(self, rank: int) -> tuple[int, ...]:
        """Axes of a blob of `rank` axes taken from those of its variable."""
        return tuple(range(rank))

    def take_order(self, order: tuple[int, ...]) -> None:
        """Hold a shared blob in another layer's order; `ValueError` where the layer cannot."""
        raise ValueError("layers that keep a blob in different orders of its axes cannot share it")

    def add_weight(self, *args: Any, shape: tuple[int, ...] = (), name: str | None = None,
                   **kwargs: Any) -> keras.Variable:
        """Add the next blob, or take it from the layer that has one of its name.

        Raises `ValueError` where that one has another shape.
        """
        number = self._added
        self._added += 1
        shared = self.blob_names[number] if number < len(self.blob_names) else ""
        if not shared:
            claim_weights(shape)
            return super().add_weight(*args, shape=shape, name=name, **kwargs)
        network = _network.get()
        if network is None:
            raise ModelError(
                f"layer {self.name!r} shares the blob {shared!r} with other layers of its network; "
                "it can be built with them only"
            )
        blobs, order = network.shared, self.blob_order(len(shape))
        if shared not in blobs:
            claim_weights(shape)
            variable = super().add_weight(*args, shape=shape, name=name, **kwargs)
            blobs[shared] = _SharedBlob(self.name, variable, order)
            return variable
        blob = blobs[shared]
        wanted = tuple(shape[axis] for axis in order)
        found = tuple(blob.variable.shape[axis] for axis in blob.order)
        if wanted != found:
            raise ValueError(
                f"it shares the blob {shared!r} with layer {blob.owner!r}, where it has the shape "
                f"{found} (Caffe's order); here it needs {wanted}"
            )
        if order != blob.order:
            self.take_order(blob.order)
        return blob.variable

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "multipliers": [list(pair) for pair in self.caffe_multipliers],
            "blob_names": list(self.blob_names),
        }

    def require_known(self, sizes: Sequence[int | None]) -> tuple[int, ...]:
        """Return the sizes, all of which the weights depend on."""
        known = tuple(size for size in sizes if size is not None)
        if len(known) < len(sizes):
            raise UnknownSizeError(
                f"layer {self.name!r} needs an input of fixed size (its weights depend on "
                f"{tuple(sizes)}); build the network with fixed_shape=True, or with its weights"
            )
        return known
