"""Keras models from Caffe's network descriptions."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import keras
import tensorflow as tf

from pixelnet_tf.caffe.blobs import blob_variables, set_blobs
from pixelnet_tf.caffe.builders import (
    BUILDERS,
    DROPPED_TYPES,
    INPUT_TYPES,
    LABEL_LOSS_TYPES,
    REFUSED_TYPES,
    SOURCE_TYPES,
    Site,
    constant_layers,
    is_input,
    supported_types,
)
from pixelnet_tf.caffe.caffe_net import CaffeNet, keras_reason, names_of_caffe
from pixelnet_tf.caffe.input_shapes import input_shapes
from pixelnet_tf.caffe.layers.base import UnknownSizeError, network_blobs
from pixelnet_tf.caffe.layers.losses import LossTerm
from pixelnet_tf.caffe.weights import MAX_NEW_WEIGHTS
from pixelnet_tf.caffe.wiring import is_loss, keras_name, place, wired_layers
from pixelnet_tf.errors import ModelError, nearest_hint
from prototxt_import import Layer, Network
from prototxt_import.errors import listed

#: Blobs by their names in Caffe.
Tensors = dict[str, keras.KerasTensor]


def build_model(
    network: Network,
    phase: str = "TEST",
    *,
    blobs: str | Sequence[str] = "outputs",
    losses: bool | None = None,
    fixed_shape: bool | None = None,
    shapes: Mapping[str, Sequence[int | None]] | None = None,
    seed: int = 0,
    dtype: str = "float32",
) -> CaffeNet:
    """Build a Caffe network as a Keras model that gives Caffe's numbers.

    The model maps a dictionary of inputs by Caffe's names to a dictionary of blobs. Blobs with
    four axes are `(batch, height, width, channel)`, others as in Caffe; `CaffeNet.run_caffe` takes
    and gives Caffe's own order. Layers keep their names, with `_` for `/` (`wired_layers` says
    what becomes of names that are not unique). An in-place layer's blob holds its final value.
    Dropout and BatchNorm follow `training` of the call: a TRAIN network is to be called with
    `training=True`.

    Parameters
    ----------
    network
        The layers, with weights or without; where there are none, the fillers give the start
        weights.
    phase
        "TRAIN" or "TEST"; layers of the other phase are left out.
    blobs
        Which blobs the model returns: `outputs` (the tops that no layer reads, and those that carry
        a loss weight), `all`, or names.
    losses
        Whether to build the losses, or to drop them and their labels. None builds them for TRAIN.
    fixed_shape
        Whether heights and widths are fixed to those of the prototxt. None leaves them free where
        the network allows it. The first axis is free unless weights depend on it.
    shapes
        Shapes of inputs by name, in Caffe's order, with None for a size that is free. They count
        for data whose shape is stated in no file, and in place of what the file says.
    seed
        The seed of fillers and dropout.
    dtype
        `float32` as in Caffe, or `float64`, which tells rounding from a real difference.

    Raises
    ------
    ModelError
        A layer is not supported (the text has its name, type and line, and the types that are), no
        layer makes a bottom, weights do not fit, more than `MAX_NEW_WEIGHTS` are in no file, or
        Caffe itself would refuse the network.

    Examples
    --------
    >>> import numpy as np
    >>> from pixelnet_tf.caffe.build import build_model
    >>> from pixelnet_tf.caffe.reading import read_network
    >>> network = read_network("deploy.prototxt", "weights.caffemodel")
    >>> model = build_model(network, blobs=["conv1_1"])
    >>> model.run_caffe({"data": np.zeros((1, 3, 32, 32))})["conv1_1"].shape
    (1, 4, 32, 32)
    """
    losses = phase == "TRAIN" if losses is None else losses
    layers = wired_layers(network, phase)
    with _policy(dtype):
        freedom = [fixed for fixed in ("", "space", "all") if fixed_shape in (None, bool(fixed))]
        for fixed in freedom[:-1]:
            with suppress(UnknownSizeError):
                return _build(network, layers, blobs, losses, fixed, shapes, seed)
        return _build(network, layers, blobs, losses, freedom[-1], shapes, seed)


@contextmanager
def _policy(dtype: str) -> Iterator[None]:
    """Make layers of this type inside the block, and put back the type that was set before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build(
    network: Network, layers: Sequence[Layer], wanted: str | Sequence[str], losses: bool,
    fixed: str, given: Mapping[str, Sequence[int | None]] | None, seed: int,
) -> CaffeNet:
    # As many weights as the files hold, and so many that they lack.
    held = sum(blob.size for layer in layers for blob in layer.blobs)
    try:
        with network_blobs(held + MAX_NEW_WEIGHTS):
            return _built(network, layers, wanted, losses, fixed, given, seed)
    except RecursionError:
        raise ModelError(
            f"network {network.name!r}: Keras cannot follow the chain of its {len(layers)} layers, "
            "which is too long; build it in parts"
        ) from None


