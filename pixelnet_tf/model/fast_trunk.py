"""The trunk computed only where the image is: the same maps, a fraction of the work.

Exact, gradients included. The first blocks run on the box of the image's non-zero pixels, in
deviations from the empty canvas's response (zero outside the image's influence, so that the
convolutions' zero padding is right by construction). The last ones run on the whole canvas, pasted
together from the box and the empty canvas. fc6 and fc7 are computed only at the cells that a pixel
of the image can touch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from pixelnet_tf.model.empty_canvas import (
    MARGINS,
    constant_response,
    empty_pooled_map,
    separable_blocks,
)
from pixelnet_tf.model.hypercolumn import pixels_beside, sample_map, slices_beside
from pixelnet_tf.model.pixelnet import PixelNet, folded_kernel
from pixelnet_tf.model.vgg16 import Dropout

#: Boxes are rounded outwards to this many pixels, so that few different shapes occur.
GRID = 32


class Tap(NamedTuple):
    """A map of the hypercolumn, perhaps only a part of it.

    values (batch, height, width, channel); rate in pixels a cell; origin (2,) int32, the row and
    column of the whole map at which `values` begins. A pixel beyond `values` reads its last cell,
    which holds the response there. neighbours (target, offset) int32: images whose features, one
    after the other, are those of a target slice; None: every image is a target of its own.
    """

    values: tf.Tensor
    rate: int
    origin: tf.Tensor
    neighbours: tf.Tensor | None = None

    @property
    def channels(self) -> int:
        """Channels that a pixel has of the map, those of the slices beside among them."""
        return self.values.shape[-1] * (1 if self.neighbours is None else self.neighbours.shape[1])

    def sample(self, canvas_nyx: tf.Tensor) -> tf.Tensor:
        """Features (pixel, channel) at rows of n, y, x in canvas coordinates, float32."""
        shift = tf.cast(tf.concat([[0], self.origin * self.rate], 0), tf.float32)
        places = ([canvas_nyx] if self.neighbours is None
                  else pixels_beside(canvas_nyx, self.neighbours))
        read = [sample_map(self.values, place - shift, self.rate) for place in places]
        return read[0] if len(read) == 1 else tf.concat(read, axis=-1)

    def gathered(self) -> Tap:
        """The same map with an image for each target, which has all its channels."""
        if self.neighbours is None:
            return self
        values = tf.concat([tf.gather(self.values, images)
                            for images in tf.unstack(self.neighbours, axis=1)], axis=-1)
        return self._replace(values=values, neighbours=None)

    def cut(self, low_yx: tf.Tensor, high_yx: tf.Tensor) -> Tap:
        """The same map from one cell up to another, (2,) int32 each, counted in the whole map.

        Cells that `values` does not hold are those that a pixel there would read.
        """
        values = self.values
        for axis in (0, 1):
            cells = tf.range(low_yx[axis], high_yx[axis]) - self.origin[axis]
            last = tf.shape(values)[1 + axis] - 1
            values = tf.gather(values, tf.clip_by_value(cells, 0, last), axis=1 + axis)
        return self._replace(values=values, origin=low_yx)


def joined(lower: Tap, upper: Tap) -> Tap:
    """One map of the images of two."""
    low = tf.minimum(lower.origin, upper.origin)
    high = tf.maximum(*(tap.origin + tf.shape(tap.values)[1:3] for tap in (lower, upper)))
    values = [tap.cut(low, high).values for tap in (lower, upper)]
    return lower._replace(values=tf.concat(values, axis=0), origin=low)


def canvas_pixels(model: PixelNet, pixels_nyx: tf.Tensor) -> tf.Tensor:
    """Rows of n, y, x in image coordinates to canvas coordinates, float32."""
    border = model.config.border
    return tf.cast(pixels_nyx, tf.float32) + tf.constant([[0.0, border, border]])


def image_box(image: tf.Tensor) -> tf.Tensor:
    """Smallest box [top, left, bottom, right) (4,) int32 of a batch's non-zero pixels.

    An image of zeros alone has the box of its first pixel.
    """
    filled = tf.reduce_any(image != 0, axis=(0, 3))
    rows = tf.where(tf.reduce_any(filled, axis=1))[:, 0]
    columns = tf.where(tf.reduce_any(filled, axis=0))[:, 0]
    rows, columns = (tf.concat([line, tf.zeros([tf.cast(tf.size(line) == 0, tf.int32)], tf.int64)],
                               0) for line in (rows, columns))
    box = tf.stack([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    return tf.cast(box, tf.int32)


@tf.autograph.experimental.do_not_convert
def fast_taps(model: PixelNet, image: tf.Tensor, *, precision: tf.DType = tf.float32,
              dropout: Dropout | None = None, neighbours: tf.Tensor | None = None) -> list[Tap]:
    """The maps of the hypercolumn for every pixel inside the image.

    Args:
        model: its batch_norm taps use the stored statistics.
        image: (batch, height, width, channel) float32, normalised.
        precision: type of the convolutions; weights are cast on the way.
        dropout: applied to fc6 and fc7, as in `vgg16_taps`.
        neighbours: as the model takes them; None: the images are consecutive slices of one volume,
            the lowest first (`slices_beside`). Without `context_slices` there are none.
    """
    table = model.architecture
    weights = {name: (tf.cast(folded_kernel(model, name), precision),
                      tf.cast(model.parts[name].bias, precision)) for name in table.trunk_names}
    image = tf.cast(image, precision)
    border, blocks = table.border, separable_blocks(table.border)
    size = tf.shape(image)[1:3]
    canvas_size = size + 2 * border
    if blocks:
        taps, x = _boxed_blocks(model, weights, image, canvas_size, blocks)
    else:
        taps, x = [], tf.pad(image, [[0, 0], [border, border], [border, border], [0, 0]])
    zero = tf.zeros([2], tf.int32)
    for number in range(blocks, len(table.blocks)):
        for layer in table.blocks[number]:
            kernel, bias = weights[layer.name]
            response = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
            x = tf.nn.relu(response)
        taps.append(Tap(_tap(model, layer.name, response, x), table.taps[number].rate, zero))
        if table.pools_after(number):
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    if table.context:
        taps.append(_context(model, x, size, dropout or (lambda values, name: values)))
    if not table.beside:
        return taps
    if neighbours is None:
        neighbours = slices_beside(tf.shape(image)[0], table.offsets)
    return [tap._replace(neighbours=neighbours) for tap in taps]


def _tap(model: PixelNet, name: str, response: tf.Tensor, activation: tf.Tensor) -> tf.Tensor:
    if not model.architecture.batch_norm:
        return activation
    # Keras brings the response to the layer's own float32.
    return tf.cast(model.parts[f"bn_{name}"](response, training=False), activation.dtype)


def _boxed_blocks(model: PixelNet, weights: Mapping[str, tuple[tf.Tensor, tf.Tensor]],
                  image: tf.Tensor, canvas_size: tf.Tensor, blocks: int
                  ) -> tuple[list[Tap], tf.Tensor]:
    """Run the first blocks on the image's box; returns their taps and the pooled whole canvas."""
    table = model.architecture
    border, size = table.border, tf.shape(image)[1:3]
    start, stop = _rounded_box(image_box(image), border, size, blocks)
    # Cut the box out of the canvas: the image's own pixels with zeros around them.
    low, high = start - MARGINS[0], stop + MARGINS[0]
    before, after = tf.maximum(border - low, 0), tf.maximum(high - border - size, 0)
    inner = image[:, tf.maximum(low[0] - border, 0):high[0] - border,
                  tf.maximum(low[1] - border, 0):high[1] - border]
    deviation = tf.pad(inner, _paddings(before, after))
    constant = tf.zeros([image.shape[-1]], image.dtype)
    taps, origin = [], low
    for number in range(blocks):
        if number:
            margin = MARGINS[number]
            deviation = tf.pad(deviation, [[0, 0], [margin] * 2, [margin] * 2, [0, 0]])
            origin = origin // 2 - margin
        for layer in table.blocks[number]:
            kernel, bias = weights[layer.name]
            rest = constant_response(kernel, bias, constant)
            response = tf.nn.bias_add(tf.nn.conv2d(deviation, kernel, 1, "SAME"), rest)
            x, constant = tf.nn.relu(response), tf.nn.relu(rest)
            deviation = x - constant
        taps.append(Tap(_tap(model, layer.name, response, x), table.taps[number].rate, origin))
        deviation = tf.nn.max_pool2d(deviation, 2, 2, "SAME")
    empty = empty_pooled_map([[weights[layer.name] for layer in block]
                              for block in table.blocks[:blocks]], canvas_size[0], canvas_size[1])
    whole, origin = tf.shape(empty)[1:3], origin // 2
    after = whole - origin - tf.shape(deviation)[1:3]
    return taps, tf.pad(deviation, _paddings(origin, after)) + empty


