"""Kernel, stride, padding and dilation, which Caffe's schema spells in several ways."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

Pair = tuple[int, int]
#: Larger than any map: what is built for a window takes memory by its size.
MAX_SIZE = 16_384


def read_pair(message: Message, name: str, stem: str, default: int | None) -> Pair:
    """Return (height, width) from `name` (once or per axis) or `stem_h` and `stem_w`.

    `default` None means that it must be given. Raises ValueError where both spellings stand,
    one of `_h` and `_w` is missing, more than two axes are given, or more than `MAX_SIZE`.
    """
    names = (f"{stem}_h", f"{stem}_w")
    values = getattr(message, name)
    if isinstance(values, int):
        values = [values] if message.HasField(name) else []
    known = message.DESCRIPTOR.fields_by_name
    has = [n in known and message.HasField(n) for n in names]
    if any(has):
        if values:
            raise ValueError(f"give either {name} or {names[0]} and {names[1]}, not both")
        if not all(has) and stem != "pad":  # an absent half of pad is 0, of others an error
            raise ValueError(f"{names[0]} and {names[1]} must both be given")
        height, width = (getattr(message, n) for n in names)
        return _checked(stem, (int(height), int(width)))
    if len(values) > 2:
        raise ValueError(
            f"{name} is given for {len(values)} axes, as for a {len(values)}-D layer; only 2-D "
            "ones (height, width) are supported"
        )
    if not values:
        if default is None:
            raise ValueError(f"{name} (or {names[0]} and {names[1]}) must be given")
        return default, default
    return _checked(name, (int(values[0]), int(values[-1])))


def _checked(name: str, pair: Pair) -> Pair:
    if max(pair) > MAX_SIZE:
        raise ValueError(f"{name} must be at most {MAX_SIZE}, got {max(pair)}")
    return pair


def write_pair(name: str, stem: str, pair: Pair) -> dict[str, Any]:
    """Return the field or fields that say `pair`: one number for a square."""
    height, width = pair
    return {name: height} if height == width else {f"{stem}_h": height, f"{stem}_w": width}


def read_window(values: dict[str, Any], message: Message) -> None:
    """Set `kernel`, `stride`, `pad` and `dilation` from a ConvolutionParameter.

    Raises ValueError for what Caffe refuses.
    """
    values["kernel"] = read_pair(message, "kernel_size", "kernel", None)
    values["stride"] = read_pair(message, "stride", "stride", 1)
    values["pad"] = read_pair(message, "pad", "pad", 0)
    values["dilation"] = read_pair(message, "dilation", "dilation", 1)
    for name in ("kernel", "stride", "dilation"):
        if min(values[name]) < 1:
            raise ValueError(f"{name} must be at least 1, got {values[name]}")


def write_window(values: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with the pairs spelt as Caffe does, without those at their defaults."""
    values = dict(values)
    kernel, stride, pad = values.pop("kernel"), values.pop("stride"), values.pop("pad")
    if kernel is not None:
        values |= write_pair("kernel_size", "kernel", kernel)
    values |= write_pair("stride", "stride", stride)
    values |= write_pair("pad", "pad", pad)
    if "dilation" in values and len(set(values["dilation"])) == 1:
        # There is no dilation_h: two numbers where the axes differ.
        values["dilation"] = values["dilation"][0]
    defaults = {"stride": 1, "pad": 0, "dilation": 1}
    return {name: value for name, value in values.items() if defaults.get(name, ...) != value}
