"""This project's model as a network that the original Caffe loads."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pixelnet_tf import __version__
from pixelnet_tf.caffe import exported
from pixelnet_tf.caffe.blobs import get_blobs, to_blob
from pixelnet_tf.caffe.reading import write_caffemodel, write_prototxt
from pixelnet_tf.config import Config, config_to_dict
from pixelnet_tf.errors import ModelError
from pixelnet_tf.io.files import write_json, write_text
from pixelnet_tf.model.architecture import Convolution, Dense
from pixelnet_tf.model.pixelnet import PixelNet, folded_kernel
from pixelnet_tf.volumes.description import describe_classes, describe_slices
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

PROTOTXT, CAFFEMODEL, ABOUT = "deploy.prototxt", "weights.caffemodel", "serving.json"
SCRIPTS = ("segment_nifti.py", "preparation.py")
#: All that `export_caffe` writes.
FILES = (PROTOTXT, CAFFEMODEL, ABOUT, *SCRIPTS)
_IMAGE_SIZE, _PIXELS = 224, 1000  # written as in the authors' files; nets are reshaped at run time
_KEPT = (ParamSpec("", 0, 1),) * 3

#: Paragraphs of the comment on top of the prototxt.
_COMMENT = """\
Written by pixelnet-tf. Needs the Caffe of the original PixelNet (layer RandBI). For research use
only. serving.json says all of this for programs; segment_nifti.py runs a NIfTI case.

data: (batch, {channels}, height + {both}, width + {both}), slices in a border of {border} zero
pixels on each side. Channels, in this order: {modalities}.

pixels: (pixel, 3), rows of n, y + {border}, x + {border}; row 0 of an image is y = 0.

f_score: (pixel, {classes}), probabilities of {class_names}. fc8_new: scores before softmax.

Slices: {view}. {size}

Normalisation, of a whole volume: {bias_field} Then {z_score}. The brain mask is {brain}.

