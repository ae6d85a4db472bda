"""Shapes of a Caffe network's inputs, declared or worked out from the layers that read them."""

from __future__ import annotations

from collections.abc import Sequence

from pixelnet_tf.caffe.builders import LOSS_TYPES
from pixelnet_tf.errors import ModelError
from prototxt_import import Layer

Shape = tuple["int | None", ...]


def input_shapes(
    sources: Sequence[Layer], layers: Sequence[Layer], fixed: str
) -> dict[str, Shape]:
    """Shape of each top of the sources, with four axes channel last; None where a size is free.

    `fixed` says which of the declared sizes are not free beside channels: none (""), all but the
    first ("space"), or "all".

    Data layers whose files declare no shape are given one by what reads them: three channels (or
    what the first convolution's weights say) to a convolution, rows of n, y, x to the hypercolumn,
    one label a row to a loss.

    Raises `ModelError` for a declared size that is not positive.
    """
    shapes = {}
    for layer in sources:
        for number, top in enumerate(layer.tops):
            shape = _declared(layer, number) or _guessed(top, layers)
            if any(size is not None and size < 1 for size in shape):
                raise ModelError(
                    f"layer {layer.name!r} (type {layer.type}): input {top!r} has the shape "
                    f"{shape}; sizes must be positive"
                )
            shapes[top] = _keras_shape(shape, fixed)
    return shapes


def _declared(layer: Layer, number: int) -> Shape:
    """Shape in Caffe's order that the file states, () if none."""
    params = layer.params
    if layer.type in ("Input", "DummyData"):
        given = params.shape
        return tuple(given[min(number, len(given) - 1)]) if given else ()
    if layer.type == "MemoryData" and number == 0 and params.channels:
        return (params.batch_size, params.channels, params.height, params.width)
    crop = getattr(params, "crop_size", 0)
    if crop and number == 0:
        colours = 1 if getattr(params, "force_gray", False) else 3
        return (None, colours, crop, crop)
    return ()


def _guessed(top: str, layers: Sequence[Layer]) -> Shape:
    for layer in layers:
        if top not in layer.bottoms:
            continue
        if layer.type in ("RandBI", "RandComp") and layer.bottoms[-1] == top:
            return (None, 3)
        if layer.type in LOSS_TYPES and layer.bottoms[-1] == top:
            return (None, 1)
        if layer.type == "InnerProduct" and layer.blobs:
            return (None, layer.blobs[0].shape[0 if layer.params.transpose else 1])
        if layer.type == "Convolution" and layer.blobs:
            return (None, layer.blobs[0].shape[1] * layer.params.group, None, None)
    return (None, 3, None, None)


def _keras_shape(shape: Shape, fixed: str) -> Shape:
    first = shape[:1] if fixed == "all" else (None,) * len(shape[:1])
    if len(shape) != 4:
        return (*first, *shape[1:])
    _, channels, height, width = shape
    return (*first, height, width, channels) if fixed else (None, None, None, channels)
