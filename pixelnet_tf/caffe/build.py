"""Keras models from Caffe's network descriptions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import keras

from pixelnet_tf.caffe.blobs import set_blobs
from pixelnet_tf.caffe.builders import (
    BUILDERS,
    DROPPED_TYPES,
    INPUT_TYPES,
    LOSS_TYPES,
    REFUSED_TYPES,
    SOURCE_TYPES,
    constant_layers,
    keras_name,
    supported_types,
)
from pixelnet_tf.caffe.caffe_net import CaffeNet
from pixelnet_tf.caffe.input_shapes import input_shapes
from pixelnet_tf.caffe.layers.base import UnknownSizeError
from pixelnet_tf.errors import ModelError, nearest_hint
from prototxt_import import Layer, Network


def build_model(
    network: Network,
    phase: str = "TEST",
    *,
    blobs: str | Sequence[str] = "outputs",
    losses: bool | None = None,
    fixed_shape: bool | None = None,
    seed: int = 0,
    dtype: str = "float32",
) -> CaffeNet:
    """Build a Caffe network as a Keras model that gives Caffe's numbers.

    The model maps a dictionary of inputs by Caffe's names to a dictionary of blobs. Blobs with
    four axes are `(batch, height, width, channel)`, others as in Caffe; `CaffeNet.run_caffe` takes
    and gives Caffe's own order. Layers keep their names, with `_` for `/`. An in-place layer's blob
    holds its final value. Dropout and BatchNorm follow `training` of the call: a TRAIN network is
    to be called with `training=True`.

    Args:
        network: with or without weights; without, the fillers give the start weights.
        phase: TRAIN or TEST; layers of the other phase are left out.
        blobs: which blobs the model returns: `outputs` (the tops that no layer reads), `all`, or
            names.
        losses: build the losses, or drop them and their labels; None: build them for TRAIN.
        fixed_shape: heights and widths as in the prototxt, or free; None: free where the network
            allows it. The first axis is free unless weights depend on it.
        seed: of fillers and dropout.
        dtype: `float32` as in Caffe, or `float64`, which tells rounding from a real difference.

    Raises `ModelError` for a layer that is not supported (with its name, type and line, and the
    supported types), for a bottom that no layer makes, and for weights that do not fit.
    """
    losses = phase == "TRAIN" if losses is None else losses
    layers = [layer for layer in network.layers if layer.is_included(phase)]
    with _policy(dtype):
        freedom = [fixed for fixed in ("", "space", "all") if fixed_shape in (None, bool(fixed))]
        for fixed in freedom[:-1]:
            with suppress(UnknownSizeError):
                return _build(network, layers, blobs, losses, fixed, seed)
        return _build(network, layers, blobs, losses, freedom[-1], seed)


@contextmanager
def _policy(dtype: str) -> Iterator[None]:
    """Keras' type of new layers, for a while."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _build(network, layers, wanted, losses, fixed, seed) -> CaffeNet:
    dtype = keras.config.dtype_policy().compute_dtype
    constants = constant_layers(layers)
    sources = [layer for layer in layers if layer.type in INPUT_TYPES and layer not in constants]
    shapes = input_shapes(sources, layers, fixed)
    tensors: dict[str, keras.KerasTensor] = {}
    inputs = {
        top: keras.Input(batch_shape=shapes[top], name=_input_name(top, layers), dtype=dtype)
        for layer in sources for top in layer.tops
    }
    unread: dict[str, None] = {}
    made: dict[tuple[str, ...], keras.layers.Layer] = {}
    for layer in layers:
        if layer.type in DROPPED_TYPES or (layer.type in LOSS_TYPES and not losses):
            for bottom in layer.bottoms:
                if layer.type in LOSS_TYPES and bottom not in inputs:
                    unread[bottom] = None
            continue
        if layer in sources:
            tensors |= {top: inputs[top] for top in layer.tops}
            continue
        bottoms = [_bottom(name, layer, tensors) for name in layer.bottoms]
        if not bottoms and layer.type in SOURCE_TYPES:
            bottoms = [_anchor(layer, inputs, layers)]
        tops = _tops(layer, bottoms, seed, made)
        for bottom in layer.bottoms:
            unread.pop(bottom, None)
        for top, tensor in zip(layer.tops, tops, strict=True):
            tensors[top] = tensor
            unread[top] = None
    outputs = {name: tensors[name] for name in _chosen(wanted, tensors, inputs, unread, network)}
    if not outputs:
        raise ModelError(f"network {network.name!r} has no layer that computes anything")
    used = _used_inputs(inputs, outputs)
    model = CaffeNet(inputs=used, outputs=outputs, name=keras_name(network.name) or "caffe_net")
    names = {layer.name for layer in model.layers}
    for layer in layers:
        if layer.blobs and layer.type in BUILDERS and keras_name(layer.name) in names:
            set_blobs(model.get_layer(keras_name(layer.name)), layer.blobs)
    return model