Not in this network: what the prior adds to fc8_new ({prior}: {correction}), the mean with the
scores of the mirrored slices ({flips}), the guided filter ({filter}), and the clean-up of labels
({clean_up}).
"""
_NO_BORDER = """
This model has no border. Past the centre of a map's last cell pixelnet-tf reads that cell, where
Caffe aborts: leave out pixels near the right and lower edge.
"""


def export_caffe(model: PixelNet, config: Config, correction: np.ndarray, folder: str | Path
                 ) -> list[Path]:
    """Write a model into a folder, with all that its use in Caffe takes.

    `deploy.prototxt` and `weights.caffemodel` name layers and blobs as the authors' files do. What
    to feed stands in comments on top of the prototxt and, for programs, in `serving.json`;
    `segment_nifti.py` (with `preparation.py`) segments a NIfTI case through pycaffe.

    Args:
        config: of the training: how slices are prepared, what classes are called.
        correction: (class,) what the prior of `config.prediction` adds to the scores.

    Returns the files' paths. Raises `ModelError` where Caffe could not read the result, or the
    configuration has other numbers of channels or classes.
    """
    about = describe_network(model, config, correction)
    folder = Path(folder)
    network = caffe_network(model)
    prototxt = folder / PROTOTXT
    write_prototxt(prototxt, network)
    write_text(prototxt, _comment(model, about) + prototxt.read_text(encoding="utf-8"))
    write_caffemodel(folder / CAFFEMODEL, network)
    write_json(folder / ABOUT, about)
    for name in SCRIPTS:
        source = Path(exported.__file__).with_name(name)
        write_text(folder / name, source.read_text(encoding="utf-8"))
    return [folder / name for name in FILES]


def describe_network(model: PixelNet, config: Config, correction: np.ndarray) -> dict[str, Any]:
    """What `serving.json` beside the Caffe files holds: plain dictionaries, lists and scalars."""
    model.check_study(config.study)
    prediction = config.prediction
    return {
        "caffe_format": 1,
        "channels": list(config.study.modalities),
        "classes": describe_classes(config.study),
        "normalisation": describe_slices(config.study, config.prepare),
        "border": model.config.border,
        "rates": list(model.rates),
        "classified_pixels": "brain" if config.prediction.inside_brain(config.study) else "all",
        "not_in_the_network": {
            "prior": prediction.prior,
            "prior_correction": [float(value) for value in correction],
            "flips": prediction.flips,
            "guided_filter": config_to_dict(prediction.guided_filter),
            "postprocess": config_to_dict(prediction.postprocess),
        },
        "versions": {"pixelnet_tf": __version__},
    }


def _comment(model: PixelNet, about: dict[str, Any]) -> str:
    normal, left = about["normalisation"], about["not_in_the_network"]
    field, size, smoothing = normal["bias_field"], normal["slice_size"], left["guided_filter"]
    clean_up = [f"{key}: {value}" for key, value in left["postprocess"].items() if value]
    text = (_COMMENT + ("" if model.config.border else _NO_BORDER)).format(
        channels=model.channels, border=model.config.border, both=2 * model.config.border,
        classes=model.classes, modalities=", ".join(about["channels"]),
        class_names=", ".join(f"{one['index']} {one['name']} (label {one['value']})"
                              for one in about["classes"]),
        view=normal["view"],
        size=f"Scaled (linear, pixel centres on one scale) until the longer side has {size} "
             f"pixels, and zero-padded to a square, centred." if size else "Not scaled.",
        bias_field=f"N4 bias field correction of {', '.join(field['modalities'])} (settings in "
                   "serving.json)." if field["modalities"] else "no bias field correction.",
        z_score=normal["z_score"], brain=normal["brain"], prior=left["prior"],
        correction=", ".join(f"{value:+.4f}" for value in left["prior_correction"]),
        flips="on" if left["flips"] else "off",
        filter=f"radius {smoothing['radius']} pixels, epsilon {smoothing['epsilon']}"
               if smoothing["radius"] else "off",
        clean_up="; ".join(clean_up) or "none",
    )
    lines = []
    for paragraph in text.split("\n\n"):
        lines += ["#", *textwrap.wrap(paragraph, 100, initial_indent="# ", subsequent_indent="# ",
                                      break_long_words=False)]
    return "\n".join(lines[1:]) + "\n\n"


def caffe_network(model: PixelNet) -> Network:
    """A model as a Caffe network with its weights, for the TEST phase.

    Raises `ModelError` for one whose hypercolumns reach into neighbouring slices, or whose scores
    are averaged over several planes.
    """
    if model.config.reach:
        raise ModelError(f"model.context_slices is {model.config.context_slices}, and the "
                         "original's networks read one slice",
                         value=model.config.context_slices,
                         hint="train one with model.context_slices=1")
    if len(model.config.planes) > 1:
        raise ModelError(f"model.planes is {list(model.config.planes)}, whose scores are averaged, "
                         "and the original's networks see axial slices alone",
                         value=list(model.config.planes),
                         hint="train one with model.planes=[axial]")
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
    kernel, bias = get_blobs(model.parts[layer.name])
    if bottom == "data":
        # The layer that mixes modalities, where there is one, becomes part of the kernel.
        kernel = to_blob(model.parts[layer.name], folded_kernel(model, layer.name).numpy())
    return Layer(layer.name, "Convolution", (bottom,), (layer.name,), params, (kernel, bias),
                 _specs(layer))


def _product(model: PixelNet, layer: Dense, bottom: str, top: str) -> Layer:
    return Layer(layer.name, "InnerProduct", (bottom,), (top,), InnerProductParams(layer.width),
                 get_blobs(model.parts[layer.name]), _specs(layer))


def _specs(layer: Convolution | Dense) -> tuple[ParamSpec, ...]:
    """Return the `param` blocks of kernel and bias, or none where both have Caffe's defaults."""
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
