"""Settings of the layers that change each number by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import Filler, LayerParams

_QUARTER_FILLER = Filler(value=0.25)


@dataclass(frozen=True)
class ReLUParams(LayerParams):
    """ReLU: `negative_slope` times the input below zero."""

    messages: ClassVar = ("relu_param",)
    negative_slope: float = 0.0
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class SigmoidParams(LayerParams):
    """Sigmoid."""

    messages: ClassVar = ("sigmoid_param",)
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class TanHParams(LayerParams):
    """TanH."""

    messages: ClassVar = ("tanh_param",)
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class PReLUParams(LayerParams):
    """PReLU: a learnt slope below zero for each channel, or one for all (`channel_shared`)."""

    messages: ClassVar = ("prelu_param",)
    filler: Filler = _QUARTER_FILLER
    channel_shared: bool = False


@dataclass(frozen=True)
class ELUParams(LayerParams):
    """ELU: x above zero, `alpha` (exp(x) - 1) below."""

    messages: ClassVar = ("elu_param",)
    alpha: float = 1.0


@dataclass(frozen=True)
class PowerParams(LayerParams):
    """Power: (`shift` + `scale` x)^`power`."""

    messages: ClassVar = ("power_param",)
    power: float = 1.0
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class ExpParams(LayerParams):
    """Exp: `base`^(`shift` + `scale` x); a base of -1 is e."""

    messages: ClassVar = ("exp_param",)
    base: float = -1.0
    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the base."""
        _check_base(values["base"])


@dataclass(frozen=True)
class LogParams(LayerParams):
    """Log: the logarithm to `base` of `shift` + `scale` x; a base of -1 is e."""

    messages: ClassVar = ("log_param",)
    base: float = -1.0
    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the base."""
        _check_base(values["base"])
        if values["base"] == 1:
            raise ValueError("base must not be 1, whose logarithm is 0")


@dataclass(frozen=True)
class ThresholdParams(LayerParams):
    """Threshold: 1 above the `threshold`, else 0."""

    messages: ClassVar = ("threshold_param",)
    threshold: float = 0.0


def _check_base(base: float) -> None:
    if base != -1 and base <= 0:
        raise ValueError(f"base must be positive, or -1 for e, got {base}")
