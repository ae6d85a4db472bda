"""How the typed settings of a layer are read from and written to its protobuf message.

With the two kinds of settings that several layers have in common: fillers, and the kernel, stride,
padding and dilation of a window, which Caffe's schema spells in several ways.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from prototxt_import.message_value import (
    get_value,
    is_repeated,
    set_mapping,
    set_value,
    to_mapping,
)

FILLER_TYPES = (
    "constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear",
)  # fmt: skip


@dataclass(frozen=True)
class Filler:
    """How the weights of a new layer start; without settings they are zero, as in Caffe.

    Attributes
    ----------
    type
        One of `FILLER_TYPES`.
    value
        Every weight, of constant.
    min, max
        The range of uniform.
    mean, std, sparse
        The distribution of gaussian; `sparse` is how many weights of an input are expected not to
        be zero, or -1 for all of them.
    variance_norm
        By what xavier and msra scale: FAN_IN, FAN_OUT or AVERAGE.

    Examples
    --------
    >>> from prototxt_import import Filler
    >>> Filler(type="gaussian", std=0.01)
    Filler(type='gaussian', value=0.0, min=0.0, max=1.0, mean=0.0, std=0.01, ...)
    """

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: str = "FAN_IN"

    def __post_init__(self) -> None:
        if self.type not in FILLER_TYPES:
            raise ValueError(
                f"the filler type must be one of {', '.join(FILLER_TYPES)}, got {self.type!r}"
            )


ZERO_FILLER = Filler()
ONE_FILLER = Filler(value=1.0)


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


Self = TypeVar("Self", bound="LayerParams")


@dataclass(frozen=True)
class LayerParams:
    """Base of the settings of all layer types: fields as in Caffe's schema, with its defaults.

    `messages` names the parts of Caffe's LayerParameter that hold them, for example
    `convolution_param`.

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
        """Check and change `values` where a setting is not simply one field of Caffe's message."""

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
    """Settings of a layer of a type that has no class here.

    `raw` has what the file sets, as nested mappings, for example
    `{"power_param": {"power": 2.0}}`.

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
        """Set every part again; ValueError for a part that Caffe's schema does not have."""
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
