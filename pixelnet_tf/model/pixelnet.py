"""PixelNet: VGG-16, hypercolumn and perceptron as one Keras functional model (paper section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from pixelnet_tf.config import (
    MIXED_CHANNELS,
    HeadFiller,
    ModelConfig,
    StudyConfig,
    config_from_dict,
    config_to_dict,
)
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.architecture import MIXING, Architecture
from pixelnet_tf.model.batch_norm import CaffeBatchNorm
from pixelnet_tf.model.fillers import CaffeFiller, Undrawn
from pixelnet_tf.model.hypercolumn import Hypercolumn, pixels_beside, slices_beside
from pixelnet_tf.model.vgg16 import Dropout, vgg16_layers, vgg16_taps


@keras.saving.register_keras_serializable("pixelnet_tf")
class PixelNet(keras.Model):
    """Scores of sampled pixels.

    Called with `[image, pixels]`: image `(batch, height, width, channel)` float32, normalised
    slices; pixels `(pixel, 3)` float32 rows of n, y, x in image coordinates (the border is the
    model's own business). Returns the scores before softmax, `(pixel, class)` float32; with
    `region_based` those before the sigmoid of each region.

    With `context_slices` above 1 it is called with `[image, pixels, neighbours]`: neighbours
    `(target, context_slices)` int32, for each target slice the numbers of the images that hold it
    and those beside it, in the order of `Architecture.offsets`; the n of a pixel is then a target.

    Layer names are those of the original Caffe files: conv1_1 to conv5_3, fc6_conv, fc7_conv,
    rand_concat (the hypercolumn), fc6_new, fc7_new, cls_score_new, and `bn_` with the tap's
    name. With `mix_channels` a layer of that name stands before conv1_1.

    Parameters
    ----------
    config
        Widths, taps, head and border: a `ModelConfig`, or the section `model` as a dictionary.
    channels
        Number of image channels (modalities).
    classes
        Number of scores a pixel: the classes', or with `region_based` the regions'.
    seed
        Seed of the random start weights; None draws afresh.
    draw
        False leaves the kernels undefined, which is quick: for weights that are read next.

    Examples
    --------
    >>> import numpy as np, pixelnet_tf as px
    >>> model = px.PixelNet({"widths": [4, 4, 8, 8, 8], "fc7": "none", "head_widths": [16],
    ...                      "border": 16}, channels=3, classes=4)
    >>> image = np.zeros((1, 32, 48, 3), "float32")
    >>> model([image, np.array([[0, 5, 7], [0, 31, 47]], "float32")]).shape
    TensorShape([2, 4])
    """

    def __init__(self, config: ModelConfig | dict[str, Any] | None = None, channels: int = 3,
                 classes: int = 2, seed: int | None = None, *, draw: bool = True, **kwargs: Any):
        if isinstance(config, dict):
            config = config_from_dict({"model": config}).model
        config = config or ModelConfig()
        if channels < 1 or classes < 1:
            raise ModelError(f"channels and classes must be positive, got {channels}, {classes}",
                             value=channels)
        table = Architecture.of(config, classes)
        table.blob_shapes(channels)
        layers = {**_mixing_layer(table, channels, draw), **vgg16_layers(table, seed, draw),
                  **_head_layers(table, config, seed, draw)}
        image = keras.Input((None, None, channels), name="image")
        pixels = keras.Input((3,), name="pixels")
        taps = vgg16_taps(layers, _canvas(layers, image, config.border), table,
                          _keras_dropout(config))
        inputs, places = [image, pixels], [pixels]
        if table.beside:
            inputs.append(keras.Input((len(table.offsets),), name="neighbours", dtype="int32"))
            places = pixels_beside(pixels, inputs[-1])
        hypercolumns, *beside = (layers["rand_concat"]([*taps, _shift(place, config.border)])
                                 for place in places)
        scores = head_scores(layers, hypercolumns, table, _keras_dropout(config), beside)
        super().__init__(inputs=inputs, outputs=scores,
                         **{"name": "pixelnet", **kwargs})
        self.config, self.channels, self.classes = config, channels, classes
        #: What its layers are and how they follow each other.
        self.architecture = table
        #: The layers by their Caffe names.
        self.parts = layers

    @property
    def weighted(self) -> frozenset[str]:
        """Names of the layers that have weights."""
        return frozenset(name for name, layer in self.parts.items() if layer.weights)

    @property
    def rates(self) -> tuple[int, ...]:
        """Stride in pixels at which each tap is read."""
        return self.architecture.rates

    @property
    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Variable path -> (lr_mult, decay_mult), as in the authors' files.

        Biases learn twice as fast and do not decay, except those of fc6_conv and fc7_conv, whose
        layers carry no `param` blocks there.
        """
        of_bias = self.architecture.multipliers
        return {variable.path: of_bias[name] if variable.name == "bias" else (1.0, 1.0)
                for name, layer in self.parts.items() for variable in layer.trainable_variables}

    def check_study(self, study: StudyConfig) -> None:
        """Raise `ModelError` where a study has other numbers of modalities or labels, or, of a
        network that scores regions, of regions."""
        scored = (("regions", "regions", self.classes, list(study.regions))
                  if self.config.region_based else
                  ("classes", "labels", self.classes, dict(study.labels)))
        for what, key, mine, theirs in (
                ("channels", "modalities", self.channels, list(study.modalities)), scored):
            if mine != len(theirs):
                raise ModelError(f"the model has {mine} {what}, but study.{key} names "
                                 f"{len(theirs)}: {theirs}")

    def get_config(self) -> dict[str, Any]:
        return {"config": config_to_dict(self.config), "channels": self.channels,
                "classes": self.classes, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any],
                    custom_objects: dict[str, Any] | None = None) -> PixelNet:
        return cls(**config)


