"""Values of protobuf fields as plain Python values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_REPEATED_TYPES = (list, tuple)


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds a sequence (asked in the way of the protobuf at hand)."""
    flag = getattr(field, "is_repeated", None)
    return field.label == FieldDescriptor.LABEL_REPEATED if flag is None else flag


def shortest_float(value: float) -> float:
    """Return the shortest decimal that is `value` in float32: 0.001, not 0.0010000000474975."""
    return float(str(np.float32(value)))


def get_value(message: Message, field: FieldDescriptor) -> Any:
    """Return a field as bool, int, float, str, enum name, nested dict or tuple of these.

    An unset field gives its default, or None where the schema has none.
    """
    if is_repeated(field):
        return tuple(_convert(field, value) for value in getattr(message, field.name))
    if not message.HasField(field.name) and not field.has_default_value:
        return None
    return _convert(field, getattr(message, field.name))


def set_value(message: Message, field: FieldDescriptor, value: Any) -> None:
    """Set a field from a value in the form of `get_value`; None leaves it unset."""
    if value is None:
        return
    if is_repeated(field):
        for item in value if isinstance(value, _REPEATED_TYPES) else (value,):
            if field.message_type is not None:
                set_mapping(getattr(message, field.name).add(), item)
            else:
                getattr(message, field.name).append(_unconvert(field, item))
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        set_mapping(getattr(message, field.name), value)
    else:
        setattr(message, field.name, _unconvert(field, value))


def to_mapping(message: Message) -> dict[str, Any]:
    """Return the fields that are set, as a nested dict."""
    return {field.name: get_value(message, field) for field, _ in message.ListFields()}


def set_mapping(message: Message, values: Mapping[str, Any]) -> None:
    """Fill `message` from a nested dict; an unknown name raises KeyError."""
    for name, value in values.items():
        set_value(message, message.DESCRIPTOR.fields_by_name[name], value)


def _convert(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return to_mapping(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return shortest_float(value)
    return value


def _unconvert(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            raise ValueError(
                f"{field.name} must be one of {', '.join(field.enum_type.values_by_name)}, "
                f"got {value!r}"
            )
        return field.enum_type.values_by_name[value].number
    return value
