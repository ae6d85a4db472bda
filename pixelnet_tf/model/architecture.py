"""The network as one table of layers, which every form of it reads.

The Keras model (`vgg16.py`, `pixelnet.py`), its fast forms (`fast_trunk.py`, `fast_head.py`), the
response to an empty canvas, and Caffe's files (`caffe/export.py`,
`caffe/import_pixelnet.py`) are interpreters of this table: a layer is named, sized and ordered here
and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pixelnet_tf.config import MIXED_CHANNELS, PLANES, Fc7, Head, ModelConfig
from pixelnet_tf.errors import ModelError

#: Names of VGG-16's convolutions, block by block, as Caffe's files write them.
BLOCKS = tuple(
    tuple(f"conv{block}_{i}" for i in range(1, count + 1))
    for block, count in enumerate((2, 2, 3, 3, 3), start=1)
)
#: Stride in pixels of each block's last map, at which the hypercolumn reads it.
STRIDES = (1, 2, 4, 8, 16)
#: The 1x1 layer, without bias, that mixes the modalities to the channels of conv1_1.
MIXING = "mix_channels"
#: Rate at which fc7_conv is read: the original's, and the one of fc6 padded by 3.
CONTEXT_RATES = {Fc7.FAITHFUL: 224, Fc7.ALIGNED: 32}


@dataclass(frozen=True)
class Convolution:
    """A convolution with bias, of stride 1, which a ReLU follows.

    Attributes:
        name: name of the layer in Caffe's files.
        width: output channels.
        kernel: side of the square kernel.
        padding: zeros on each side of its input: none, or as many as keep the size.
        bias_multipliers: lr_mult and decay_mult of the bias in the authors' files.
        dropout: name of the dropout after the ReLU; empty where there is none.
    """

    name: str
    width: int
    kernel: int = 3
    padding: int = 1
    bias_multipliers: tuple[float, float] = (2.0, 0.0)
    dropout: str = ""


@dataclass(frozen=True)
class Tap:
    """A map that the hypercolumn reads: the layer, its stride in pixels, its channels."""

    layer: str
    rate: int
    width: int


@dataclass(frozen=True)
class Dense:
    """A layer of the perceptron; a ReLU, and dropout where it has a name, follow all but the last.
    """

    name: str
    width: int
    bias_multipliers: tuple[float, float] = (2.0, 0.0)
    dropout: str = ""


@dataclass(frozen=True)
class Architecture:
    """The layers of a PixelNet in their order (paper section 2).

    Attributes:
        blocks: VGG-16's five blocks of convolutions; 2x2 max pooling follows each block that
            `pools_after` names.
        context: fc6_conv and fc7_conv, or nothing.
        taps: what the hypercolumn reads, in the order of its channels.
        head: the perceptron, the scores last.
        border: zero pixels around the image.
        batch_norm: a tap is read through Caffe's BatchNorm, before its ReLU; then fc7_conv has
            no ReLU of its own.
        relu_on_hypercolumn: a ReLU stands between hypercolumn and head (the linear variant).
        offsets: slices that a hypercolumn is read from (`ModelConfig.offsets`).
    """

    blocks: tuple[tuple[Convolution, ...], ...]
    context: tuple[Convolution, ...]
    taps: tuple[Tap, ...]
    head: tuple[Dense, ...]
    border: int
    batch_norm: bool
    relu_on_hypercolumn: bool
    offsets: tuple[int, ...] = (0,)
    mixes: bool = False
    planes: tuple[str, ...] = PLANES[:1]

    @classmethod
    def of(cls, config: ModelConfig, classes: int) -> Architecture:
        """Lay out the network that a configuration describes, with `classes` scores a pixel."""
        blocks = tuple(tuple(Convolution(name, width) for name in names)
                       for names, width in zip(BLOCKS, config.widths, strict=True))
        taps = tuple(Tap(block[-1].name, rate, block[-1].width)
                     for block, rate in zip(blocks, STRIDES, strict=True))
        context: tuple[Convolution, ...] = ()
        if config.fc7 != Fc7.NONE:
            # The authors' files give these two no `param` blocks: their biases learn like kernels.
            context = (
                Convolution("fc6_conv", config.fc_width, 7, 3 if config.fc7 == Fc7.ALIGNED else 0,
                            (1.0, 1.0), "drop6"),
                Convolution("fc7_conv", config.fc_width, 1, 0, (1.0, 1.0),
                            "" if config.batch_norm else "drop7"))
            taps += (Tap("fc7_conv", CONTEXT_RATES[config.fc7], config.fc_width),)
        widths = config.head_widths if config.head == Head.MLP else ()
        hidden = tuple(Dense(f"fc{6 + i}_new", width, dropout=f"drop{6 + i}_new")
                       for i, width in enumerate(widths))
        return cls(blocks, context, taps, (*hidden, Dense("cls_score_new", classes)),
                   config.border, config.batch_norm, config.head == Head.LINEAR,
                   config.offsets, config.mix_channels, config.planes)

    def pools_after(self, block: int) -> bool:
        """Whether max pooling follows a block, counted from 0."""
        return block < len(self.blocks) - 1 or bool(self.context)

    @property
    def chains(self) -> tuple[tuple[Convolution, ...], ...]:
        """The convolutions from one tap to the next, in the order of the taps."""
        return (*self.blocks, *((self.context,) if self.context else ()))

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """All convolutions in their order."""
        return tuple(layer for chain in self.chains for layer in chain)

    @property
    def trunk_names(self) -> tuple[str, ...]:
        """Names of VGG-16's thirteen convolutions."""
        return tuple(layer.name for block in self.blocks for layer in block)

    @property
    def head_names(self) -> tuple[str, ...]:
        """Names of the perceptron's layers, the scores last."""
        return tuple(layer.name for layer in self.head)

    @property
    def beside(self) -> tuple[Dense, ...]:
        """The first layer's kernels for the slices beside the pixel's own, in the order of
        `offsets`; they have no bias, and their sums are added to the first layer's."""
        first = self.head[0]
        return tuple(Dense(f"{first.name}_{'below' if offset < 0 else 'above'}{abs(offset)}",
                           first.width) for offset in self.offsets[1:])

    @property
    def rates(self) -> tuple[int, ...]:
        """Stride in pixels at which each tap is read."""
        return tuple(tap.rate for tap in self.taps)

    @property
    def dropouts(self) -> tuple[str, ...]:
        """Names of the dropouts in their order."""
        layers: tuple[Convolution | Dense, ...] = (*self.context, *self.head)
        return tuple(layer.dropout for layer in layers if layer.dropout)

    @property
    def multipliers(self) -> dict[str, tuple[float, float]]:
        """Layer -> lr_mult and decay_mult of its bias; every kernel has (1, 1)."""
        layers: tuple[Convolution | Dense, ...] = (*self.convolutions, *self.head)
        return {layer.name: layer.bias_multipliers for layer in layers}

    def blob_shapes(self, channels: int) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Layer -> shapes of its weights in Caffe's order, of every layer that has some.

        Known without building the network: what a file holds can be held against it before memory
        is taken.

        Args:
            channels: number of the image's channels.

        Raises `ModelError` where there are none.
        """
        if channels < 1:
            raise ModelError(f"an image must have channels, got {channels}", value=channels)
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
        inputs = channels
        if self.mixes:
            if channels <= MIXED_CHANNELS:
                raise ModelError(f"model.mix_channels needs images of more than {MIXED_CHANNELS} "
                                 f"channels, got {channels}", value=channels,
                                 hint="set model.mix_channels=false")
            shapes[MIXING] = ((MIXED_CHANNELS, channels),)
            inputs = MIXED_CHANNELS
        for layer in self.convolutions:
            shapes[layer.name] = ((layer.width, inputs, layer.kernel, layer.kernel),
                                  (layer.width,))
            inputs = layer.width
        if self.batch_norm:
            shapes |= {f"bn_{tap.layer}": ((tap.width,), (tap.width,), (1,)) for tap in self.taps}
        inputs = sum(tap.width for tap in self.taps)
        shapes |= {dense.name: ((dense.width, inputs),) for dense in self.beside}
        for dense in self.head:
            shapes[dense.name] = ((dense.width, inputs), (dense.width,))
            inputs = dense.width
        return shapes

    def check_image_size(self, height: int, width: int) -> None:
        """Raise `ModelError` where Caffe's RandBI would abort: an image too small for the rates.

        Without a border every map would be too small for the image's last pixels; there they read
        the last cell, and only a map without any cell is an error.
        """
        for length, axis in ((height, "height"), (width, "width")):
            cells = length + 2 * self.border
            for tap in self.taps:
                rate = tap.rate
                size = -(-cells // min(rate, 32)) if rate <= 32 else -(-cells // 32) - 6
                last = self.border + length - 1
                if size < 1 or (self.border and last > rate * (size - 1) + (rate - 1) / 2):
                    raise ModelError(f"image {axis} {length} with a border of {self.border} is "
                                     f"too small for the hypercolumn's rate {rate} on {tap.layer} "
                                     "(Caffe aborts here)",
                                     hint="use a larger image or model.border, or "
                                          "model.fc7=aligned or none")

    def parameters(self, channels: int) -> int:
        """Number of weights of all layers, for images of so many channels."""
        return sum(math.prod(shape) for shapes in self.blob_shapes(channels).values()
                   for shape in shapes)

    def slice_work(self, channels: int, height: int, width: int, pixels: int,
                   passes: float = 1.0) -> float:
        """Multiplications of a pass over a slice of which so many pixels are classified.

        passes: of the trunk for a slice, more than one where those beside it are seen, too.
        """
        kernels = {name: math.prod(shapes[0])
                   for name, shapes in self.blob_shapes(channels).items()}
        work, cells = 0.0, float((height + 2 * self.border) * (width + 2 * self.border))
        for block, layers in enumerate(self.blocks):
            work += cells * sum(kernels[layer.name] for layer in layers)
            cells /= 4 if self.pools_after(block) else 1
        work += cells * sum(kernels[layer.name] for layer in self.context)
        return work * passes + pixels * sum(
            kernels[layer.name] for layer in (*self.head, *self.beside))

    def box_work(self, channels: int, height: int, width: int) -> float:
        """Multiplications of the trunk where it is computed around a box of the image alone: what
        each block's convolutions reach counts as half a cell of the last block on every side."""
        kernels = {name: math.prod(shapes[0])
                   for name, shapes in self.blob_shapes(channels).items()}
        work, cells = 0.0, float((height + 32) * (width + 32))
        for layers in self.blocks:
            work += cells * sum(kernels[layer.name] for layer in layers)
            cells /= 4
        return work + 4 * sum(kernels[layer.name] for layer in self.context)

    def pixel_work(self, channels: int) -> float:
        """Multiplications of a pixel's way through the head, the context's share left out."""
        shapes = self.blob_shapes(channels)
        context = sum(tap.width for tap in self.taps) - sum(
            block[-1].width for block in self.blocks)
        return (sum(math.prod(shapes[layer.name][0]) for layer in self.head)
                - context * self.head[0].width)

    def slice_numbers(self, height: int, width: int, pixels: int, passes: float = 1.0) -> float:
        """Numbers in all maps of a slice, and in the hypercolumns and layers of so many pixels.

        passes: as `slice_work` takes it.
        """
        numbers, cells = 0.0, float((height + 2 * self.border) * (width + 2 * self.border))
        for block, layers in enumerate(self.blocks):
            numbers += cells * sum(layer.width for layer in layers)
            cells /= 4 if self.pools_after(block) else 1
        numbers += cells * sum(layer.width for layer in self.context)
        return numbers * passes + pixels * (
            sum(tap.width for tap in self.taps) * len(self.offsets)
            + sum(layer.width for layer in self.head))
