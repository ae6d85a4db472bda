"""This project's model as a network that the original Caffe loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pixelnet_tf.caffe.blobs import get_blobs
from pixelnet_tf.caffe.reading import write_caffemodel, write_prototxt
from pixelnet_tf.io.files import write_text
from pixelnet_tf.model.architecture import Convolution, Dense
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import (
    BatchNormParams,
    ConvolutionParams,
    DropoutParams,
    InnerProductParams,
    InputParams,
    Layer,
    Network,
    ParamSpec,
    PoolingParams,
    RandBIParams,
    ReLUParams,
    SoftmaxParams,
)

PROTOTXT, CAFFEMODEL = "deploy.prototxt", "weights.caffemodel"
_IMAGE_SIZE, _PIXELS = 224, 1000  # written as in the authors' files; nets are reshaped at run time
_KEPT = (ParamSpec("", 0, 1),) * 3

_COMMENT = """\
# Written by pixelnet-tf. Needs the Caffe of the original PixelNet (layer RandBI).
#
# data    (batch, {channels}, height + {both}, width + {both}): slices as pixelnet-tf normalises
#         them, channels in the order of training, in a border of {border} zero pixels on each side.
# pixels  (pixel, 3): rows of n, y + {border}, x + {border}; row 0 of an image is y = 0.
# {output}
{note}"""
_NO_BORDER = (
    "#\n# This model has no border. Past the centre of a map's last cell pixelnet-tf reads that\n"
    "# cell, where Caffe aborts: leave out pixels near the right and lower edge.\n"
)


def export_caffe(model: PixelNet, folder: str | Path) -> tuple[Path, Path]:
    """Write `deploy.prototxt` and `weights.caffemodel` of a model into a folder.

    Layers and blobs carry the names of the authors' files; the comments on top of the prototxt say
    what to feed. Returns both paths. Raises `ModelError` where Caffe could not read the result.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    network = caffe_network(model)
    prototxt, caffemodel = folder / PROTOTXT, folder / CAFFEMODEL
    write_prototxt(prototxt, network)
    border = model.config.border
    comment = _COMMENT.format(
        channels=model.channels, border=border, both=2 * border,
        output=f"f_score (pixel, {model.classes}): probabilities; fc8_new: scores before softmax.",
        note="" if border else _NO_BORDER,
    )
    write_text(prototxt, comment + prototxt.read_text(encoding="utf-8"))
    write_caffemodel(caffemodel, network)
    return prototxt, caffemodel


def caffe_network(model: PixelNet) -> Network:
    """A model as a Caffe network with its weights, for the TEST phase."""
    size = _IMAGE_SIZE + 2 * model.config.border
    layers = [
        Layer("data", "Input", (), ("data",), InputParams(((1, model.channels, size, size),))),
        Layer("pixels", "Input", (), ("pixels",), InputParams(((_PIXELS, 3),))),
    ]
    taps: list[str] = []
    layers += _trunk(model, taps)
    layers.append(Layer(
        "rand_concat", "RandBI", (*taps, "pixels"), ("fc5",), RandBIParams(True, model.rates)
    ))
    layers += _head(model)
    return Network("pixelnet_tf", tuple(layers))


def _trunk(model: PixelNet, taps: list[str]) -> Iterator[Layer]:
    table, bottom = model.architecture, "data"
    for number, block in enumerate(table.blocks):
        for layer in block:
            yield _convolution(model, layer, bottom)
            bottom = name = layer.name
            place = name.removeprefix("conv")
            if layer is block[-1] and table.batch_norm:
                yield _batch_norm(model, name, f"bn_{name}")
                taps.append(f"{name}_bn")
                # Not in place: BatchNorm reads the response before its ReLU.
                bottom = f"{name}_re"
                yield Layer(f"relu{place}", "ReLU", (name,), (bottom,), ReLUParams())
            else:
                yield _relu(f"relu{place}", name)
        if not table.batch_norm:
            taps.append(block[-1].name)
        if table.pools_after(number):
            top = f"pool{number + 1}"
            pooling = PoolingParams("MAX", (2, 2), (2, 2))
            yield Layer(top, "Pooling", (bottom,), (top,), pooling)
            bottom = top
    if table.context:
        yield from _fully_connected(model, bottom, taps)


def _fully_connected(model: PixelNet, bottom: str, taps: list[str]) -> Iterator[Layer]:
    fc6, fc7 = model.architecture.context
    yield _convolution(model, fc6, bottom)
    yield _relu("relu6", fc6.name)
    yield from _dropout(model, fc6.dropout, fc6.name)
    yield _convolution(model, fc7, fc6.name)
    if model.architecture.batch_norm:
        yield _batch_norm(model, fc7.name, "bn_conv7")
        taps.append(f"{fc7.name}_bn")
        return
    yield _relu("relu7", fc7.name)
    yield from _dropout(model, fc7.dropout, fc7.name)
    taps.append(fc7.name)


def _head(model: PixelNet) -> Iterator[Layer]:
    *hidden, scores = model.architecture.head
    bottom = "fc5"
    if model.architecture.relu_on_hypercolumn:
        yield _relu("relu_fc5", "fc5")
    for layer in hidden:
        yield _product(model, layer, bottom, layer.name)
        yield _relu(layer.name.replace("fc", "relu"), layer.name)
        yield from _dropout(model, layer.dropout, layer.name)
        bottom = layer.name
    yield _product(model, scores, bottom, "fc8_new")
    yield Layer("loss_opt", "Softmax", ("fc8_new",), ("f_score",), SoftmaxParams())


def _convolution(model: PixelNet, layer: Convolution, bottom: str) -> Layer:
    params = ConvolutionParams(layer.width, (layer.kernel,) * 2, pad=(layer.padding,) * 2)
    return Layer(layer.name, "Convolution", (bottom,), (layer.name,), params,
                 get_blobs(model.parts[layer.name]), _specs(layer))


def _product(model: PixelNet, layer: Dense, bottom: str, top: str) -> Layer:
    return Layer(layer.name, "InnerProduct", (bottom,), (top,), InnerProductParams(layer.width),
                 get_blobs(model.parts[layer.name]), _specs(layer))


def _specs(layer: Convolution | Dense) -> tuple[ParamSpec, ...]:
    """`param` blocks of kernel and bias; none where both have Caffe's defaults."""
    if layer.bias_multipliers == (1.0, 1.0):
        return ()
    return ParamSpec("", 1, 1), ParamSpec("", *layer.bias_multipliers)


def _batch_norm(model: PixelNet, name: str, title: str) -> Layer:
    layer = model.parts[f"bn_{name}"]
    params = BatchNormParams(eps=layer.epsilon, moving_average_fraction=layer.fraction)
    return Layer(title, "BatchNorm", (name,), (f"{name}_bn",), params, get_blobs(layer), _KEPT)


def _relu(name: str, blob: str) -> Layer:
    return Layer(name, "ReLU", (blob,), (blob,), ReLUParams())


def _dropout(model: PixelNet, name: str, blob: str) -> Iterator[Layer]:
    if model.config.dropout:
        yield Layer(name, "Dropout", (blob,), (blob,), DropoutParams(model.config.dropout))
