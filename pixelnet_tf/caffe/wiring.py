"""What Caffe checks and settles over all layers of a network before it runs one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pixelnet_tf.errors import ModelError
from prototxt_import import Layer, Network, ParamSpec


def wired_layers(network: Network, phase: str) -> list[Layer]:
    """Layers of a phase as Caffe connects them, each with a name of its own.

    Where layers of one network would be called the same in Keras (Caffe lets layers share a name,
    and Keras forbids `/`), the later ones are called `name_2`, `name_3` and so on. Layers that
    share a blob by name get the multipliers that one of them states.

    Raises `ModelError` for what Caffe refuses: a layer in place on a blob that another layer reads
    before it, a blob that two layers make, and shared blobs whose multipliers differ.
    """
    layers = _chosen(network, phase)
    _check_tops(layers)
    return _with_own_names(_with_agreed_multipliers(_with_loss_tops(layers)))


def is_loss(layer: Layer) -> bool:
    """Whether a layer is a loss by its type, which Caffe gives a weight and a top of itself."""
    return layer.type.endswith("Loss")


def keras_name(name: str) -> str:
    """Name of the Keras layer that stands for a Caffe layer: Keras forbids `/`."""
    return name.replace("/", "_")


def place(layer: Layer) -> str:
    """How an error names a layer."""
    line = f", line {layer.line}" if layer.line else ""
    return f"layer {layer.name!r} (type {layer.type}{line})"


def _chosen(network: Network, phase: str) -> list[Layer]:
    """The network's layers, unless they were chosen when it was read."""
    state = network.state
    if state.phase is None:
        return [one for one in network.layers if one.is_included(phase, state.level, state.stages)]
    if state.phase != phase and any(one.include or one.exclude for one in network.layers):
        raise ModelError(
            f"network {network.name!r} was read for the phase {state.phase}, without the layers of "
            f"others; it cannot be built for {phase}",
            value=phase, hint=f"read it for {phase}, or for no phase"
        )
    return list(network.layers)


def _check_tops(layers: Sequence[Layer]) -> None:
    """Caffe's rule for a blob that is there already: its only reader may work on it in place.

    Other readers get copies from a Split that Caffe puts in; what stands in the blob's place
    afterwards would be a second blob of the name.
    """
    makers: dict[str, Layer] = {}
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for bottom in layer.bottoms:
            readers.setdefault(bottom, []).append(f"layer {layer.name!r}")
        for number, top in enumerate(layer.tops):
            if top in makers:
                _check_in_place(layer, number, makers[top], readers[top])
            makers[top] = layer
            weighted = number < len(layer.loss_weights) and layer.loss_weights[number]
            readers[top] = [f"the loss weight of layer {layer.name!r}"] if weighted else []


def _check_in_place(layer: Layer, number: int, maker: Layer, readers: list[str]) -> None:
    top = layer.tops[number]
    if layer.bottoms[number:number + 1] != (top,):
        raise ModelError(
            f"{place(layer)} makes the blob {top!r}, which {place(maker)} has made already; Caffe "
            "refuses that", value=top, hint="rename one of the two"
        )
    if len(readers) > 1:
        others = " and ".join(dict.fromkeys(readers[:-1]))
        raise ModelError(
            f"{place(layer)} works in place on the blob {top!r}, which is read before it by "
            f"{others}; Caffe refuses that", value=top,
            hint="give it a top of another name"
        )


def _with_loss_tops(layers: Sequence[Layer]) -> list[Layer]:
    """Give a loss without a top one with the layer's name, as Caffe gives it one of its own."""
    blobs = {top for layer in layers for top in layer.tops}
    named = []
    for layer in layers:
        if is_loss(layer) and not layer.tops:
            top = layer.name
            while top in blobs:
                top += "_loss"
            blobs.add(top)
            layer = dataclasses.replace(layer, tops=(top,))
        named.append(layer)
    return named


def _with_agreed_multipliers(layers: Sequence[Layer]) -> list[Layer]:
    stated: dict[tuple[str, str], tuple[float, Layer]] = {}
    for layer in layers:
        for spec in layer.param_specs:
            for name in spec.stated if spec.name else ():
                value, first = stated.setdefault(
                    (spec.name, name), (getattr(spec, name), layer)
                )
                if value != getattr(spec, name):
                    raise ModelError(
                        f"{place(layer)} shares the blob {spec.name!r} with {place(first)}, but "
                        f"with {name} {getattr(spec, name)} against {value}; Caffe refuses that",
                        value=value, hint="state one value"
                    )

    def agreed(spec: ParamSpec) -> ParamSpec:
        values = (stated.get((spec.name, name), (getattr(spec, name),))[0]
                  for name in ("lr_mult", "decay_mult"))
        lr_mult, decay_mult = values
        return dataclasses.replace(spec, lr_mult=lr_mult, decay_mult=decay_mult)

    return [
        dataclasses.replace(layer, param_specs=tuple(map(agreed, layer.param_specs)))
        if any(spec.name for spec in layer.param_specs) else layer
        for layer in layers
    ]


def _with_own_names(layers: Sequence[Layer]) -> list[Layer]:
    taken = {keras_name(layer.name) for layer in layers}
    used: set[str] = set()
    numbers: dict[str, int] = {}
    named = []
    for layer in layers:
        name = keras_name(layer.name)
        if name in used:
            number = numbers.get(name, 2)
            while f"{name}_{number}" in taken:
                number += 1
            numbers[name] = number + 1
            layer = dataclasses.replace(layer, name=f"{name}_{number}")
            name = layer.name
            taken.add(name)
        used.add(name)
        named.append(layer)
    return named
