"""A Caffe PixelNet, or a VGG-16, as this project's own model.

Its form is read off the layers of the Caffe network, then it is given their weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.caffe.weights import (
    CONVOLUTIONS,
    MatchTable,
    load_caffe_weights,
    match_weights,
    names_in_files,
)
from pixelnet_tf.config import Fc7, Head, ModelConfig, config_from_dict, config_to_dict
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.model.architecture import BLOCKS, CONTEXT_RATES, STRIDES, Architecture
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import (
    ConvolutionParams,
    DropoutParams,
    InnerProductParams,
    Layer,
    Network,
    RandBIParams,
)
from prototxt_import.errors import listed

_BORDER = 100  # that of the authors' files; no file states it
_SEED = 1989  # of the layers that a file does not have


@dataclass(frozen=True)
class PixelNetForm:
    """What was read off a network; `classes` is 0 where the file has no scores."""

    config: ModelConfig
    channels: int
    classes: int


def pixelnet_form(network: Network, border: int = _BORDER) -> PixelNetForm:
    """Read the form of a PixelNet, or of a VGG-16 that is to become one, off its layers.

    Raises `ModelError` where the network is neither, or a form that the project's model does not
    have (BatchNorm in place, other taps or rates, a fc7 without ReLU): such networks are run by
    `build_model` as they are.
    """
    # Layers without weights may have the name of one with weights, which is the one that counts.
    weighted = [layer for layer in network.layers if layer.blobs]
    layers = {layer.name: layer for layer in (*network.layers, *weighted)}
    sampling = [layer for layer in network.layers if layer.type == "RandBI"]
    trunk = [[_convolution(layers, name, not sampling) for name in names] for names in BLOCKS]
    widths = []
    for block in trunk:
        sizes = {_outputs(layer) for layer in block}
        if len(sizes) != 1:
            raise ModelError(
                f"layers {', '.join(layer.name for layer in block)} have different widths "
                f"{sorted(sizes)}"
            )
        widths.append(sizes.pop())
    first = trunk[0][0]
    if not first.blobs:
        raise ModelError(f"layer {first.name!r} has no weights", hint="give the .caffemodel, too")
    fc6, fc7 = (_find(layers, name) for name in ("fc6_conv", "fc7_conv"))
    fc_width = ModelConfig.fc_width if fc7 is None else _outputs(fc7)
    channels = first.blobs[0].shape[1]
    if not sampling:
        # VGG-16: the trunk alone; the hypercolumn and its head are the project's own.
        kind = Fc7.FAITHFUL if fc7 is not None and _is_fc6(fc6, widths[-1]) else Fc7.NONE
        config = _form(border, widths=tuple(widths), fc_width=fc_width, fc7=kind)
        return PixelNetForm(config, channels, 0)
    kind, batch_norm = _taps(network, sampling[0], fc6)
    head, head_widths, classes = _head(network, layers, sampling[0])
    ratios = {one.params_as(DropoutParams).dropout_ratio
              for one in network.layers if one.type == "Dropout"}
    config = _form(
        border, widths=tuple(widths), fc_width=fc_width, fc7=kind, head=head,
        head_widths=head_widths, batch_norm=batch_norm, dropout=max(ratios, default=0.0),
    )
    return PixelNetForm(config, channels, classes)


def _form(border: int, **of_file: Any) -> ModelConfig:
    """A configuration of what the file says: a value out of range is the file's fault, but for the
    border, which no file says."""
    form = ModelConfig(border=border)
    try:
        return dataclasses.replace(form, **of_file)
    except ConfigError as error:
        raise ModelError(f"the project's model cannot have this form: {error}") from None


def _outputs(layer: Layer) -> int:
    if not isinstance(layer.params, (ConvolutionParams, InnerProductParams)):
        raise ModelError(
            f"layer {layer.name!r} (type {layer.type}) is no convolution or InnerProduct, which "
            "PixelNet and VGG-16 have there"
        )
    return layer.params.num_output


def _find(layers: dict[str, Layer], name: str) -> Layer | None:
    return next((layers[n] for n in names_in_files(name) if n in layers), None)


def _is_fc6(layer: Layer | None, width: int) -> bool:
    """Whether a layer is VGG-16's fc6, as a matrix or as a convolution: some nets have a smaller
    one in its place."""
    if layer is None or not layer.blobs:
        return False
    return layer.blobs[0].shape[1:] == (width, 7, 7) or (
        layer.type == "InnerProduct" and layer.blobs[0].size == width * 49 * _outputs(layer)
    )


def _convolution(layers: dict[str, Layer], name: str, is_start: bool) -> Layer:
    """Return a convolution of the trunk, once its settings are those that PixelNet has.

    Where the network is only to start from, its padding and dilation may be others.
    """
    layer = layers.get(name)
    if layer is None:
        raise ModelError(
            f"layer {name!r} is missing: a PixelNet or VGG-16 has {BLOCKS[0][0]} to "
            f"{BLOCKS[-1][-1]}; this network has "
            f"{listed([one.name for one in layers.values() if one.blobs] or layers)}"
        )
    p = layer.params
    fits = (
        layer.type == "Convolution" and isinstance(p, ConvolutionParams)
        and (p.kernel, p.stride, p.group, p.bias_term) == ((3, 3), (1, 1), 1, True)
        and (is_start or (p.pad, p.dilation) == ((1, 1), (1, 1)))
    )
    if not fits:
        padding = "" if is_start else " with padding 1"
        raise ModelError(
            f"layer {name!r} (type {layer.type}) is not the 3x3 convolution{padding} and a bias "
            "that PixelNet has there"
        )
    return layer


def _taps(network: Network, sampling: Layer, fc6: Layer | None) -> tuple[Fc7, bool]:
    """`fc7` and `batch_norm`, from the maps that RandBI reads and their rates."""
    p, maps = sampling.params_as(RandBIParams), sampling.bottoms[:-1]
    kinds: dict[tuple[int, ...], Fc7] = {STRIDES: Fc7.NONE}
    kinds |= {(*STRIDES, rate): kind for kind, rate in CONTEXT_RATES.items()}
    if p.rates not in kinds or not p.pad:
        _refuse(sampling, f"rates {p.rates} with pad {p.pad}; the project's model has "
                          "1, 2, 4, 8, 16 and, for fc7, 224 or 32, all with pad")
    kind = kinds[p.rates]
    pads = {Fc7.FAITHFUL: (0, 0), Fc7.ALIGNED: (3, 3)}
    if kind in pads and (fc6 is None or getattr(fc6.params, "pad", None) != pads[kind]):
        _refuse(sampling, f"rate {p.rates[-1]} goes with fc6 padded by {pads[kind][0]} here")
    names = (*(block[-1] for block in BLOCKS), "fc7_conv")[:len(maps)]
    steps = [_steps(network, blob, sampling) for blob in maps]
    for name, found in zip(names, steps, strict=True):
        if found[0] not in names_in_files(name):
            _refuse(sampling, f"it reads {found[0]!r} where the project's model has {name!r}")
    forms = {tuple(t for t in found[1:] if t != "Dropout") for found in steps}
    if forms not in ({("ReLU",)}, {("BatchNorm",)}):
        _refuse(sampling, "its maps come from different or other layers than a ReLU each, or a "
                          "BatchNorm each")
    return kind, forms == {("BatchNorm",)}


def _steps(network: Network, blob: str, reader: Layer) -> list[str]:
    """The layer with weights that makes a blob, then the types that follow it, up to a reader."""
    steps: list[str] = []
    before = list(network.layers[:network.layers.index(reader)])
    for layer in reversed(before):
        if blob not in layer.tops:
            continue
        if layer.is_in_place or layer.type in ("ReLU", "BatchNorm", "Split"):
            if layer.type != "Split":  # Caffe puts one in where two layers read a blob
                steps.insert(0, layer.type)
            blob = layer.bottoms[0]
            continue
        return [layer.name, *steps]
    return ["", *steps]


def _head(
    network: Network, layers: dict[str, Layer], sampling: Layer
) -> tuple[Head, tuple[int, ...], int]:
    """`head` and `head_widths` of the configuration, and the number of classes."""
    after = network.layers[network.layers.index(sampling) + 1:]
    products = [layer for layer in after if layer.type == "InnerProduct"]
    known = [*("fc6_new", "fc7_new")[:len(products) - 1], "cls_score_new"]
    found = [_find(layers, name) for name in known]
    if not products or found != products:
        _refuse(sampling, f"the layers after it are {', '.join(p.name for p in products)}, the "
                          f"project's model has {', '.join(known)}")
    classes = _outputs(products[-1])
    between = {layer.type for layer in after[:after.index(products[0])]}
    if len(products) == 1:
        if "ReLU" not in between:
            _refuse(sampling, "a linear head without a ReLU on the hypercolumn is not covered")
        return Head.LINEAR, ModelConfig.head_widths, classes
    if "ReLU" in between:
        _refuse(sampling, "a perceptron after a ReLU on the hypercolumn is not covered")
    return Head.MLP, tuple(_outputs(layer) for layer in products[:-1]), classes


def _refuse(layer: Layer, reason: str) -> NoReturn:
    line = f", line {layer.line}" if layer.line else ""
    raise ModelError(
        f"layer {layer.name!r} (type {layer.type}{line}): {reason}. This form cannot become the "
        "project's own model; pixelnet_tf.caffe.build.build_model runs it as it is"
    )


def import_pixelnet(
    prototxt: str | Path | None,
    caffemodel: str | Path,
    *,
    config: ModelConfig | None = None,
    overrides: Sequence[str] = (),
    classes: int | None = None,
    channels: int | None = None,
    border: int = 100,
    channel_rule: str = "average",
    allow_nan: bool = False,
) -> tuple[PixelNet, MatchTable]:
    """Make the project's model from Caffe's files, and say what became of each layer.

    Args:
        prototxt: the network; with None the description inside the caffemodel is taken.
        config: the form of a model that begins with the trunk of a VGG-16. With None the form is
            read off the network; that of a PixelNet always is (`pixelnet_form`).
        overrides: changes to the form that was read off, as in `model.fc7=aligned`.
        classes, channels: with None they are those of the file. A VGG-16 has none of PixelNet's
            classes, so that their number must be given.
        border: zero pixels around the image, which no Caffe file states.
        channel_rule: see `load_caffe_weights`.

    Raises `ModelError` for files that are not Caffe's, weights of a wrong shape, and forms that the
    project's model does not have.
    """
    network = read_network(prototxt, caffemodel, phase="TEST", allow_nan=allow_nan)
    try:
        form = pixelnet_form(network, border)
        classes = classes or form.classes
        if not classes:
            raise ModelError("the file has no PixelNet scores (it is a VGG-16)",
                             hint="say how many classes the model is to have (--classes)")
        if config is None or form.classes:
            tree = {"model": config_to_dict(form.config)}
            config = config_from_dict(tree, overrides=overrides).model
        shapes = Architecture.of(config, classes).blob_shapes(channels or form.channels)
        # All of a PixelNet's layers must be in the file, of a VGG-16 the convolutions.
        required = tuple(shapes) if form.classes else CONVOLUTIONS
        match_weights(shapes, network, required, channel_rule)
        model = PixelNet(config, channels or form.channels, classes, _SEED)
        return model, load_caffe_weights(
            model, network, required=required, channel_rule=channel_rule
        )
    except ModelError as error:
        raise ModelError.of(error, file=prototxt or caffemodel) from error
