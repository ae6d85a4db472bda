"""Convolution and dense layer that read their weights from a file part by part."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

#: Numbers read at once, where a row of the first axis holds no more: 64 MB of float32.
_PART = 2**24


class _InParts:
    """Loads weights without a second and third copy of a kernel: fc6_conv's alone has 411 MB."""

    def load_own_variables(self, store) -> None:
        if len(store.keys()) != len(self.weights):
            raise ValueError(f"layer {self.name} has {len(self.weights)} weights, the file holds "
                             f"{len(store.keys())}")
        for number, variable in enumerate(self.weights):
            source = store[str(number)]
            if tuple(source.shape) != tuple(variable.shape):
                raise ValueError(f"layer {self.name}: {variable.name} has the shape "
                                 f"{tuple(variable.shape)}, in the file {tuple(source.shape)}")
            rows = max(1, _PART // math.prod(variable.shape[1:]))
            for start in range(0, variable.shape[0], rows):
                # `variable[start:stop].assign` would read, and then copy, the whole kernel first.
                tf.raw_ops.ResourceStridedSliceAssign(
                    ref=variable.value.handle, begin=[start], end=[start + rows], strides=[1],
                    value=source[start:start + rows])


@keras.saving.register_keras_serializable("pixelnet_tf")
class Conv2D(_InParts, keras.layers.Conv2D):
    """Keras' convolution."""


@keras.saving.register_keras_serializable("pixelnet_tf")
class Dense(_InParts, keras.layers.Dense):
    """Keras' dense layer."""
