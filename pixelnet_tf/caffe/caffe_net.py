"""A Caffe network as a Keras model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.caffe.blobs import blob_variables, get_blobs
from pixelnet_tf.caffe.layers.base import network_blobs
from pixelnet_tf.caffe.layers.losses import CaffeLoss, LossTerm
from pixelnet_tf.caffe.layout import caffe_shape, from_caffe, to_caffe
from pixelnet_tf.errors import ModelError
from prototxt_import.errors import listed


@contextmanager
def names_of_caffe() -> Iterator[None]:
    """Keep Keras from warning of inputs whose name in the dictionary is not the tensor's.

    The dictionary has Caffe's names, which tensors of Keras cannot always have: a name with a `/`,
    or that of a layer.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "When providing `inputs` as a dict", UserWarning)
        yield


@keras.saving.register_keras_serializable("pixelnet_tf")
class CaffeNet(keras.Model):
    """What `build_model` returns: a functional model from blob names to blob names.

    Called with a dictionary of inputs by their Caffe names, it returns a dictionary of blobs.
    Blobs with four axes are `(batch, height, width, channel)`, others as in Caffe.

    Examples
    --------
    >>> from pixelnet_tf.caffe.build import build_model
    >>> from pixelnet_tf.caffe.reading import read_network
    >>> network = read_network("deploy.prototxt", "weights.caffemodel")
    >>> model = build_model(network, blobs=["conv1_1"])
    >>> weights, bias = model.caffe_weights()["conv1_1"]
    >>> weights.shape                               # (out, in, height, width), as in Caffe
    (4, 3, 3, 3)
    """

    @classmethod
    def from_config(cls, config: dict[str, Any],
                    custom_objects: dict[str, Any] | None = None) -> CaffeNet:
        with network_blobs(), names_of_caffe():
            return super().from_config(config, custom_objects)

    @property
    def multipliers(self) -> dict[str, tuple[float, float]]:
        """The `lr_mult` and `decay_mult` of each trained variable, by its path."""
        found = {}
        for layer in self.layers:
            given = getattr(layer, "caffe_multipliers", ())
            for number, variable in enumerate(blob_variables(layer)):
                if not variable.trainable:
                    continue
                found[variable.path] = given[number] if number < len(given) else (1.0, 1.0)
        return found

    def total_loss(self, blobs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What Caffe minimises: the sum of the outputs that carry a loss weight, each times it."""
        terms = [layer for layer in self.layers
                 if isinstance(layer, (CaffeLoss, LossTerm)) and layer.weight]
        if not terms:
            raise ModelError(f"network {self.name!r} was built without a loss")
        missing = [term.top for term in terms if term.top not in blobs]
        if missing:
            raise ModelError(
                f"network {self.name!r} needs the blob {missing[0]!r} for its loss",
                value=missing[0], hint="build it with this blob among its outputs"
            )
        return tf.add_n([term.weight * tf.reduce_sum(blobs[term.top]) for term in terms])

    def caffe_weights(self) -> dict[str, tuple[np.ndarray, ...]]:
        """The weights of each layer, by its name, in Caffe's axis order."""
        return {layer.name: get_blobs(layer) for layer in self.layers if blob_variables(layer)}

    def run_caffe(
        self, arrays: Mapping[str, np.ndarray], training: bool = False
    ) -> dict[str, np.ndarray]:
        """Run the network on arrays in Caffe's axis order, and return its blobs in this order.

        Parameters
        ----------
        arrays
            The inputs by name.
        training
            Whether dropout and BatchNorm do what they do in training.

        Raises
        ------
        ModelError
            An input is missing or does not fit.
        """
        missing = [name for name in self.input if name not in arrays]
        if missing:
            raise ModelError(
                f"network {self.name!r} needs the input {missing[0]!r}; given: "
                f"{listed(sorted(arrays))}", value=missing[0]
            )
        inputs = {}
        for name, place in self.input.items():
            values = from_caffe(np.asarray(arrays[name], np.float32))
            known = len(values.shape) == len(place.shape) and all(
                want in (None, got) for want, got in zip(place.shape, values.shape, strict=True)
            )
            if not known:
                shape = np.shape(arrays[name])
                raise ModelError(
                    f"input {name!r} has the shape {shape} (Caffe's order); the network needs "
                    f"{caffe_shape(place.shape)}"
                )
            inputs[name] = tf.constant(values, place.dtype)
        try:
            blobs = self(inputs, training=training)
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise ModelError(
                f"network {self.name!r} cannot run on this: {keras_reason(error)}"
            ) from None
        return {name: to_caffe(value.numpy()) for name, value in blobs.items()}


def keras_reason(error: Exception) -> str:
    """What failed, without what Keras and TensorFlow say around it."""
    text = str(error)
    wrapped = re.search("\x1b\\[1m(.*)\x1b\\[0m", text, re.DOTALL)
    lines = (wrapped.group(1) if wrapped else text).splitlines()
    lines = [re.sub(r"\{\{.*?\}\}", "", line).strip() for line in lines]
    lines = [line for line in lines if line]
    said = [line for line in lines if "assertion failed" in line or "layer " in line]
    return (said or lines or [type(error).__name__])[0]
