"""The start weights of a training."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.caffe.reading import hdf5_groups
from pixelnet_tf.caffe.snapshot import Snapshot, check_snapshot, is_snapshot, load_snapshot
from pixelnet_tf.caffe.weights import fit_channels, load_caffemodel
from pixelnet_tf.config import AUTO, ExtraChannels, SolverConfig, SolverType
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.model.architecture import BLOCKS
from pixelnet_tf.model.fast_trunk import fast_taps
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.keras_file import load_model

#: Caffe's name of a convolution of VGG-16 -> Keras'.
_KERAS_NAMES = {name: f"block{block}_conv{number}"
                for block, names in enumerate(BLOCKS, start=1)
                for number, name in enumerate(names, start=1)}


@dataclass(frozen=True)
class StartWeights:
    """What a model started from: lines that say it, and the names of the layers that keep what was
    drawn at random; the snapshot of a training that goes on from Caffe's; variable path -> by what
    a pretrained variable was multiplied, 1 for one that is not there."""

    lines: tuple[str, ...]
    new_layers: frozenset[str]
    snapshot: Snapshot | None = None
    scales: dict[str, float] = field(default_factory=dict)


def check_source(source: str, steps: int = 0, balance: bool = False,
                 solver: SolverConfig | None = None) -> None:
    """Check what can be told of start weights before there is a model.

    Args:
        steps: number of steps of the whole training.
        balance: whether `balance_taps` is asked for.
        solver: its solver; None where it is not known yet.

    Raises:
        ModelError: the file does not exist, or is a snapshot that cannot be read.
        ConfigError: a snapshot that the training cannot go on from.
    """
    if source in ("random", "imagenet"):
        return
    if not os.path.isfile(source):
        raise ModelError(f"training.initial_weights: {source!r} does not exist",
                         hint="give random, imagenet, or the path of a .caffemodel, .solverstate, "
                              ".keras or Keras' .h5 file")
    if not is_snapshot(source):
        return
    done = check_snapshot(source)
    if steps and done >= steps:
        raise ConfigError(f"training.initial_weights: {source} has {done} steps behind it, the "
                          f"training is to have {steps}: nothing is left to do",
                          hint="raise training.steps")
    if solver is not None and solver.base_lr == AUTO:
        raise ConfigError(f"training.solver.base_lr is {AUTO}, and {source} has its momentum from "
                          "the rate that it was trained with",
                          hint="set training.solver.base_lr to that rate")
    if solver is not None and solver.type == SolverType.ADAMW:
        raise ConfigError(f"training.initial_weights: {source} is the state of one of Caffe's "
                          "solvers",
                          hint="set training.solver.type to the one that wrote it, or start from "
                               "its .caffemodel")
    if balance:
        raise ConfigError("training.balance_taps changes the weights, and the momentum of "
                          f"{source} is of the weights as they are",
                          hint="set training.balance_taps=false")


def initialise(model: PixelNet, source: str, intensity: float = 1.0,
               extra_channels: str = ExtraChannels.AVERAGE) -> StartWeights:
    """Give a model its start weights.

    Args:
        source: `random` (the model keeps what it drew), `imagenet` (Keras' VGG-16), or the path of
            a `.caffemodel`, of a `.solverstate`, of a `.keras` model of this project, or of the
            `.h5` file that Keras fetches for `imagenet`.
        intensity: gray levels that one unit of the image stands for; `imagenet` and `.caffemodel`
            weights are adapted to it (`rescale_intensity`), those of a snapshot are not.
        extra_channels: what first kernels of fewer channels than the model's become
            (`fit_channels`).

    Raises:
        ModelError: the file does not exist, or does not fit the model.
    """
    check_source(source)
    if source == "random":
        return StartWeights(("start weights: random",), model.weighted)
    if source.endswith(".keras"):
        return _from_model(model, source)
    if is_snapshot(source):
        snapshot = load_snapshot(model, source)
        return StartWeights((f"weights and solver of {source}, step {snapshot.step}",),
                            frozenset(), snapshot)
    if source == "imagenet":
        found = _from_vgg(model, _fetched_vgg(model), "Keras' ImageNet VGG-16", extra_channels)
    elif (arrays := _vgg_in(source)) is not None:
        found = _from_vgg(model, arrays, source, extra_channels)
    else:
        table = load_caffemodel(model, source, extra_channels)
        found = StartWeights((f"start weights: {source}", *str(table).splitlines()),
                             table.new_layers)
    return replace(found, scales=rescale_intensity(model, intensity, found.new_layers))


def rescale_intensity(model: PixelNet, intensity: float, new_layers: Collection[str]
                      ) -> dict[str, float]:
    """Adapt pretrained layers to images whose unit stands for `intensity` gray levels.

    All layers but `new_layers` are taken for pretrained. Convolution, ReLU, pooling and
    interpolation are homogeneous: with every bias of the trunk divided by `intensity`, an image
    divided by it gives every response divided by it. A pretrained first layer of the head takes
    that back. BatchNorm needs nothing but its mean's division, so with it the trunk's weights are
    left alone and the image would have to be scaled instead.

    Returns by what each variable that changed was multiplied, by its path.
    """
    if model.config.batch_norm or intensity == 1.0:
        return {}
    scales = {}
    for name in (layer.name for layer in model.architecture.convolutions):
        if name not in new_layers:
            bias = model.parts[name].bias
            bias.assign(bias / intensity)
            scales[bias.path] = 1 / intensity
    first = model.architecture.head_names[0]
    if first not in new_layers:
        kernel = model.parts[first].kernel
        kernel.assign(kernel * intensity)
        scales[kernel.path] = intensity
    return scales


def _vgg_in(path: str) -> dict[str, list[np.ndarray]] | None:
    """Kernel and bias of each convolution in Keras' .h5 file of a VGG-16, by Caffe's names; None
    for another file.

    Raises:
        ModelError: it is damaged, or lacks one.
    """
    if not path.endswith((".h5", ".hdf5")):
        return None
    arrays = hdf5_groups(path, _KERAS_NAMES.values())
    if not any(arrays.values()):
        return None
    found = {}
    for name, own in _KERAS_NAMES.items():
        found[name] = sorted(arrays[own], key=lambda array: -array.ndim)
        if [array.ndim for array in found[name]] != [4, 1]:
            raise ModelError(f"has no kernel and bias of {own}", file=path,
                             hint="fetch it again; docs/training.md says where it comes from")
    return found


def _fetched_vgg(model: PixelNet) -> dict[str, list[np.ndarray]]:
    """The same of Keras' own VGG-16, which is fetched where it is not there yet."""
    if tuple(model.config.widths) != (64, 128, 256, 512, 512):
        raise ModelError("imagenet weights need model.widths [64, 128, 256, 512, 512], got "
                         f"{list(model.config.widths)}", value=list(model.config.widths))
    try:
        vgg = keras.applications.VGG16(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises bare exceptions on a failed download.
        raise ModelError(f"Keras' ImageNet VGG-16 cannot be had ({error})",
                         hint="without a network give a file by --weights FILE; docs/training.md "
                              "says where the known ones come from") from None
    return {name: vgg.get_layer(own).get_weights() for name, own in _KERAS_NAMES.items()}


def _from_vgg(model: PixelNet, arrays: dict[str, list[np.ndarray]], source: str,
              extra_channels: str) -> StartWeights:
    """Give the thirteen convolutions their kernels and biases."""
    for name, (kernel, bias) in arrays.items():
        channels = model.parts[name].kernel.shape[2]
        if name == "conv1_1" and kernel.shape[2] != channels:
            kernel = np.moveaxis(fit_channels(np.moveaxis(kernel, (3, 2), (0, 1)), channels,
                                              extra_channels), (0, 1), (3, 2))
        shapes = [tuple(weight.shape) for weight in model.parts[name].weights[:2]]
        if shapes != [kernel.shape, bias.shape]:
            raise ModelError(f"{name} has the shape {kernel.shape}, the model's is {shapes[0]}",
                             file=source, hint="set model.widths to [64, 128, 256, 512, 512]")
        model.parts[name].set_weights([kernel, bias])
    return StartWeights((f"start weights: {source} (13 convolutions)",),
                        model.weighted - set(arrays))


def _from_model(model: PixelNet, path: str) -> StartWeights:
    """Take each layer that has the model's shape and means the same: the last one of a network that
    scores regions says nothing of classes, whatever their numbers."""
    other = load_model(path)
    lines, new_layers = [f"start weights: {path}"], set()
    last = model.architecture.head_names[-1]
    theirs_scored, mine_scored = ("regions" if each.config.region_based else "classes"
                                  for each in (other, model))
    for name, layer in model.parts.items():
        theirs = other.parts.get(name)
        mine = [w.shape for w in layer.weights]
        if not mine:
            continue
        if theirs is None or [w.shape for w in theirs.weights] != mine:
            why = "another shape or missing"
        elif name == last and theirs_scored != mine_scored:
            why = f"it scored {theirs_scored} there, and is to score {mine_scored}"
        else:
            layer.set_weights(theirs.get_weights())
            continue
        new_layers.add(name)
        lines.append(f"  {name}: left as drawn ({why})")
    return StartWeights(tuple(lines), frozenset(new_layers))


def balance_taps(model: PixelNet, images: np.ndarray) -> list[float]:
    """Rescale the trunk so that every map of the hypercolumn has a root mean square of 1.

    An ImageNet VGG-16 answers with numbers a hundred times larger in conv3_3 than in conv5_3, and a
    perceptron that reads both begins nearly blind to the deeper one. Convolution, ReLU and pooling
    are homogeneous: a block's last layer times a, and the next layer's kernel divided by a, give
    the same network with another scale at that tap alone. Nothing else changes, so the weights
    remain plain VGG-16 weights. Meant for a head that starts at random; of no use with batch_norm,
    which takes every scale out again.

    Args:
        images: (batch, height, width, channel) float32, a few normalised slices.

    Returns the factor of each tap.
    """
    factors = []
    for tap in fast_taps(model, tf.constant(images)):
        level = float(tf.sqrt(tf.reduce_mean(tf.square(tap.values))))
        factors.append(1.0 / level if level > 0 else 1.0)
    before = 1.0
    for chain, factor in zip(model.architecture.chains, factors, strict=True):
        first, last = model.parts[chain[0].name], model.parts[chain[-1].name]
        first.kernel.assign(first.kernel / before)
        last.kernel.assign(last.kernel * factor)
        last.bias.assign(last.bias * factor)
        before = factor
    return factors


def tap_scales(model: PixelNet, factors: Sequence[float]) -> dict[str, float]:
    """By what `balance_taps` multiplies each variable, by its path, for the factors of the taps."""
    scales: dict[str, float] = {}
    before = 1.0
    for chain, factor in zip(model.architecture.chains, factors, strict=True):
        first, last = model.parts[chain[0].name], model.parts[chain[-1].name]
        scales[first.kernel.path] = 1 / before
        scales[last.kernel.path] = scales.get(last.kernel.path, 1.0) * factor
        scales[last.bias.path] = factor
        before = factor
    return scales
