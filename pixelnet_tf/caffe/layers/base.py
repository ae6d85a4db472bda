"""What all layers with weights of a Caffe network share."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from pixelnet_tf.errors import ModelError


class UnknownSizeError(ModelError):
    """A layer's weights depend on a size of its input that is not fixed."""


class CaffeLayer(keras.layers.Layer):
    """A layer with blobs: it carries the (lr_mult, decay_mult) of each, in Caffe's order."""

    def __init__(self, multipliers: Sequence[Sequence[float]] = (), **kwargs):
        super().__init__(**kwargs)
        self.caffe_multipliers = tuple(tuple(map(float, pair)) for pair in multipliers)

    @property
    def blob_variables(self) -> tuple[keras.Variable, ...]:
        """Variables in the order of Caffe's blobs.

        They have the blobs' own shapes, except a convolution's kernel and an InnerProduct's
        matrix (`pixelnet_tf.caffe.blobs`).
        """
        return ()

    def get_config(self):
        return {
            **super().get_config(),
            "multipliers": [list(pair) for pair in self.caffe_multipliers],
        }

    def require_known(self, sizes: Sequence[int | None]) -> tuple[int, ...]:
        """Return the sizes, all of which the weights depend on."""
        if None in sizes:
            raise UnknownSizeError(
                f"layer {self.name!r} needs an input of fixed size (its weights depend on "
                f"{tuple(sizes)}); build the network with fixed_shape=True, or with its weights"
            )
        return tuple(sizes)