def _tops(layer: Layer, bottoms: list, seed: int, made: dict) -> list:
    """Run a layer's builder; its failures name the layer."""
    builder = BUILDERS.get(layer.type)
    if layer.type in REFUSED_TYPES:
        raise ModelError(f"{_place(layer)}: {REFUSED_TYPES[layer.type]}")
    if builder is None:
        raise ModelError(
            f"{_place(layer)} is not supported{nearest_hint(layer.type, supported_types())}; "
            f"supported types: {', '.join(supported_types())}"
        )
    try:
        shared = _shared_with(layer, made)
        tops = shared(*bottoms) if shared is not None else builder(layer, bottoms, seed)
    except ModelError as error:
        raise type(error)(f"{_place(layer)}: {error}") from error
    except (ValueError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{_place(layer)} cannot be built: {reason}") from error
    tops = list(tops) if isinstance(tops, (list, tuple)) else [tops]
    if len(tops) != len(layer.tops):
        raise ModelError(f"{_place(layer)} has {len(layer.tops)} tops, it makes {len(tops)}")
    names = tuple(spec.name for spec in layer.param_specs)
    if shared is None and any(names):
        made[names] = tops[0]._keras_history.operation
    return tops


def _shared_with(layer: Layer, made: dict) -> keras.layers.Layer | None:
    """The layer that this one shares all its weights with by the names of its `param`s."""
    names = tuple(spec.name for spec in layer.param_specs)
    if not any(names):
        return None
    if names in made:
        return made[names]
    partly = [name for name in names if name and any(name in other for other in made)]
    if partly:
        raise ValueError(
            f"it shares only {partly} with another layer; sharing some of a layer's weights is "
            "not supported, only all of them"
        )
    return None


def _bottom(name: str, layer: Layer, tensors: dict) -> keras.KerasTensor:
    if name not in tensors:
        raise ModelError(
            f"{_place(layer)} reads the blob {name!r}, which no layer before it makes"
            f"{nearest_hint(name, tensors)}"
        )
    return tensors[name]


def _anchor(layer: Layer, inputs: dict, layers: Sequence[Layer]) -> keras.KerasTensor:
    """What Keras calls a layer without bottoms with: an input, if possible one that is read."""
    read = {name for other in layers for name in other.bottoms}
    names = sorted(inputs, key=lambda name: name not in read)
    if not names:
        raise ModelError(f"{_place(layer)}: the network has no input at all")
    return inputs[names[0]]


def _chosen(wanted, tensors, inputs, unread, network) -> list[str]:
    if wanted == "all":
        return [name for name in tensors if tensors[name] is not inputs.get(name)]
    if wanted == "outputs":
        return [name for name in unread if tensors[name] is not inputs.get(name)]
    for name in wanted:
        if name not in tensors:
            raise ModelError(
                f"network {network.name!r} has no blob {name!r}{nearest_hint(name, tensors)}; "
                f"it has {', '.join(tensors)}"
            )
    return list(wanted)


def _used_inputs(inputs: dict, outputs: dict) -> dict:
    """Inputs that an output depends on: some deploy files declare labels that nothing reads."""
    graph = keras.Function(list(inputs.values()), list(outputs.values()))
    read = {id(tensor) for tensor in outputs.values()}
    for operation in graph.operations:
        for node in operation._inbound_nodes:
            read |= {id(tensor) for tensor in node.input_tensors}
    return {name: tensor for name, tensor in inputs.items() if id(tensor) in read}


def _input_name(top: str, layers: Sequence[Layer]) -> str:
    """Keras wants one name space for inputs and layers; Caffe has two."""
    name = keras_name(top)
    taken = {keras_name(layer.name) for layer in layers if layer.type not in INPUT_TYPES}
    return f"{name}_input" if name in taken else name


def _place(layer: Layer) -> str:
    line = f", line {layer.line}" if layer.line else ""
    return f"layer {layer.name!r} (type {layer.type}{line})"
