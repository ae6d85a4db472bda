"""How the typed settings of a layer are read from and written to its protobuf message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from prototxt_import.filler import ZERO_FILLER, Filler
from prototxt_import.message_value import (
    get_value,
    is_repeated,
    set_mapping,
    set_value,
    to_mapping,
)

Self = TypeVar("Self", bound="LayerParams")


@dataclass(frozen=True)
class LayerParams:
    """Base of all settings: fields named as in Caffe's schema, with Caffe's defaults.

    `messages` names the parts of LayerParameter that hold them, e.g. `convolution_param`.

    Examples
    --------
    >>> from prototxt_import import ConvolutionParams, LayerParams
    >>> settings = ConvolutionParams(num_output=8, kernel=(3, 3))
    >>> isinstance(settings, LayerParams), settings.group, settings.messages
    (True, 1, ('convolution_param',))
    """

    messages: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_message(cls: type[Self], layer: Message) -> Self:
        """Return the settings of a LayerParameter; ValueError says what Caffe would refuse."""
        values: dict[str, Any] = {}
        names = {f.name for f in dataclasses.fields(cls)}
        for owner, message_field in cls._schema_fields(layer):
            name = message_field.name
            value = _read(getattr(layer, owner), message_field)
            if name in names and value is not None:
                values[name] = value
        cls.adjust(values, layer)
        return cls(**values)

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Change `values` where Caffe's rules are more than one field to one setting."""

    def to_message(self, layer: Message) -> None:
        """Set in a LayerParameter what differs from Caffe's defaults."""
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        owners = {f.name: (owner, f) for owner, f in self._schema_fields(layer)}
        for name, value in self.written().items():
            owner, message_field = owners[name]
            if name not in defaults or value != defaults[name]:
                _write(getattr(layer, owner), message_field, value)

    def written(self) -> dict[str, Any]:
        """Return the fields to write, under their names in the schema."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def _schema_fields(cls, layer: Message) -> list[tuple[str, FieldDescriptor]]:
        return [
            (owner, message_field)
            for owner in cls.messages
            for message_field in layer.DESCRIPTOR.fields_by_name[owner].message_type.fields
        ]


@dataclass(frozen=True)
class NoParams(LayerParams):
    """A layer without settings of its own."""


NO_PARAMS = NoParams()


@dataclass(frozen=True)
class GenericParams(LayerParams):
    """Settings of a layer type without a class here: what the file sets, as nested mappings,
    e.g. `{"power_param": {"power": 2.0}}`.

    Examples
    --------
    >>> from prototxt_import import GenericParams
    >>> GenericParams({"my_param": {"scale": 2.0}}).raw["my_param"]
    {'scale': 2.0}
    """

    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_message(cls, layer: Message) -> GenericParams:
        """Return every `*_param` part of a LayerParameter."""
        values = to_mapping(layer)
        return cls(MappingProxyType({k: v for k, v in values.items() if k.endswith("_param")}))

    def to_message(self, layer: Message) -> None:
        """Set the parts again; a part outside Caffe's schema raises ValueError."""
        try:
            set_mapping(layer, self.raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its setting {error} is not part of Caffe's schema") from None


def _read(message: Message, message_field: FieldDescriptor) -> Any:
    value = get_value(message, message_field)
    kind = message_field.message_type and message_field.message_type.name
    if value is None or not kind:
        return value
    read = {"FillerParameter": lambda v: Filler(**v), "BlobShape": lambda v: v.get("dim", ())}
    if is_repeated(message_field):
        return tuple(read[kind](item) for item in value)
    return read[kind](value)


def _write(message: Message, message_field: FieldDescriptor, value: Any) -> None:
    kind = message_field.message_type and message_field.message_type.name
    if value is not None and kind:
        many = is_repeated(message_field)
        items = [_as_mapping(kind, item) for item in (value if many else (value,))]
        value = items if many else items[0]
    set_value(message, message_field, value)


def _as_mapping(kind: str, value: Any) -> dict[str, Any]:
    if kind == "BlobShape":
        return {"dim": value}
    values = dataclasses.asdict(value)
    return {n: v for n, v in values.items() if n == "type" or v != getattr(ZERO_FILLER, n)}
