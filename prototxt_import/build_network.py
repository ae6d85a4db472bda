"""From upgraded protobuf messages to the immutable Network, and a layer back to its message."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from types import MappingProxyType

from google.protobuf.message import Message

from prototxt_import.errors import CaffeFormatError
from prototxt_import.layer import (
    PHASES,
    Layer,
    NetState,
    ParamSpec,
    StateRule,
    expected_blobs,
    fold_legacy_shape,
)
from prototxt_import.message_value import get_value, set_value, shortest_float, to_mapping
from prototxt_import.network import Network
from prototxt_import.params import params_class
from prototxt_import.params_base import GenericParams
from prototxt_import.raw_net import RawLayer, RawNet
from prototxt_import.schema import new_message
from prototxt_import.upgrade import upgrade_net


def build_network(
    raw: RawNet, phase: str | None = None, level: int = 0, stages: tuple[str, ...] = ()
) -> Network:
    """Return the network of `raw` after Caffe's upgrades, with the layers of `phase` (None: all).

    The level and stages that the file itself states count too. Raises CaffeFormatError for
    settings that Caffe refuses and for two layers with weights of one name.
    """
    if phase not in (None, *PHASES):
        raise CaffeFormatError(f"phase must be one of {', '.join(PHASES)} or None, got {phase!r}")
    try:
        upgrade_net(raw)
    except CaffeFormatError:
        raise
    except (ValueError, TypeError) as error:  # a value outside the range of its new field
        text = f"cannot be brought to the current form: {error}"
        raise CaffeFormatError(text, raw.path) from None
    layers = [_build_layer(layer, index, raw.path) for index, layer in enumerate(raw.layers)]
    state = raw.message.state
    level, stages = level or state.level, (*stages, *state.stage)
    if phase is not None:
        layers = [layer for layer in layers if layer.is_included(phase, level, stages)]
    _check_names(layers, raw.path, phase)
    return Network(
        raw.message.name,
        tuple(layers),
        notes=tuple(raw.notes),
        force_backward=raw.message.force_backward,
        state=NetState(phase, level, stages),
    )


def net_message(network: Network) -> Message:
    """Return the NetParameter of `network` without its layers.

    It states the level and stages that the layers were, or are to be, chosen by: without them the
    layers' rules would choose others from what is written.
    """
    message = new_message("NetParameter")
    if network.name:
        message.name = network.name
    if network.force_backward:
        message.force_backward = True
    if network.state.level:
        message.state.level = network.state.level
    if network.state.stages:
        message.state.stage.extend(network.state.stages)
    return message


def layer_message(layer: Layer) -> Message:
    """Return the LayerParameter of `layer` without its blobs; ValueError if it has none."""
    message = new_message("LayerParameter")
    message.name, message.type = layer.name, layer.type
    message.bottom.extend(layer.bottoms)
    message.top.extend(layer.tops)
    message.loss_weight.extend(layer.loss_weights)
    message.propagate_down.extend(layer.propagate_down)
    known = message.DESCRIPTOR.fields_by_name
    set_value(message, known["phase"], layer.phase)
    for spec in layer.param_specs:
        values = {name: getattr(spec, name) for name in ("lr_mult", "decay_mult")
                  if name in spec.stated or getattr(spec, name) != 1}
        if spec.name:
            values["name"] = spec.name
        if spec.share_mode != "STRICT":
            values["share_mode"] = spec.share_mode
        set_value(message, known["param"], [values])
    for name in ("include", "exclude"):
        set_value(message, known[name], [dataclasses.asdict(r) for r in getattr(layer, name)])
    layer.params.to_message(message)
    return message


def _build_layer(raw: RawLayer, index: int, path: str) -> Layer:
    message = raw.message
    name = message.name or f"unnamed_{index}"
    if not message.type:
        raise CaffeFormatError(f"layer {name!r} has no type; add `type: ...`", path, raw.line)
    if message.include and message.exclude:
        raise CaffeFormatError(
            f"layer {name!r} has both include and exclude; keep one of them", path, raw.line
        )
    try:
        params = params_class(message.type).from_message(message)
    except ValueError as error:
        text = f"layer {name!r} ({message.type}): {error}"
        raise CaffeFormatError(text, path, raw.line) from None
    if isinstance(params, GenericParams) and raw.unknown:
        params = GenericParams(MappingProxyType({**params.raw, **raw.unknown}))
    layer = Layer(
        name=name,
        type=message.type,
        bottoms=tuple(message.bottom),
        tops=tuple(message.top),
        params=params,
        param_specs=tuple(_param_spec(spec) for spec in message.param),
        phase=get_value(message, message.DESCRIPTOR.fields_by_name["phase"]),
        include=tuple(StateRule(**to_mapping(rule)) for rule in message.include),
        exclude=tuple(StateRule(**to_mapping(rule)) for rule in message.exclude),
        loss_weights=tuple(shortest_float(weight) for weight in message.loss_weight),
        propagate_down=tuple(message.propagate_down),
        line=raw.line,
    )
    blobs = tuple(
        fold_legacy_shape(layer, i, blob.data) if blob.is_legacy_shape else blob.data
        for i, blob in enumerate(raw.blobs)
    )
    return dataclasses.replace(layer, blobs=blobs)


def _param_spec(message: Message) -> ParamSpec:
    return ParamSpec(
        message.name,
        shortest_float(message.lr_mult),
        shortest_float(message.decay_mult),
        "PERMISSIVE" if message.share_mode else "STRICT",
        tuple(name for name in ("lr_mult", "decay_mult") if message.HasField(name)),
    )


def _check_names(layers: list[Layer], path: str, phase: str | None) -> None:
    """Refuse two layers with weights of one name: Caffe loads the weights of both into the first.

    Layers without weights may share a name, also with one that has some. With no phase chosen,
    layers whose rules differ may be those of different phases.
    """
    seen: dict[Hashable, Layer] = {}
    for layer in layers:
        if expected_blobs(layer) == () and not layer.blobs:
            continue
        rules = (layer.include, layer.exclude) if phase is None else ()
        other = seen.setdefault((layer.name, rules), layer)
        if other is not layer:
            first = f" (the first on line {other.line})" if other.line else ""
            advice = (
                "rename one of them, or give them include rules for different phases and "
                "choose a phase" if layer.line else
                "the network must be trained with a name for each"
            )
            raise CaffeFormatError(
                f"two layers with weights are called {layer.name!r}{first}, so that their "
                f"names do not tell whose weights are whose (Caffe loads both into the "
                f"first); {advice}",
                path,
                layer.line,
            )
