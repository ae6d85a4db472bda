"""Shapes of a Caffe network's inputs, declared or worked out from the layers that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pixelnet_tf.caffe.layout import Shape
from pixelnet_tf.caffe.wiring import is_loss, place
from pixelnet_tf.errors import ModelError
from prototxt_import import (
    ConvolutionParams,
    DummyDataParams,
    ImageDataParams,
    InnerProductParams,
    InputParams,
    Layer,
    MemoryDataParams,
    SliceParams,
    TransformParams,
)
from prototxt_import.errors import listed

#: Channels of a blob, and a Slice that cuts them where nothing says how many there are.
Channels = tuple["int | None", "Layer | None"]


def input_shapes(
    sources: Sequence[Layer], layers: Sequence[Layer], fixed: str,
    given: Mapping[str, Sequence[int | None]] | None = None,
) -> dict[str, Shape]:
    """Shape of each top of the sources, with four axes channel last; None where a size is free.

    `fixed` says which of the declared sizes are not free beside channels: none (""), all but the
    first ("space"), or "all". `given` shapes, in Caffe's order, count before those of the file.

    Data layers whose files declare no shape are given one by what reads them: the channels that
    weights on their way say, or three where they come to a convolution without weights; rows of n,
    y, x to the hypercolumn, one label a row to a loss.

    Raises `ModelError` for a size that is not positive, for a shape given to what is no input, and
    where channels that are not known are cut by a Slice.
    """
    given = dict(given or {})
    shapes, channels = {}, _channels_read(layers)
    for layer in sources:
        for number, top in enumerate(layer.tops):
            shape = tuple(given.pop(top, ())) or _declared(layer, number, channels)
            shape = shape or _guessed(layer, top, layers, channels)
            if any(size is not None and size < 1 for size in shape):
                raise ModelError(
                    f"{place(layer)}: input {top!r} has the shape {shape}; sizes must be positive"
                )
            shapes[top] = _keras_shape(shape, fixed)
    if given:
        raise ModelError(
            f"there is no input {next(iter(given))!r} to give a shape to; inputs: {listed(shapes)}"
        )
    return shapes


def _declared(layer: Layer, number: int, channels: Mapping[str, Channels]) -> Shape:
    """Shape in Caffe's order that the file states, () if none."""
    p = layer.params
    if isinstance(p, (InputParams, DummyDataParams)):
        return tuple(p.shape[min(number, len(p.shape) - 1)]) if p.shape else ()
    if number or not isinstance(p, TransformParams):
        return ()
    if isinstance(p, MemoryDataParams) and p.channels:
        return (p.batch_size, p.channels, p.height, p.width)
    if p.crop_size:
        known, _ = channels.get(layer.tops[0], (None, None))
        return (None, known or _colours(layer), p.crop_size, p.crop_size)
    return ()


def _colours(layer: Layer) -> int:
    p = layer.params
    is_grey = (isinstance(p, TransformParams) and p.force_gray) or (
        isinstance(p, ImageDataParams) and not p.is_color
    )
    return 1 if is_grey else 3


def _guessed(source: Layer, top: str, layers: Sequence[Layer], channels: Mapping[str, Channels]
             ) -> Shape:
    for layer in layers:
        if top not in layer.bottoms:
            continue
        if layer.type in ("RandBI", "RandComp") and layer.bottoms[-1] == top:
            return (None, 3)
        if is_loss(layer) and layer.bottoms[-1] == top:
            return (None, 1)
        if layer.type == "InnerProduct" and layer.blobs:
            axis = 0 if layer.params_as(InnerProductParams).transpose else 1
            return (None, layer.blobs[0].shape[axis])
    known, cut_by = channels.get(top, (None, None))
    if known is None and cut_by is not None:
        raise ModelError(f"{place(source)}: neither the file nor weights say how many channels "
                         f"{top!r} has, and layer {cut_by.name!r} cuts them",
                         hint="give build_model the weights, or the shape of this input: "
                              f"shapes={{{top!r}: (None, channels, height, width)}}")
    return (None, known or _colours(source), None, None)


#: Layers whose tops have the channels of their first bottom.
_KEEPING = (
    "ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "BNLL", "Power", "Exp", "Log", "Dropout",
    "Pooling", "LRN", "MVN", "BatchNorm", "BN", "Scale", "Bias", "Split", "Eltwise", "Normalize",
)


def _channels_read(layers: Sequence[Layer]) -> dict[str, Channels]:
    """Return the channels of each blob that is read, as the first weights that it comes to say.

    Where nothing says, the first Slice that cuts them. From the last layer to the first, so that
    each layer is asked once, however many ways lead to it.
    """
    found: dict[str, Channels] = {}
    for layer in reversed(layers):
        channels, cut = _channels_for(layer, found)
        for blob in dict.fromkeys(layer.bottoms):
            later, later_cut = found.get(blob, (None, None))
            known = later if channels is None else channels
            found[blob] = (known, None if known is not None else cut or later_cut)
    return found


def _channels_for(layer: Layer, found: Mapping[str, Channels]) -> Channels:
    """Channels that a layer's first bottom has; `found` is of the layers after it."""
    shapes = [blob.shape for blob in layer.blobs]
    if layer.type == "Convolution":
        group = layer.params_as(ConvolutionParams).group
        return (shapes[0][1] * group if shapes else None), None
    if layer.type == "Deconvolution":
        return (shapes[0][0] if shapes else None), None
    if layer.type == "BatchNorm" and shapes:
        return shapes[0][0], None
    if layer.type == "Slice" and layer.params_as(SliceParams).axis in (1, -3):
        points = layer.params_as(SliceParams).slice_point
        for number, top in enumerate(layer.tops):
            part, _ = found.get(top, (None, None))
            if part is not None and not points:
                return part * len(layer.tops), None
            if part is not None and number == len(points):
                return points[-1] + part, None
        return None, layer
    if layer.type in _KEEPING or layer.type == "Slice":
        cuts = None
        for top in layer.tops:
            if top in layer.bottoms:
                continue  # in place: what reads the blob later is found anyway
            channels, cut = found.get(top, (None, None))
            if channels is not None:
                return channels, None
            cuts = cuts or cut
        return None, cuts
    return None, None


def _keras_shape(shape: Shape, fixed: str) -> Shape:
    first = shape[:1] if fixed == "all" else (None,) * len(shape[:1])
    if len(shape) != 4:
        return (*first, *shape[1:])
    _, channels, height, width = shape
    return (*first, height, width, channels) if fixed else (None, None, None, channels)
