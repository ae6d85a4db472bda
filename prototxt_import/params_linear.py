"""Settings of the layers with weights, and of pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import (
    ONE_FILLER,
    ZERO_FILLER,
    Filler,
    LayerParams,
    Pair,
    read_pair,
    read_window,
    write_window,
)

#: Twice those of the widest depthwise convolutions: each is a convolution of its own.
MAX_GROUPS = 4096


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
        read_window(values, layer.convolution_param)
        _require_outputs(values)
        group = values.get("group", 1)
        if group < 1 or values["num_output"] % group:
            raise ValueError(
                f"num_output must be a multiple of group, got {values['num_output']} and {group}"
            )
        if group > MAX_GROUPS:
            raise ValueError(f"group must be at most {MAX_GROUPS}, got {group}")

    def written(self) -> dict[str, Any]:
        """Spell the pairs as Caffe does."""
        return write_window(super().written())


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

    Caffe rounds output sizes up unless `round_mode` is FLOOR: see `ceil_mode`, which older forks
    have as a field in its place.
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
        if message.HasField("ceil_mode"):
            if message.HasField("round_mode"):
                raise ValueError("give either round_mode or ceil_mode, not both")
            values["round_mode"] = "CEIL" if message.ceil_mode else "FLOOR"
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
        return write_window(super().written())


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


@dataclass(frozen=True)
class EmbedParams(LayerParams):
    """Embed: row i of the weights (input_dim, num_output) for each number i of the bottom."""

    messages: ClassVar = ("embed_param",)
    num_output: int
    input_dim: int
    bias_term: bool = True
    weight_filler: Filler = ZERO_FILLER
    bias_filler: Filler = ZERO_FILLER

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the sizes."""
        _require_outputs(values)
        if not values.get("input_dim"):
            raise ValueError("input_dim must be given and at least 1")


@dataclass(frozen=True)
class ParameterParams(LayerParams):
    """Parameter: a blob of this shape that is trained and is itself the top."""

    messages: ClassVar = ("parameter_param",)
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class BNParams(LayerParams):
    """BN of two forks, which is a normalisation with a factor and a term for each channel.

    SegNet's (`scale_filler`, `shift_filler`, `bn_mode`) has two blobs, PSPNet's (`slope_filler`,
    `bias_filler`, `momentum`, `eps`, `frozen`) four. None: not given; see `fork`.
    """

    messages: ClassVar = ("bn_param",)
    scale_filler: Filler | None = None
    shift_filler: Filler | None = None
    bn_mode: str | None = None
    slope_filler: Filler | None = None
    bias_filler: Filler | None = None
    momentum: float | None = None
    eps: float | None = None
    frozen: bool | None = None

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check that the settings are those of one fork."""
        for fork, names in _BN_FORKS.items():
            given = [name for name in names if values.get(name) is not None]
            others = [name for name in values if values[name] is not None and name not in names]
            if given and others:
                raise ValueError(f"{given[0]} is {fork}'s, {others[0]} is not; keep one fork's")

    @property
    def fork(self) -> str | None:
        """`SegNet` or `PSPNet`; None where no setting tells."""
        for fork, names in _BN_FORKS.items():
            if any(getattr(self, name) is not None for name in names):
                return fork
        return None


_BN_FORKS = {
    "SegNet": ("scale_filler", "shift_filler", "bn_mode"),
    "PSPNet": ("slope_filler", "bias_filler", "momentum", "eps", "frozen"),
}


def _require_outputs(values: dict[str, Any]) -> None:
    if not values.get("num_output"):
        raise ValueError("num_output must be given and at least 1")