def _built(
    network: Network, layers: Sequence[Layer], wanted: str | Sequence[str], losses: bool,
    fixed: str, given: Mapping[str, Sequence[int | None]] | None, seed: int,
) -> CaffeNet:
    dtype = keras.config.dtype_policy().compute_dtype
    constants = constant_layers(layers)
    sources = [layer for layer in layers if is_input(layer) and layer not in constants]
    shapes = input_shapes(sources, layers, fixed, given)
    tensors: Tensors = {}
    inputs = {
        top: keras.Input(batch_shape=shapes[top], name=name, dtype=dtype)
        for top, name in _input_names(sources, layers).items()
    }
    unread: dict[str, None] = {}
    summed: dict[str, None] = {}
    left_out: dict[str, Layer] = {}
    trained: set[str] = set()
    for layer in layers:
        if _is_dropped(layer, losses):
            left_out |= dict.fromkeys(layer.tops, layer)
            for bottom in layer.bottoms:
                if layer.type not in DROPPED_TYPES and bottom in tensors and bottom not in inputs:
                    unread[bottom] = None
            continue
        if layer in sources:
            tensors |= {top: inputs[top] for top in layer.tops}
            continue
        bottoms = [_bottom(name, layer, tensors, left_out) for name in layer.bottoms]
        flows = _propagates_down(layer)
        _check_labels(layer, flows, trained)
        bottoms = [tensor if flow else keras.ops.stop_gradient(tensor)
                   for tensor, flow in zip(bottoms, flows, strict=True)]
        if not bottoms and layer.type in SOURCE_TYPES:
            bottoms = [_anchor(layer, inputs, layers)]
        tops = _tops(layer, bottoms, seed)
        for bottom in layer.bottoms:
            unread.pop(bottom, None)
        is_trained = _has_trained_weights(tops) or any(
            flow and name in trained for name, flow in zip(layer.bottoms, flows, strict=True)
        )
        for number, (top, tensor) in enumerate(zip(layer.tops, tops, strict=True)):
            if losses and loss_weight(layer, number):
                summed[top] = None
                tensor = _weighted(layer, number, tensor)
            tensors[top] = tensor
            unread[top] = None
            (trained.add if is_trained else trained.discard)(top)
    outputs = {
        name: tensors[name] for name in _chosen(wanted, tensors, inputs, unread | summed, network)
    }
    if not outputs:
        raise ModelError(f"network {network.name!r} has no layer that computes anything")
    used = _used_inputs(inputs, outputs)
    with names_of_caffe():
        model = CaffeNet(
            inputs=used, outputs=outputs, name=keras_name(network.name) or "caffe_net"
        )
    names = {layer.name for layer in model.layers}
    for layer in layers:
        if layer.blobs and layer.type in BUILDERS and keras_name(layer.name) in names:
            set_blobs(model.get_layer(keras_name(layer.name)), layer.blobs)
    return model


def _is_dropped(layer: Layer, losses: bool) -> bool:
    """Whether the model is built without a layer that computes nothing, or an unwanted loss."""
    if layer.type in DROPPED_TYPES:
        return True
    is_extra = layer.type not in BUILDERS and any(layer.loss_weights)
    return not losses and (is_loss(layer) or (is_extra and not is_input(layer)))


def _propagates_down(layer: Layer) -> list[bool]:
    """Whether gradients go back to each bottom."""
    if not layer.propagate_down:
        return [True] * len(layer.bottoms)
    if len(layer.propagate_down) != len(layer.bottoms):
        raise ModelError(f"{place(layer)}: propagate_down must be given once for each of its "
                         f"{len(layer.bottoms)} bottoms, got {len(layer.propagate_down)}",
                         value=len(layer.propagate_down))
    return list(layer.propagate_down)


def _check_labels(layer: Layer, flows: list[bool], trained: set[str]) -> None:
    for name, flow in list(zip(layer.bottoms, flows, strict=True))[1:]:
        if layer.type in LABEL_LOSS_TYPES and flow and name in trained:
            raise ModelError(f"{place(layer)}: its labels {name!r} come from trained weights, and "
                             "no gradient goes back through labels (Caffe aborts)",
                             hint="give it propagate_down: true propagate_down: false, or labels "
                                  "that are not trained")


def _has_trained_weights(tops: list) -> bool:
    for tensor in tops:
        made_by = tensor._keras_history.operation
        multipliers = getattr(made_by, "caffe_multipliers", ())
        for number, variable in enumerate(blob_variables(made_by)):
            if variable.trainable and (number >= len(multipliers) or multipliers[number][0]):
                return True
    return False


def loss_weight(layer: Layer, number: int) -> float:
    """A top's factor in the sum that is minimised."""
    if not layer.loss_weights:
        return 1.0 if is_loss(layer) and number == 0 else 0.0
    return layer.loss_weights[number] if number < len(layer.loss_weights) else 0.0


