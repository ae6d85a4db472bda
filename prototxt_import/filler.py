"""Caffe's fillers: how the weights of a new layer start."""

from __future__ import annotations

from dataclasses import dataclass

FILLER_TYPES = (
    "constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear",
)  # fmt: skip
VARIANCE_NORMS = ("FAN_IN", "FAN_OUT", "AVERAGE")


@dataclass(frozen=True)
class Filler:
    """A filler with Caffe's defaults: constant zero.

    `value` is for constant, `min` and `max` for uniform, `mean`, `std` and `sparse` (expected
    non-zero weights of an input, -1 for all) for gaussian, `variance_norm` for xavier and msra.

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
