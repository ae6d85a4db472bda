"""Settings of losses and of Accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import LayerParams


@dataclass(frozen=True)
class LossParams(LayerParams):
    """A loss: the label left out, and what the sum is divided by.

    `normalization` is FULL (all positions), VALID (positions not ignored), BATCH_SIZE or NONE.
    """

    messages: ClassVar[tuple[str, ...]] = ("loss_param",)
    default_normalization: ClassVar[str] = "VALID"
    ignore_label: int | None = None
    normalization: str = "VALID"

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Apply Caffe's order: normalization, else the old `normalize`, else the default."""
        loss = layer.loss_param
        if loss.HasField("normalization"):
            return
        values["normalization"] = cls.default_normalization
        if loss.HasField("normalize"):
            values["normalization"] = "VALID" if loss.normalize else "BATCH_SIZE"


@dataclass(frozen=True)
class SoftmaxWithLossParams(LossParams):
    """SoftmaxWithLoss; `axis` is that of the classes."""

    messages: ClassVar = ("softmax_param", "loss_param")
    axis: int = 1
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class SigmoidCrossEntropyLossParams(LossParams):
    """SigmoidCrossEntropyLoss, which Caffe divides by the batch size unless told otherwise."""

    default_normalization: ClassVar[str] = "BATCH_SIZE"
    normalization: str = "BATCH_SIZE"


@dataclass(frozen=True)
class HingeLossParams(LossParams):
    """HingeLoss with `norm` L1 or L2."""

    messages: ClassVar = ("loss_param", "hinge_loss_param")
    norm: str = "L1"


@dataclass(frozen=True)
class AccuracyParams(LayerParams):
    """Accuracy among the `top_k` best classes along `axis`."""

    messages: ClassVar = ("accuracy_param",)
    top_k: int = 1
    axis: int = 1
    ignore_label: int | None = None