def _head_layers(table: Architecture, config: ModelConfig, seed: int | None, draw: bool
                 ) -> dict[str, keras.layers.Layer]:
    layers = {"rand_concat": Hypercolumn(table.rates, name="rand_concat",
                                         out_of_range="error" if table.border else "clamp")}
    if table.batch_norm:
        layers |= {f"bn_{tap.layer}": CaffeBatchNorm(name=f"bn_{tap.layer}") for tap in table.taps}
    for number, layer in enumerate(table.head):
        filler = (_head_filler(config, None if seed is None else seed + 100 + number) if draw
                  else Undrawn())
        layers[layer.name] = keras.layers.Dense(layer.width, kernel_initializer=filler,
                                                name=layer.name)
    for layer in table.beside:
        # From zero, so that the network starts as the one that sees a slice alone.
        layers[layer.name] = keras.layers.Dense(
            layer.width, use_bias=False, kernel_initializer="zeros" if draw else Undrawn(),
            name=layer.name)
    return layers


def _head_filler(config: ModelConfig, seed: int | None) -> CaffeFiller:
    if config.head_filler == HeadFiller.HE:
        return CaffeFiller("msra", seed=seed)
    return CaffeFiller("gaussian", std=config.filler_std, seed=seed)


def head_scores(layers: Mapping[str, keras.layers.Layer], hypercolumns: tf.Tensor,
                table: Architecture, dropout: Dropout | None = None,
                beside: Sequence[tf.Tensor] = ()) -> tf.Tensor:
    """Run the head on hypercolumns (pixel, channel); returns scores (pixel, class) float32.

    beside: hypercolumns of the same pixels in the slices beside, in the order of `table.beside`.
    """
    columns = [keras.ops.relu(column) if table.relu_on_hypercolumn else column
               for column in (hypercolumns, *beside)]
    sums = layers[table.head[0].name](columns[0])
    for layer, column in zip(table.beside, columns[1:], strict=True):
        sums = sums + layers[layer.name](column)
    for before, layer in zip(table.head, table.head[1:], strict=False):
        values = keras.ops.relu(sums)
        if dropout is not None:
            values = dropout(values, before.dropout)
        sums = layers[layer.name](values)
    return keras.ops.cast(sums, "float32")


def _mixing_layer(table: Architecture, channels: int, draw: bool
                  ) -> dict[str, keras.layers.Layer]:
    """The 1x1 layer before conv1_1, where there is one: it begins as the identity of the first
    channels."""
    if not table.mixes:
        return {}
    start = keras.initializers.Identity() if draw else Undrawn()
    layer = keras.layers.Dense(MIXED_CHANNELS, use_bias=False, kernel_initializer=start,
                               name=MIXING)
    layer.build((None, None, None, channels))
    return {MIXING: layer}


def folded_kernel(model: PixelNet, name: str) -> tf.Tensor:
    """Kernel (height, width, channel, filter) of a convolution of the trunk; that of conv1_1 with
    the mixing layer before it folded in, where there is one."""
    kernel = tf.convert_to_tensor(model.parts[name].kernel)
    if not model.architecture.mixes or name != model.architecture.trunk_names[0]:
        return kernel
    # Both are linear and the mixing has no bias, so that zeros around the image stay zeros.
    return tf.einsum("cm,hwmf->hwcf", tf.convert_to_tensor(model.parts[MIXING].kernel), kernel)


def _canvas(layers: Mapping[str, keras.layers.Layer], image: tf.Tensor, border: int) -> tf.Tensor:
    if MIXING in layers:
        image = layers[MIXING](image)
    return keras.ops.pad(image, [[0, 0], [border, border], [border, border], [0, 0]])


def _shift(pixels: tf.Tensor, border: int) -> tf.Tensor:
    return pixels + keras.ops.convert_to_tensor([[0.0, border, border]])


def _keras_dropout(config: ModelConfig) -> Dropout | None:
    if not config.dropout:
        return None
    made: dict[str, keras.layers.Layer] = {}

    def apply(values: tf.Tensor, name: str) -> tf.Tensor:
        made[name] = keras.layers.Dropout(config.dropout, name=name)
        return made[name](values)

    return apply


def plain_taps(model: PixelNet, image: tf.Tensor, dropout: Dropout | None = None,
               training: bool = False) -> list[tf.Tensor]:
    """The trunk over the whole canvas, by the model's own layers: the yardstick of the fast forms.

    image `(batch, height, width, channel)`; returns the maps of `vgg16_taps`.
    """
    return vgg16_taps(model.parts, _canvas(model.parts, image, model.config.border),
                      model.architecture, dropout, training)


def plain_scores(model: PixelNet, taps: Sequence[tf.Tensor], pixels_nyx: tf.Tensor,
                 dropout: Dropout | None = None, neighbours: tf.Tensor | None = None) -> tf.Tensor:
    """Scores `(pixel, class)` of pixels in image coordinates from the maps of `plain_taps`.

    neighbours: as the model takes them; None: the images are consecutive slices of one volume, the
    lowest first (`slices_beside`).
    """
    table, places = model.architecture, [pixels_nyx]
    if table.beside:
        if neighbours is None:
            neighbours = slices_beside(tf.shape(taps[0])[0], table.offsets)
        places = pixels_beside(pixels_nyx, neighbours)
    own, *beside = (model.parts["rand_concat"]([*taps, _shift(place, model.config.border)])
                    for place in places)
    return head_scores(model.parts, own, table, dropout, beside)
