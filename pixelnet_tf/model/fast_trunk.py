"""The trunk computed only where the image is: the same maps, a fraction of the work.

Exact, gradients included. The first blocks run on the box of the image's non-zero pixels, in
deviations from the empty canvas's response (zero outside the image's influence, so that the
convolutions' zero padding is right by construction). The last ones run on the whole canvas, pasted
together from the box and the empty canvas. fc6 and fc7 are computed only at the cells that a pixel
touches which is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from pixelnet_tf.model.empty_canvas import (
    constant_response,
    empty_pooled_map,
    separable_blocks,
)
from pixelnet_tf.model.hypercolumn import pixels_beside, sample_map, slices_beside
from pixelnet_tf.model.pixelnet import PixelNet, folded_kernel
from pixelnet_tf.model.vgg16 import Dropout


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
    """Smallest box [top, left, bottom, right) (4,) int32 of a batch's non-zero pixels; as of
    `mask_box`."""
    return mask_box(tf.reduce_any(image != 0, axis=3))


def mask_box(mask: tf.Tensor) -> tf.Tensor:
    """Smallest box [top, left, bottom, right) (4,) int32 of pixels (batch, height, width) bool.

    Of none it is that of the first pixel.
    """
    filled = tf.reduce_any(mask, axis=0)
    rows = tf.where(tf.reduce_any(filled, axis=1))[:, 0]
    columns = tf.where(tf.reduce_any(filled, axis=0))[:, 0]
    rows, columns = (tf.concat([line, tf.zeros([tf.cast(tf.size(line) == 0, tf.int32)], tf.int64)],
                               0) for line in (rows, columns))
    box = tf.stack([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    return tf.cast(box, tf.int32)


#: Kernel and bias of each convolution of the trunk.
Weights = Mapping[str, tuple[tf.Tensor, tf.Tensor]]


def trunk_weights(model: PixelNet, precision: tf.DType = tf.float32) -> Weights:
    """Kernel and bias of each convolution of the trunk, in the type of its convolutions."""
    return {name: (tf.cast(folded_kernel(model, name), precision),
                   tf.cast(model.parts[name].bias, precision))
            for name in model.architecture.trunk_names}


def fast_taps(model: PixelNet, image: tf.Tensor, *, precision: tf.DType = tf.float32,
              dropout: Dropout | None = None, neighbours: tf.Tensor | None = None,
              weights: Weights | None = None, empty: Sequence[tf.Tensor] = (),
              read: tf.Tensor | None = None) -> list[Tap]:
    """The maps of the hypercolumn for every pixel inside the image.

    Args:
        model: its batch_norm taps use the stored statistics.
        image: (batch, height, width, channel) float32, normalised.
        precision: type of the convolutions; weights are cast on the way.
        dropout: applied to fc6 and fc7, as in `vgg16_taps`.
        neighbours: as the model takes them; None: the images are consecutive slices of one volume,
            the lowest first (`slices_beside`). Without `context_slices` there are none.
        weights: `trunk_weights`, where they are known.
        empty: `empty_responses` of images of this size, where they are known: then the last blocks
            are computed only where the image has an influence, too.
        read: box [top, left, bottom, right) (4,) int32 of the pixels that the maps are read at;
            None: all of the image. Outside it the context is not right.
    """
    table = model.architecture
    weights = weights or trunk_weights(model, precision)
    image = tf.cast(image, precision)
    border, blocks = table.border, separable_blocks(table.border)
    size = tf.shape(image)[1:3]
    canvas_size = size + 2 * border
    window = tf.stack([tf.zeros([2], tf.int32), canvas_size])
    if blocks:
        taps, deviation, origin = _boxed_blocks(model, weights, image, blocks)
        window = tf.stack([origin, origin + tf.shape(deviation)[1:3]])
        pooled = empty[0] if empty else _empty_pooled(model, weights, canvas_size)
        x = tf.pad(deviation, _paddings(origin, tf.shape(pooled)[1:3] - window[1])) + pooled
    else:
        taps, x = [], tf.pad(image, [[0, 0], [border, border], [border, border], [0, 0]])
    rest = iter(empty[1:])
    for number in range(blocks, len(table.blocks)):
        for layer in table.blocks[number]:
            kernel, bias = weights[layer.name]
            if empty:
                response, window = _response_within(x, kernel, bias, window, next(rest))
            else:
                response = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)
            x = tf.nn.relu(response)
        taps.append(Tap(_tap(model, layer.name, response, x), table.taps[number].rate,
                        tf.zeros([2], tf.int32)))
        if table.pools_after(number):
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
            window = tf.stack([window[0] // 2, -(-window[1] // 2)])
    if table.context:
        box = tf.concat([[0, 0], size], 0) if read is None else read
        taps.append(_context(model, x, box, dropout or (lambda values, name: values)))
    if not table.beside:
        return taps
    if neighbours is None:
        neighbours = slices_beside(tf.shape(image)[0], table.offsets)
    return [tap._replace(neighbours=neighbours) for tap in taps]


def empty_responses(model: PixelNet, weights: Weights, size: tf.Tensor) -> list[tf.Tensor]:
    """What the last blocks answer to an image of zeros, for `fast_taps`.

    size: (2,) int32, height and width of the image.

    Returns the pooled map of the first blocks and the response of each convolution after them,
    (1, height, width, channel) each; nothing where no block can be computed apart from the canvas's
    edge.
    """
    table = model.architecture
    blocks = separable_blocks(table.border)
    if not blocks:
        return []
    x = _empty_pooled(model, weights, size + 2 * table.border)
    found = [x]
    for number in range(blocks, len(table.blocks)):
        for layer in table.blocks[number]:
            kernel, bias = weights[layer.name]
            found.append(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
            x = tf.nn.relu(found[-1])
        if table.pools_after(number):
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    return found


def _empty_pooled(model: PixelNet, weights: Weights, canvas_size: tf.Tensor) -> tf.Tensor:
    blocks = model.architecture.blocks[:separable_blocks(model.architecture.border)]
    return empty_pooled_map([[weights[layer.name] for layer in block] for block in blocks],
                            *tf.unstack(canvas_size))


def _response_within(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, window: tf.Tensor,
                     empty: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A convolution of a map that differs from the empty canvas's in a window alone.

    window: (2, 2) int32, first cell and the one past the last. Returns the whole response, and the
    window in which it differs from `empty`, the empty canvas's.
    """
    size = tf.shape(x)[1:3]
    low, high = tf.maximum(window[0] - 1, 0), tf.minimum(window[1] + 1, size)
    # The cells around it, and beyond the canvas's edge zeros.
    first, last = tf.maximum(low - 1, 0), tf.minimum(high + 1, size)
    seen = tf.pad(x[:, first[0]:last[0], first[1]:last[1]],
                  _paddings(first - low + 1, high + 1 - last))
    response = tf.nn.bias_add(tf.nn.conv2d(seen, kernel, 1, "VALID"), bias)
    place = _paddings(low, size - high)
    inside = tf.pad(tf.ones_like(response[:1, :, :, :1], tf.bool), place)
    return tf.where(inside, tf.pad(response, place), empty), tf.stack([low, high])


