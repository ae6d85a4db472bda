"""Settings of the layers with weights, and of pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.filler import ONE_FILLER, ZERO_FILLER, Filler
from prototxt_import.params_base import LayerParams
from prototxt_import.window import Pair, read_pair, write_pair


@dataclass(frozen=True)
class ConvolutionParams(LayerParams):
    """Convolution and Deconvolution; `kernel`, `stride`, `pad`, `dilation` are (height, width)."""

    messages: ClassVar = ("convolution_param",)
    num_output: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    group: int = 1
    bias_term: bool = True
    weight_filler: Filler = ZERO_FILLER
    bias_filler: Filler = ZERO_FILLER
    axis: int = 1
    engine: str = "DEFAULT"
    force_nd_im2col: bool = False

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Merge the spellings of kernel, stride and pad; check what Caffe checks."""
        message = layer.convolution_param
        values["kernel"] = read_pair(message, "kernel_size", "kernel", None)
        values["stride"] = read_pair(message, "stride", "stride", 1)
        values["pad"] = read_pair(message, "pad", "pad", 0)
        values["dilation"] = read_pair(message, "dilation", "dilation", 1)
        _require_outputs(values)
        for name in ("kernel", "stride", "dilation"):
            if min(values[name]) < 1:
                raise ValueError(f"{name} must be at least 1, got {values[name]}")
        group = values.get("group", 1)
        if group < 1 or values["num_output"] % group:
            raise ValueError(
                f"num_output must be a multiple of group, got {values['num_output']} and {group}"
            )

    def written(self) -> dict[str, Any]:
        """Spell the pairs as Caffe does."""
        values = super().written()
        kernel, stride, pad = values.pop("kernel"), values.pop("stride"), values.pop("pad")
        values |= write_pair("kernel_size", "kernel", kernel)
        values |= write_pair("stride", "stride", stride)
        values |= write_pair("pad", "pad", pad)
        # There is no dilation_h: two numbers where the axes differ.
        values["dilation"] = self.dilation[0] if len(set(self.dilation)) == 1 else self.dilation
        defaults = {"stride": 1, "pad": 0, "dilation": 1}
        return {name: v for name, v in values.items() if defaults.get(name, ...) != v}


@dataclass(frozen=True)
class InnerProductParams(LayerParams):
    """InnerProduct: weights (out, in), or (in, out) with `transpose`."""

    messages: ClassVar = ("inner_product_param",)
    num_output: int
    bias_term: bool = True
    weight_filler: Filler = ZERO_FILLER
    bias_filler: Filler = ZERO_FILLER
    axis: int = 1
    transpose: bool = False

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the number of outputs."""
        _require_outputs(values)


@dataclass(frozen=True)
class PoolingParams(LayerParams):
    """Pooling; `kernel`, `stride`, `pad` are (height, width), `kernel` None for global pooling.

    Caffe rounds output sizes up unless `round_mode` is FLOOR: see `ceil_mode`.
    """

    messages: ClassVar = ("pooling_param",)
    pool: str = "MAX"
    kernel: Pair | None = None
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    global_pooling: bool = False
    round_mode: str = "CEIL"
    engine: str = "DEFAULT"

    @property
    def ceil_mode(self) -> bool:
        """Whether output sizes are rounded up."""
        return self.round_mode == "CEIL"

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Merge the spellings of kernel, stride and pad; check what Caffe checks."""
        message = layer.pooling_param
        values["stride"] = read_pair(message, "stride", "stride", 1)
        values["pad"] = read_pair(message, "pad", "pad", 0)
        given = [n for n in ("kernel_size", "kernel_h", "kernel_w") if message.HasField(n)]
        if message.global_pooling:
            if given:
                raise ValueError(f"with global_pooling {given[0]} must not be given")
            if values["pad"] != (0, 0) or values["stride"] != (1, 1):
                raise ValueError("with global_pooling pad must be 0 and stride 1")
            return
        values["kernel"] = read_pair(message, "kernel_size", "kernel", None)
        for name in ("kernel", "stride"):
            if min(values[name]) < 1:
                raise ValueError(f"{name} must be at least 1, got {values[name]}")
        if any(p >= k for p, k in zip(values["pad"], values["kernel"], strict=True)):
            raise ValueError(f"pad {values['pad']} must be less than kernel {values['kernel']}")

    def written(self) -> dict[str, Any]:
        """Spell the pairs as Caffe does."""
        values = super().written()
        kernel, stride, pad = values.pop("kernel"), values.pop("stride"), values.pop("pad")
        if kernel is not None:
            values |= write_pair("kernel_size", "kernel", kernel)
        values |= write_pair("stride", "stride", stride)
        values |= write_pair("pad", "pad", pad)
        defaults = {"stride": 1, "pad": 0}
        return {name: v for name, v in values.items() if defaults.get(name, ...) != v}


@dataclass(frozen=True)
class BatchNormParams(LayerParams):
    """BatchNorm: `use_global_stats` None means true in the TEST phase, false in training."""

    messages: ClassVar = ("batch_norm_param",)
    use_global_stats: bool | None = None
    moving_average_fraction: float = 0.999
    eps: float = 1e-5


@dataclass(frozen=True)
class ScaleParams(LayerParams):
    """Scale by a learnt factor (or a second bottom), with a learnt bias where `bias_term`."""

    messages: ClassVar = ("scale_param",)
    axis: int = 1
    num_axes: int = 1
    filler: Filler = ONE_FILLER
    bias_term: bool = False
    bias_filler: Filler = ZERO_FILLER


@dataclass(frozen=True)
class BiasParams(LayerParams):
    """Add a learnt bias (or a second bottom)."""

    messages: ClassVar = ("bias_param",)
    axis: int = 1
    num_axes: int = 1
    filler: Filler = ZERO_FILLER


@dataclass(frozen=True)
class NormalizeParams(LayerParams):
    """PixelNet's Normalize: divide by the L2 norm over channels, times one scale blob."""

    messages: ClassVar = ("norm_param",)
    across_spatial: bool = True
    scale_filler: Filler = ONE_FILLER
    channel_shared: bool = True
    fix_scale: bool = True
    eps: float = 1e-10


def _require_outputs(values: dict[str, Any]) -> None:
    if not values.get("num_output"):
        raise ValueError("num_output must be given and at least 1")
