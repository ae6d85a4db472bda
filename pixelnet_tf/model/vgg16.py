"""VGG-16 as PixelNet uses it: five convolution blocks, then fc6 and fc7 as convolutions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from pixelnet_tf.model.architecture import Architecture, Convolution
from pixelnet_tf.model.fillers import CaffeFiller, Undrawn

#: Drops some of the values (first argument) of the dropout of this name (second).
Dropout = Callable[[tf.Tensor, str], tf.Tensor]


def vgg16_layers(table: Architecture, seed: int | None = None, draw: bool = True
                 ) -> dict[str, keras.layers.Layer]:
    """Make the convolutions of the trunk by their Caffe names, with random (He) kernels.

    With `draw=False` the kernels hold nothing yet (`Undrawn`).

    Convolutions are linear: the ReLU is applied by `vgg16_taps`, since the BatchNorm variant reads
    the response before it (as the original's lin_bn prototxt does).
    """
    trunk = [layer for block in table.blocks for layer in block]
    numbered = [*enumerate(trunk), *enumerate(table.context, start=20)]

    def filler(number: int) -> keras.initializers.Initializer:
        if not draw:
            return Undrawn()
        return CaffeFiller("msra", seed=None if seed is None else seed + number)

    return {layer.name: _convolution(layer, filler(number)) for number, layer in numbered}


def _convolution(layer: Convolution, filler: keras.initializers.Initializer
                 ) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        layer.width, layer.kernel, padding="same" if layer.padding else "valid",
        kernel_initializer=filler, name=layer.name)


def vgg16_taps(layers: Mapping[str, keras.layers.Layer], canvas: tf.Tensor, table: Architecture,
               dropout: Dropout | None = None, training: bool | None = None) -> list[tf.Tensor]:
    """Run the trunk over a whole canvas.

    Args:
        layers: the layers of `vgg16_layers`, and `bn_<tap>` where the taps are normalised.
        canvas: (batch, height, width, channel), the image with its border of zeros.
        dropout: applied to fc6 and fc7; None: none.
        training: whether BatchNorm takes (and gathers) the batch's statistics; None: as the model
            that is being built is called.

    Returns the maps that the hypercolumn reads, (batch, height / stride, width / stride, width)
    each: conv1_2, conv2_2, conv3_3, conv4_3, conv5_3 and, unless fc7 is `none`, fc7_conv. Pooling
    is Caffe's 2x2 with stride 2, whose ceil(size / 2) is `same` padding.
    """
    relu, dropout = keras.ops.relu, dropout or (lambda values, name: values)
    taps, x = [], canvas
    for number, block in enumerate(table.blocks):
        for layer in block:
            response = layers[layer.name](x)
            x = relu(response)
        taps.append(layers[f"bn_{block[-1].name}"](response, training=training)
                    if table.batch_norm else x)
        if table.pools_after(number):
            x = keras.ops.max_pool(x, 2, 2, padding="same")
    if not table.context:
        return taps
    fc6, fc7 = table.context
    x = dropout(relu(layers[fc6.name](x)), fc6.dropout)
    response = layers[fc7.name](x)
    if table.batch_norm:
        # The original's lin_bn net has no ReLU on fc7_conv: one follows the hypercolumn.
        return [*taps, layers[f"bn_{fc7.name}"](response, training=training)]
    return [*taps, dropout(relu(response), fc7.dropout)]
