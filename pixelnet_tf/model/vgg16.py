"""VGG-16 as PixelNet uses it: five convolution blocks, then fc6 and fc7 as convolutions."""

from __future__ import annotations

from collections.abc import Mapping

import keras

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.model.fillers import CaffeFiller

#: Names of the convolutions of each block, as Caffe's VGG-16 files write them.
BLOCKS = tuple(
    tuple(f"conv{block}_{i}" for i in range(1, count + 1))
    for block, count in enumerate((2, 2, 3, 3, 3), start=1)
)
#: The convolution of each block that the hypercolumn reads, and its stride in pixels.
TAPS = tuple(block[-1] for block in BLOCKS)
STRIDES = (1, 2, 4, 8, 16)


def vgg16_layers(config: ModelConfig, seed: int | None = None) -> dict[str, keras.layers.Layer]:
    """Make the convolutions of the trunk by their Caffe names, with random (He) kernels.

    Convolutions are linear: the ReLU is applied by `vgg16_taps`, since the BatchNorm variant reads
    the response before it (as the original's lin_bn prototxt does).
    """
    layers = {}
    for names, width in zip(BLOCKS, config.widths, strict=True):
        for name in names:
            layers[name] = _convolution(name, width, 3, "same", len(layers), seed)
    if config.fc7 != "none":
        padding = "same" if config.fc7 == "aligned" else "valid"
        layers["fc6_conv"] = _convolution("fc6_conv", config.fc_width, 7, padding, 20, seed)
        layers["fc7_conv"] = _convolution("fc7_conv", config.fc_width, 1, "valid", 21, seed)
    return layers


def _convolution(name, width, size, padding, number, seed) -> keras.layers.Conv2D:
    filler = CaffeFiller("msra", seed=None if seed is None else seed + number)
    return keras.layers.Conv2D(width, size, padding=padding, kernel_initializer=filler, name=name)


def vgg16_taps(layers: Mapping[str, keras.layers.Layer], canvas, config: ModelConfig,
               dropout=None, training: bool | None = None) -> list:
    """Run the trunk over a whole canvas.

    Args:
        layers: the layers of `vgg16_layers`, and `bn_<tap>` where the taps are normalised.
        canvas: (batch, height, width, channel), the image with its border of zeros.
        dropout: function (values, layer name) -> values applied to fc6 and fc7; None: none.
        training: whether BatchNorm takes (and gathers) the batch's statistics; None: as the model
            that is being built is called.

    Returns the maps that the hypercolumn reads, (batch, height / stride, width / stride, width)
    each: conv1_2, conv2_2, conv3_3, conv4_3, conv5_3 and, unless fc7 is `none`, fc7_conv. Pooling
    is Caffe's 2x2 with stride 2, whose ceil(size / 2) is `same` padding.
    """
    relu, dropout = keras.ops.relu, dropout or (lambda values, name: values)
    taps, x = [], canvas
    for number, names in enumerate(BLOCKS):
        for name in names:
            response = layers[name](x)
            x = relu(response)
        taps.append(layers[f"bn_{names[-1]}"](response, training=training)
                    if config.batch_norm else x)
        if number < len(BLOCKS) - 1 or config.fc7 != "none":
            x = keras.ops.max_pool(x, 2, 2, padding="same")
    if config.fc7 == "none":
        return taps
    x = dropout(relu(layers["fc6_conv"](x)), "drop6")
    response = layers["fc7_conv"](x)
    if config.batch_norm:
        # The original's lin_bn net has no ReLU on fc7_conv: one follows the hypercolumn.
        return [*taps, layers["bn_fc7_conv"](response, training=training)]
    return [*taps, dropout(relu(response), "drop7")]