def _tap(model: PixelNet, name: str, response: tf.Tensor, activation: tf.Tensor) -> tf.Tensor:
    if not model.architecture.batch_norm:
        return activation
    # Keras brings the response to the layer's own float32.
    return tf.cast(model.parts[f"bn_{name}"](response, training=False), activation.dtype)


def _boxed_blocks(model: PixelNet, weights: Weights, image: tf.Tensor, blocks: int
                  ) -> tuple[list[Tap], tf.Tensor, tf.Tensor]:
    """Run the first blocks on the image's box.

    The box grows by a cell with each convolution, as far as the image's influence does and no
    farther.

    Returns their taps, the pooled deviations of the last one, and the cell (2,) of the whole pooled
    map at which these begin.
    """
    table = model.architecture
    border, size = table.border, tf.shape(image)[1:3]
    # On the pooling's grid, so that few different shapes occur, too.
    box, step = image_box(image) + border, 2**blocks
    start, stop = box[:2] // step * step, -(-box[2:] // step) * step
    # Cut the box out of the canvas: the image's own pixels with zeros around them.
    before, after = tf.maximum(border - start, 0), tf.maximum(stop - border - size, 0)
    inner = image[:, tf.maximum(start[0] - border, 0):stop[0] - border,
                  tf.maximum(start[1] - border, 0):stop[1] - border]
    deviation = tf.pad(inner, _paddings(before, after))
    constant = tf.zeros([image.shape[-1]], image.dtype)
    #: Cells by which the map has grown beyond the box, which lies on the pooling's grid.
    taps, grown = [], 0
    for number in range(blocks):
        for layer in table.blocks[number]:
            kernel, bias = weights[layer.name]
            rest = constant_response(kernel, bias, constant)
            response = tf.nn.bias_add(_growing(deviation, kernel), rest)
            x, constant = tf.nn.relu(response), tf.nn.relu(rest)
            if layer is not table.blocks[number][-1]:
                deviation = x - constant
            grown += 1
        # Cells of the constant response around it are what pixels beyond it read; with an even
        # number of cells around the box, pooling begins at a window of the whole map.
        rim = 2 - grown % 2
        around = _framed(x, constant, rim)
        if table.batch_norm:
            beyond = rest[None, None, None]
            tap = _framed(_tap(model, layer.name, response, x),
                          _tap(model, layer.name, beyond, beyond), rim)
        taps.append(Tap(tap if table.batch_norm else around, table.taps[number].rate,
                        start // 2**number - grown - rim))
        pooled = tf.nn.max_pool2d(around, 2, 2, "VALID") - constant
        spare, grown = (grown + rim) // 2 - (grown + 1) // 2, (grown + 1) // 2
        deviation = pooled[:, spare:-spare, spare:-spare] if spare else pooled
    return taps, deviation, start // 2**blocks - grown


#: A response one cell larger on every side than what it comes from: kernels of three cells.
_GROWING = [[0, 0], [2, 2], [2, 2], [0, 0]]


def _growing(values: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """A convolution whose response is a cell larger on every side.

    oneDNN takes no gradients of paddings that a convolution has of its own. In bfloat16 the code
    that is left takes ten times as long; in float32 hardly longer, and its forward pass is faster.
    """
    if values.dtype == tf.bfloat16:
        return tf.nn.conv2d(tf.pad(values, _GROWING), kernel, 1, "VALID")
    return tf.nn.conv2d(values, kernel, 1, _GROWING)


def _framed(values: tf.Tensor, constant: tf.Tensor, rim: int) -> tf.Tensor:
    """A map (batch, height, width, channel), `rim` cells of a constant (..., channel) around it."""
    inside = [[0, 0], [rim] * 2, [rim] * 2, [0, 0]]
    outside = 1 - tf.pad(tf.ones_like(values[:1, :, :, :1]), inside)
    return tf.pad(values, inside) + outside * constant


def _paddings(before: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
    zero = tf.zeros([1, 2], tf.int32)
    return tf.concat([zero, tf.stack([before, after], axis=1), zero], axis=0)


def _context(model: PixelNet, pooled: tf.Tensor, box: tf.Tensor, dropout: Dropout) -> Tap:
    """fc6 and fc7 at the cells that the pixels of a box of the image touch.

    A handful of cells against 420 MB of weights: each is a matrix product, bound by reading the
    weights once. So they stay in float32, and no convolution reorders them.
    """
    table, rate = model.architecture, model.rates[-1]
    fc6, fc7 = table.context
    pad, side = fc6.padding, fc6.kernel
    cells = tf.shape(pooled)[1:3] + 2 * pad - (side - 1)
    offset = (rate - 1) / 2
    ends = (tf.cast(box + table.border, tf.float32) - offset) / rate
    first = tf.cast(tf.floor(ends[:2]), tf.int32)
    last = tf.cast(tf.math.ceil(ends[2:] - 1 / rate), tf.int32)
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
    """A convolution's response, inputs (..., height * width * in) being its patches.

    A product for each place of the kernel, which reads it a third faster than one large product.
    """
    kernel = tf.convert_to_tensor(layer.kernel)
    kernel = tf.reshape(kernel, [-1, *kernel.shape[2:]])
    rows = tf.reshape(tf.cast(inputs, tf.float32), [-1, *kernel.shape[:2]])
    response = tf.reduce_sum(matrix_product(tf.transpose(rows, [1, 0, 2]), kernel), axis=0)
    return tf.reshape(tf.nn.bias_add(response, layer.bias),
                      tf.concat([tf.shape(inputs)[:-1], tf.shape(response)[-1:]], 0))


@tf.custom_gradient
def matrix_product(rows: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """rows (..., row, in) times kernel (..., in, out).

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
