"""The response of the network to an empty canvas, and how far an image's influence reaches.

The canvas around an image is zeros. Away from the image and from the canvas's own edge, every
convolution answers the zeros with one constant number a channel; near the edge, where the padding
cuts the kernel, the answer depends on the distance to the edge alone. Both are cheap: the constant
needs one kernel sum, the edge a miniature canvas whose middle row and column stand for all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import tensorflow as tf

from pixelnet_tf.model.architecture import BLOCKS

#: Cells by which the box of the image has grown at the end of each block beyond what it was at the
#: end of the one before: by what its convolutions spread to, and to an even number with one cell or
#: two of the constant response around it.
MARGINS = (4, 2, 4, 5)
#: Smallest miniature canvas of each block: the zones of both edges and a constant middle.
MINIATURES = (8, 10, 14, 18)


@lru_cache
def separable_blocks(border: int) -> int:
    """Blocks (0 to 4) at whose end the image and the canvas's edge influence different cells.

    Counted in cells of each block for every phase of the canvas on the pooling grid: up to there
    the response around the image's box can be computed as if the canvas had no edge.
    """
    return min(_separable(border, border + phase + 32) for phase in range(32))


def _separable(border: int, end: int) -> int:
    size = end + border
    image, edge = [border, end], [0, size]
    margin_fits = 0
    for block, count in enumerate(map(len, BLOCKS[:4])):
        image = [image[0] - count, image[1] + count]
        edge = [edge[0] + count, edge[1] - count]
        margin_fits = (margin_fits + MARGINS[block] * 2**block)
        grid = 2 ** (block + 1)
        start, stop = border // grid * grid - margin_fits, -(-end // grid) * grid + margin_fits
        if edge[0] > image[0] or edge[1] < image[1] or start < 0 or stop > size:
            return block
        image = [image[0] // 2, -(-image[1] // 2)]
        edge = [-(-edge[0] // 2), edge[1] // 2]
    return 4


def constant_response(kernel: tf.Tensor, bias: tf.Tensor, constant: tf.Tensor) -> tf.Tensor:
    """Pre-activation (out,) of a convolution over a constant input (in,), away from any edge."""
    # One pass over the kernel; summing its taps first would take several.
    height, width, _, out = kernel.shape
    patch = tf.tile(constant, [height * width])[None]
    return tf.matmul(patch, tf.reshape(kernel, [-1, out]))[0] + bias


def empty_pooled_map(kernels: Sequence[Sequence[tuple[tf.Tensor, tf.Tensor]]],
                     height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Pooled response of the first blocks to an empty canvas of height x width pixels.

    Args:
        kernels: (kernel, bias) of each convolution, a list for each block.
        height, width: int32 scalars, the true canvas.

    Returns (1, height / 2^blocks, width / 2^blocks, channel), sizes rounded up, computed on
    miniature canvases and stretched in the middle.
    """
    sizes = [height, width]
    channels = kernels[0][0][0].shape[2]
    minis = [_miniature(0, n) for n in sizes]
    x = tf.zeros([1, minis[0], minis[1], channels], kernels[0][0][0].dtype)
    for block, layers in enumerate(kernels):
        for kernel, bias in layers:
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
        x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        sizes = [(n + 1) // 2 for n in sizes]
        last = block == len(kernels) - 1
        targets = sizes if last else [_miniature(block + 1, n) for n in sizes]
        middle = MINIATURES[block] // 4
        x = _stretch(_stretch(x, targets[0], 1, middle), targets[1], 2, middle)
    return x


def _miniature(block: int, size: tf.Tensor) -> tf.Tensor:
    # The same parity, so that the last pooling window is cut (or not) as on the true canvas.
    return MINIATURES[block] + size % 2


def _stretch(x: tf.Tensor, size: tf.Tensor, axis: int, middle: int) -> tf.Tensor:
    cells = tf.range(size)
    source = tf.maximum(tf.minimum(cells, middle), cells - (size - tf.shape(x)[axis]))
    # A product with ones and zeros: the gradient of a gather along an axis is slow.
    copies = tf.one_hot(source, tf.shape(x)[axis], dtype=x.dtype)
    return tf.einsum("oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc", copies, x)
