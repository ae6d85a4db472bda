"""This project's model as a network that the original Caffe loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pixelnet_tf.caffe.blobs import get_blobs
from pixelnet_tf.caffe.reading import write_caffemodel, write_prototxt
from pixelnet_tf.io.files import write_text
from pixelnet_tf.model.pixelnet import PixelNet, head_names
from pixelnet_tf.model.vgg16 import BLOCKS
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
_TRAINED = (ParamSpec("", 1, 1), ParamSpec("", 2, 0))
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
    config, bottom = model.config, "data"
    for number, names in enumerate(BLOCKS, start=1):
        for name in names:
            yield _convolution(model, name, bottom)
            bottom = name
            place = name.removeprefix("conv")
            if name == names[-1] and config.batch_norm:
                yield _batch_norm(model, name, f"bn_{name}")
                taps.append(f"{name}_bn")
                # Not in place: BatchNorm reads the response before its ReLU.
                bottom = f"{name}_re"
                yield Layer(f"relu{place}", "ReLU", (name,), (bottom,), ReLUParams())
            else:
                yield _relu(f"relu{place}", name)
        if not config.batch_norm:
            taps.append(names[-1])
        if number < len(BLOCKS) or config.fc7 != "none":
            top = f"pool{number}"
            pooling = PoolingParams("MAX", (2, 2), (2, 2))
            yield Layer(top, "Pooling", (bottom,), (top,), pooling)
            bottom = top
    if config.fc7 != "none":
        yield from _fully_connected(model, bottom, taps)


def _fully_connected(model: PixelNet, bottom: str, taps: list[str]) -> Iterator[Layer]:
    yield _convolution(model, "fc6_conv", bottom)
    yield _relu("relu6", "fc6_conv")
    yield from _dropout(model, "drop6", "fc6_conv")
    yield _convolution(model, "fc7_conv", "fc6_conv")
    if model.config.batch_norm:
        yield _batch_norm(model, "fc7_conv", "bn_conv7")
        taps.append("fc7_conv_bn")
        return
    yield _relu("relu7", "fc7_conv")
    yield from _dropout(model, "drop7", "fc7_conv")
    taps.append("fc7_conv")


def _head(model: PixelNet) -> Iterator[Layer]:
    *hidden, scores = head_names(model.config)
    bottom = "fc5"
    if model.config.head == "linear":
        yield _relu("relu_fc5", "fc5")
    for name in hidden:
        yield _product(model, name, bottom, name)
        yield _relu(name.replace("fc", "relu"), name)
        yield from _dropout(model, name.replace("fc", "drop"), name)
        bottom = name
    yield _product(model, scores, bottom, "fc8_new")
    yield Layer("loss_opt", "Softmax", ("fc8_new",), ("f_score",), SoftmaxParams())


def _convolution(model: PixelNet, name: str, bottom: str) -> Layer:
    layer = model.parts[name]
    kernel = tuple(layer.kernel_size)
    pad = tuple(size // 2 if layer.padding == "same" else 0 for size in kernel)
    # The authors' files give fc6_conv and fc7_conv no `param`: lr x1 and decay for the biases, too.
    specs = () if name in ("fc6_conv", "fc7_conv") else _TRAINED
    params = ConvolutionParams(layer.filters, kernel, pad=pad)
    return Layer(name, "Convolution", (bottom,), (name,), params, get_blobs(layer), specs)


def _product(model: PixelNet, name: str, bottom: str, top: str) -> Layer:
    layer = model.parts[name]
    params = InnerProductParams(layer.units)
    return Layer(name, "InnerProduct", (bottom,), (top,), params, get_blobs(layer), _TRAINED)


def _batch_norm(model: PixelNet, name: str, title: str) -> Layer:
    layer = model.parts[f"bn_{name}"]
    params = BatchNormParams(eps=layer.epsilon, moving_average_fraction=layer.fraction)
    return Layer(title, "BatchNorm", (name,), (f"{name}_bn",), params, get_blobs(layer), _KEPT)


def _relu(name: str, blob: str) -> Layer:
    return Layer(name, "ReLU", (blob,), (blob,), ReLUParams())


def _dropout(model: PixelNet, name: str, blob: str) -> Iterator[Layer]:
    if model.config.dropout:
        yield Layer(name, "Dropout", (blob,), (blob,), DropoutParams(model.config.dropout))
