"""Settings of the layers without weights: activations, sampling, joining and reshaping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import LayerParams


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
class DropoutParams(LayerParams):
    """Dropout: scaled by 1 / (1 - ratio) in training, identity in the TEST phase."""

    messages: ClassVar = ("dropout_param",)
    dropout_ratio: float = 0.5


@dataclass(frozen=True)
class SoftmaxParams(LayerParams):
    """Softmax along `axis`."""

    messages: ClassVar = ("softmax_param",)
    axis: int = 1
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class LRNParams(LayerParams):
    """Local response normalisation."""

    messages: ClassVar = ("lrn_param",)
    local_size: int = 5
    alpha: float = 1.0
    beta: float = 0.75
    norm_region: str = "ACROSS_CHANNELS"
    k: float = 1.0
    engine: str = "DEFAULT"

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the window, which Caffe wants odd."""
        if values["local_size"] % 2 == 0:
            raise ValueError(f"local_size must be odd, got {values['local_size']}")


@dataclass(frozen=True)
class ConcatParams(LayerParams):
    """Concat along `axis` (the old `concat_dim` is read as axis)."""

    messages: ClassVar = ("concat_param",)
    axis: int = 1

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Let the old name of the axis count where it stands alone."""
        _merge_axis(values, layer.concat_param, "concat_dim")


@dataclass(frozen=True)
class SliceParams(LayerParams):
    """Slice along `axis` (the old `slice_dim` is read as axis), at the points or in equal parts."""

    messages: ClassVar = ("slice_param",)
    axis: int = 1
    slice_point: tuple[int, ...] = ()

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Let the old name of the axis count where it stands alone."""
        _merge_axis(values, layer.slice_param, "slice_dim")


@dataclass(frozen=True)
class EltwiseParams(LayerParams):
    """Eltwise: `operation` PROD, SUM or MAX; `coeff` has one factor a bottom, for SUM."""

    messages: ClassVar = ("eltwise_param",)
    operation: str = "SUM"
    coeff: tuple[float, ...] = ()
    stable_prod_grad: bool = True

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the number of factors."""
        if values["coeff"] and len(values["coeff"]) != len(layer.bottom):
            raise ValueError(
                f"coeff must be given once for each bottom, got {len(values['coeff'])} "
                f"for {len(layer.bottom)}"
            )
        if values["coeff"] and values["operation"] == "PROD":
            raise ValueError("coeff cannot be given with operation PROD")


@dataclass(frozen=True)
class FlattenParams(LayerParams):
    """Flatten the axes from `axis` to `end_axis`, both included."""

    messages: ClassVar = ("flatten_param",)
    axis: int = 1
    end_axis: int = -1


@dataclass(frozen=True)
class ReshapeParams(LayerParams):
    """Reshape: in `shape` 0 copies a dimension and -1 infers one."""

    messages: ClassVar = ("reshape_param",)
    shape: tuple[int, ...] = ()
    axis: int = 0
    num_axes: int = -1


@dataclass(frozen=True)
class CropParams(LayerParams):
    """Crop to the second bottom's size from `axis` on; `offset` is one for all axes, or each."""

    messages: ClassVar = ("crop_param",)
    axis: int = 2
    offset: tuple[int, ...] = ()


@dataclass(frozen=True)
class RandBIParams(LayerParams):
    """PixelNet's hypercolumn, RandBI (bilinear) and RandComp (nearest): one rate a map."""

    messages: ClassVar = ("rand_comp_param",)
    pad: bool = False
    rates: tuple[int, ...] = ()

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Rename the field `compression_rate`; check that each map has a rate of at least 1."""
        values["rates"] = tuple(layer.rand_comp_param.compression_rate)
        if len(values["rates"]) != len(layer.bottom) - 1:
            raise ValueError(
                "compression_rate must be given once for each map, "
                f"got {len(values['rates'])} for {len(layer.bottom) - 1} maps "
                "(the last bottom is the pixels)"
            )
        if min(values["rates"], default=1) < 1:
            raise ValueError(f"compression_rate must be at least 1, got {values['rates']}")

    def written(self) -> dict[str, Any]:
        """Name the rates as the schema does."""
        return {"pad": self.pad, "compression_rate": self.rates}


def _merge_axis(values: dict[str, Any], message: Message, old_name: str) -> None:
    if message.HasField(old_name):
        if message.HasField("axis"):
            raise ValueError(f"give either axis or {old_name}, not both")
        values["axis"] = getattr(message, old_name)