def _rounded_box(box: tf.Tensor, border: int, size: tf.Tensor, blocks: int
                 ) -> tuple[tf.Tensor, tf.Tensor]:
    """Start and stop (2,) of the box in the canvas: outwards to GRID inside the image, then to
    the pooling grid of the last boxed block."""
    start, stop = box[:2] // GRID * GRID, tf.minimum(-(-box[2:] // GRID) * GRID, size)
    step = 2**blocks
    return (start + border) // step * step, -(-(stop + border) // step) * step


def _paddings(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    zero = tf.zeros([1, 2], tf.int32)
    return tf.concat([zero, tf.stack([before, after], axis=1), zero], axis=0)


def _context(model: PixelNet, pooled: tf.Tensor, size: tf.Tensor, dropout: Dropout) -> Tap:
    """fc6 and fc7 at the cells that a pixel of the image can touch.

    A handful of cells against 420 MB of weights: each is a matrix product, bound by reading the
    weights once. So they stay in float32, and no convolution reorders them.
    """
    table, rate = model.architecture, model.rates[-1]
    fc6, fc7 = table.context
    pad, side = fc6.padding, fc6.kernel
    cells = tf.shape(pooled)[1:3] + 2 * pad - (side - 1)
    offset = (rate - 1) / 2
    first = tf.cast(tf.floor((table.border - offset) / rate), tf.int32)
    last = tf.cast(tf.math.ceil((tf.cast(table.border + size - 1, tf.float32) - offset) / rate),
                   tf.int32)
    low, high = (tf.maximum(tf.minimum(cell, cells - 1), 0) for cell in (first, last))
    padded = tf.pad(pooled, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    window = padded[:, low[0]:high[0] + side, low[1]:high[1] + side]
    patches = tf.image.extract_patches(window, [1, side, side, 1], [1] * 4, [1] * 4, "VALID")
    x = dropout(tf.nn.relu(_product(model.parts[fc6.name], patches)), fc6.dropout)
    response = _product(model.parts[fc7.name], x)
    if table.batch_norm:
        values = model.parts[f"bn_{fc7.name}"](response, training=False)
    else:
        values = dropout(tf.nn.relu(response), fc7.dropout)
    return Tap(tf.cast(values, pooled.dtype), rate, low)


def _product(layer: keras.layers.Layer, inputs: tf.Tensor) -> tf.Tensor:
    """A convolution's response, inputs (..., height * width * in) being its patches."""
    kernel = tf.reshape(tf.convert_to_tensor(layer.kernel), [-1, layer.kernel.shape[-1]])
    rows = tf.reshape(tf.cast(inputs, tf.float32), [-1, kernel.shape[0]])
    response = tf.nn.bias_add(matrix_product(rows, kernel), layer.bias)
    return tf.reshape(response, tf.concat([tf.shape(inputs)[:-1], tf.shape(response)[-1:]], 0))


@tf.custom_gradient
def matrix_product(rows: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """rows (row, in) times kernel (in, out).

    TensorFlow's own gradient may hand out the kernel's share first. The solver then updates a
    kernel that the rows' share has yet to read, and copies it for that: 411 MB for fc6. Here the
    kernel's share waits for the rows'.
    """

    def gradient(top_diff: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        row_diff = tf.matmul(top_diff, kernel, transpose_b=True)
        with tf.control_dependencies([row_diff]):
            kernel_diff = tf.matmul(rows, top_diff, transpose_a=True)
        return row_diff, kernel_diff

    return tf.matmul(rows, kernel), gradient
