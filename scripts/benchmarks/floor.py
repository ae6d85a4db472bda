"""The least work: multiply-adds and bytes of each part of the full-width network, on paper.

Needs neither TensorFlow nor the package, so that the figures do not follow the code by mistake.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Output channels of the convolutions of each block.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
#: Channels and rates of the hypercolumn's maps before fc7_conv.
NEAR = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))
CONTEXT = HIDDEN = 4096
BORDER, TILE = 100, 16
#: Largest tap rate whose features are interpolated before the first layer is applied (`TileLayer`).
SPREAD_RATE = 2


@dataclass(frozen=True)
class Rates:
    """Measured peaks: multiply-adds a second of products and convolutions, bytes a second."""

    product: float
    convolution: float
    memory: float


def trunk_plain(height: int, width: int, channels: int = 3) -> int:
    """Multiply-adds of the 13 convolutions over the whole canvas."""
    return _convolutions([(_halved(height + 2 * BORDER, b), _halved(width + 2 * BORDER, b))
                          for b in range(5)], channels)


def trunk_fast(height: int, width: int, box: tuple[int, int, int, int], channels: int = 3,
               known: bool = True) -> int:
    """The same where each layer sees what the box [top, left, bottom, right) reaches alone.

    known: whether the empty canvas's responses of the fifth block are, as in prediction; else that
    block sees the whole canvas, as in a training step.
    """
    total, before = 0, channels
    cells = [-(-(stop + BORDER) // 16) - (start + BORDER) // 16
             for start, stop in ((box[0], box[2]), (box[1], box[3]))]
    grown, whole = 0, [_halved(size + 2 * BORDER, 4) for size in (height, width)]
    for number, block in enumerate(BLOCKS):
        for out in block:
            grown += 1
            sides = [count * 2 ** (4 - number) + 2 * grown for count in cells]
            if number == 4:
                sides = [min(side, most) if known else most
                         for side, most in zip(sides, whole, strict=True)]
            total += sides[0] * sides[1] * 9 * before * out
            before = out
        grown = -(-grown // 2)
    return total


def _convolutions(sizes, channels: int) -> int:
    total, before = 0, channels
    for (height, width), block in zip(sizes, BLOCKS, strict=True):
        for out in block:
            total += height * width * 9 * before * out
            before = out
    return total


def _halved(size: int, times: int) -> int:
    return -(-size // 2**times)


def context(cells: int) -> int:
    """Multiply-adds of fc6 and fc7 at this many cells: 64 of the plain canvas, 4 of the fast."""
    return cells * (49 * BLOCKS[-1][-1] * CONTEXT + CONTEXT * CONTEXT)


def head_plain(classes: int = 4) -> int:
    """Multiply-adds a pixel of the whole perceptron on 5568 numbers."""
    width = sum(channels for channels, _ in NEAR) + CONTEXT
    return width * HIDDEN + _rest(classes)


def head_listed(classes: int = 4) -> int:
    """A pixel whose context went through the first layer once for all of them."""
    return sum(channels for channels, _ in NEAR) * HIDDEN + _rest(classes)


def head_tiled(classes: int = 4) -> int:
    """A pixel of a full 16x16 tile, the coarse maps led through the first layer cell by cell."""
    total = cells = 0
    for channels, rate in NEAR:
        if rate <= SPREAD_RATE:
            total += TILE * TILE * channels * HIDDEN
        else:
            count = (-(-(TILE - 1) // rate) + 2) ** 2
            total += count * channels * HIDDEN
            cells += count
    count = (-(-(TILE - 1) // 224) + 2) ** 2
    return (total + TILE * TILE * (cells + count) * HIDDEN) // TILE**2 + _rest(classes)


def _rest(classes: int) -> int:
    return HIDDEN * HIDDEN + HIDDEN * classes


def weight_bytes(classes: int = 4) -> int:
    """Bytes of all float32 weights."""
    trunk, before = 0, 3
    for block in BLOCKS:
        for out in block:
            trunk += 9 * before * out
            before = out
    return 4 * (trunk + 49 * 512 * CONTEXT + CONTEXT**2 + head_plain(classes))


def context_weight_bytes() -> int:
    """Bytes of fc6 and fc7, which a handful of cells reads from end to end."""
    return 4 * context(1)


def slice_seconds(convolution: int, product: int, bytes_read: float, rates: Rates) -> float:
    """Seconds of one slice at the machine's peaks, each part after the other."""
    return (convolution / rates.convolution + product / rates.product
            + bytes_read / rates.memory)


def step_seconds(convolution: int, product: int, rates: Rates, fast: bool) -> float:
    """Seconds of a training step: forward, both gradients, and the solver's traffic.

    The solver reads the weights twice, gradient and history once, history and weights are written:
    with forward, backward and the decay some eleven passes over the weights.
    """
    cells = context(4 if fast else 64)
    return (3 * convolution / rates.convolution + 3 * (product + cells) / rates.product
            + 11 * weight_bytes() / rates.memory)