def _weighted(layer: Layer, number: int, tensor: keras.KerasTensor) -> keras.KerasTensor:
    """Mark a top as a term of the loss; losses are marked themselves."""
    if not is_loss(layer):
        name = f"{keras_name(layer.name)}.loss_{number}"
        return LossTerm(layer.tops[number], layer.loss_weights[number], name=name)(tensor)
    if number:
        raise ModelError(f"{place(layer)}: only its first top may have a loss weight, got "
                         f"{list(layer.loss_weights)}", value=list(layer.loss_weights))
    return tensor


def _tops(layer: Layer, bottoms: list, seed: int) -> list:
    """Build a layer and return its tops; what goes wrong is told with the layer's name."""
    builder = BUILDERS.get(layer.type)
    if layer.type in REFUSED_TYPES:
        raise ModelError(f"{place(layer)}: {REFUSED_TYPES[layer.type]}")
    if builder is None:
        raise ModelError(f"{place(layer)} {_why_unsupported(layer)}")
    if len(layer.loss_weights) not in (0, len(layer.tops)):
        raise ModelError(f"{place(layer)}: loss_weight must be given once for each of its "
                         f"{len(layer.tops)} tops, got {len(layer.loss_weights)}",
                         value=len(layer.loss_weights))
    try:
        tops = builder(Site(layer, bottoms, seed))
    except ModelError as error:
        raise type(error)(f"{place(layer)}: {keras_reason(error)}") from error
    except (ValueError, TypeError, IndexError, tf.errors.OpError) as error:
        raise ModelError(f"{place(layer)} cannot be built: {keras_reason(error)}") from error
    tops = list(tops) if isinstance(tops, (list, tuple)) else [tops]
    if len(tops) != len(layer.tops):
        raise ModelError(f"{place(layer)} has {len(layer.tops)} tops, it makes {len(tops)}")
    return tops


def _why_unsupported(layer: Layer) -> str:
    if layer.type in INPUT_TYPES:
        return ("reads blobs of the network; what it does to them stands in no file of Caffe's, "
                "so it cannot be run here: replace it by layers of Caffe, or cut the network "
                "before it")
    known = {type_.lower(): type_ for type_ in supported_types()}
    near = difflib.get_close_matches(layer.type.lower()[:100], known, n=1, cutoff=0.9)
    hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
    return f"is not supported{hint}; supported types: {', '.join(supported_types())}"


def _bottom(name: str, layer: Layer, tensors: Tensors,
            left_out: Mapping[str, Layer]) -> keras.KerasTensor:
    if name not in tensors and name in left_out:
        raise ModelError(
            f"{place(layer)} reads the blob {name!r} of {place(left_out[name])}, which is left out "
            "of a model"
        )
    if name not in tensors:
        raise ModelError(
            f"{place(layer)} reads the blob {name!r}, which no layer before it makes"
            f"{nearest_hint(name, tensors)}"
        )
    return tensors[name]


def _anchor(layer: Layer, inputs: Tensors, layers: Sequence[Layer]) -> keras.KerasTensor:
    """Return the input that a layer without bottoms is called with, as Keras wants one.

    It is one that some layer reads, if there is any.
    """
    read = {name for other in layers for name in other.bottoms}
    names = sorted(inputs, key=lambda name: name not in read)
    if not names:
        raise ModelError(f"{place(layer)}: the network has no input at all")
    return inputs[names[0]]


def _chosen(wanted: str | Sequence[str], tensors: Tensors, inputs: Tensors,
            unread: Collection[str], network: Network) -> list[str]:
    if wanted == "all":
        return [name for name in tensors if tensors[name] is not inputs.get(name)]
    if wanted == "outputs":
        return [name for name in unread if tensors[name] is not inputs.get(name)]
    for name in wanted:
        if name not in tensors:
            raise ModelError(
                f"network {network.name!r} has no blob {name!r}{nearest_hint(name, tensors)}; "
                f"it has {listed(tensors)}"
            )
    return list(wanted)


def _used_inputs(inputs: Tensors, outputs: Tensors) -> Tensors:
    """Inputs that an output depends on: some deploy files declare labels that nothing reads."""
    graph = keras.Function(list(inputs.values()), list(outputs.values()))
    read = {id(tensor) for tensor in outputs.values()}
    for operation in graph.operations:
        for node in operation._inbound_nodes:
            read |= {id(tensor) for tensor in node.input_tensors}
    return {name: tensor for name, tensor in inputs.items() if id(tensor) in read}


def _input_names(sources: Sequence[Layer], layers: Sequence[Layer]) -> dict[str, str]:
    """Return the name in Keras of each input.

    Inputs and layers share their names in Keras, but not in Caffe.
    """
    taken = {keras_name(layer.name) for layer in layers if not is_input(layer)}
    names = {}
    for top in (top for layer in sources for top in layer.tops):
        name = keras_name(top)
        while name in taken:
            name += "_input"
        taken.add(name)
        names[top] = name
    return names
