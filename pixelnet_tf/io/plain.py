"""Plain trees, as YAML and JSON give them, to dataclasses, checked by the hints of their fields."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from pixelnet_tf.errors import DataError, nearest_hint, shown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class PlainError(DataError):
    """A tree that does not fit its dataclass; the text says where, without the file's name."""


def build(cls: type[T], tree: Any, where: str = "", *, yaml: bool = False) -> T:
    """Build a dataclass from a dictionary, and dataclasses within it.

    Args:
        cls: fields of the types str, int, float, bool, tuple, dict, enumerations of texts, optional
            ones, one of these or given texts (`float | Literal["auto"]`), and dataclasses.
        where: place of the tree within the whole, for messages.
        yaml: mend what YAML 1.1 reads otherwise than people write it: a bare yes or no (as true or
            false) where a text is wanted, and `1e-3` (as text) where a number is. JSON needs none.

    Raises:
        PlainError: an unknown key, a missing one that has no default, or a value of another type.
    """
    if not isinstance(tree, dict):
        raise PlainError(f"{where or 'the whole'} must be a section of keys, got {shown(tree)}",
                         value=tree)
    hints = typing.get_type_hints(cls)
    unknown = [key for key in tree if key not in hints]
    if unknown:
        key = f"{where}.{unknown[0]}".lstrip(".")
        raise PlainError(f"unknown key {shown(key)}{nearest_hint(str(unknown[0]), hints)}; known "
                         f"keys here are {list(hints)}")
    missing = [field.name for field in dataclasses.fields(cls) if field.name not in tree
               and field.default is field.default_factory is dataclasses.MISSING]
    if missing:
        raise PlainError(f"{where + '.' if where else ''}{missing[0]} is missing")
    return cls(**{key: convert(hints[key], value, f"{where}.{key}".lstrip("."), yaml=yaml)
                  for key, value in tree.items()})


def convert(hint: Any, value: Any, where: str, *, yaml: bool = False) -> Any:
    """Give a value the type of a hint, lists as tuples; see `build`; raises `PlainError`."""
    if hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, where, yaml=yaml)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise PlainError(f"{where} must be a list, got {shown(value)}", value=value)
        if arguments[-1] is not ... and len(value) != len(arguments):
            raise PlainError(f"{where} must be a list of {len(arguments)}, got {shown(value)}",
                             value=value)
        return tuple(convert(arguments[0], item, f"{where}[{i}]", yaml=yaml)
                     for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise PlainError(f"{where} must map keys to values, got {shown(value)}",
                             value=value)
        return {convert(arguments[0], key, f"a key of {where}", yaml=yaml):
                convert(arguments[1], item, f"{where}.{key}", yaml=yaml)
                for key, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        # The texts that stand for something else than a value of the type: base_lr's `auto`.
        texts = [text for each in arguments if typing.get_origin(each) is typing.Literal
                 for text in typing.get_args(each)]
        if isinstance(value, str) and value in texts:
            return value
        kinds = [each for each in arguments if each is not types.NoneType
                 and typing.get_origin(each) is not typing.Literal]
        try:
            return convert(kinds[0], value, where, yaml=yaml)
        except PlainError as error:
            if not texts:
                raise
            raise PlainError(f"{error}, or one of {texts}", value=value) from None
    return _scalar(hint, value, where, yaml)


def _scalar(hint: type, value: Any, where: str, yaml: bool) -> Any:
    if issubclass(hint, enum.Enum):
        allowed = [member.value for member in hint]
        value = _scalar(str, value, where, yaml)
        if value not in allowed:
            raise PlainError(f"{where} must be one of {allowed}, got {shown(value)}",
                             value=value)
        return hint(value)
    if yaml and hint is str and isinstance(value, bool):
        return "yes" if value else "no"
    if yaml and hint is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise PlainError(f"{where} is out of all range, got {shown(value)}",
                             value=value) from None
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise PlainError(f"{where} must be of type {hint.__name__}, got {shown(value)} "
                     f"({type(value).__name__})", value=value)
