"""The settings of every layer type, and which class holds those of which type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import (
    ONE_FILLER,
    ZERO_FILLER,
    Filler,
    GenericParams,
    LayerParams,
    NoParams,
    Pair,
    read_pair,
    read_window,
    write_window,
)


@dataclass(frozen=True)
class InputParams(LayerParams):
    """Input: one shape for each top, one for all, or none."""

    messages: ClassVar = ("input_param",)
    shape: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the number of shapes and their dimensions."""
        if len(values["shape"]) not in (0, 1, len(layer.top)):
            raise ValueError(
                f"shape must be given once, or once for each top, got {len(values['shape'])} "
                f"for {len(layer.top)} tops"
            )
        for shape in values["shape"]:
            if any(not 0 <= size < 1 << 31 for size in shape):
                raise ValueError(f"shape {shape} has a dimension outside 0 to 2147483647")


@dataclass(frozen=True)
class TransformParams(LayerParams):
    """What data layers do to an image: subtract the mean, then scale; crop and mirror."""

    scale: float = 1.0
    mirror: bool = False
    crop_size: int = 0
    mean_file: str | None = None
    mean_value: tuple[float, ...] = ()
    force_color: bool = False
    force_gray: bool = False


@dataclass(frozen=True)
class DataParams(TransformParams):
    """Data: images from a LevelDB or LMDB."""

    messages: ClassVar = ("data_param", "transform_param")
    source: str | None = None
    batch_size: int | None = None
    backend: str = "LEVELDB"
    rand_skip: int = 0
    force_encoded_color: bool = False
    prefetch: int = 4


@dataclass(frozen=True)
class ImageDataParams(TransformParams):
    """ImageData: images from a list of files."""

    messages: ClassVar = ("image_data_param", "transform_param")
    source: str | None = None
    batch_size: int = 1
    rand_skip: int = 0
    shuffle: bool = False
    new_height: int = 0
    new_width: int = 0
    is_color: bool = True
    root_folder: str | None = None


@dataclass(frozen=True)
class HDF5DataParams(LayerParams):
    """HDF5Data: arrays from a list of HDF5 files."""

    messages: ClassVar = ("hdf5_data_param",)
    source: str | None = None
    batch_size: int | None = None
    shuffle: bool = False


@dataclass(frozen=True)
class MemoryDataParams(TransformParams):
    """MemoryData: images handed over in memory, (batch_size, channels, height, width)."""

    messages: ClassVar = ("memory_data_param", "transform_param")
    batch_size: int | None = None
    channels: int | None = None
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class WindowDataParams(TransformParams):
    """WindowData: windows of images, for detection."""

    messages: ClassVar = ("window_data_param", "transform_param")
    source: str | None = None
    batch_size: int | None = None
    fg_threshold: float = 0.5
    bg_threshold: float = 0.5
    fg_fraction: float = 0.25
    context_pad: int = 0
    crop_mode: str = "warp"
    cache_images: bool = False
    root_folder: str | None = None


@dataclass(frozen=True)
class DummyDataParams(LayerParams):
    """DummyData: filled tops; the old num, channels, height, width are read as `shape`."""

    messages: ClassVar = ("dummy_data_param",)
    shape: tuple[tuple[int, ...], ...] = ()
    data_filler: tuple[Filler, ...] = ()

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Turn the old four numbers into shapes."""
        message = layer.dummy_data_param
        axes = [list(getattr(message, name)) for name in ("num", "channels", "height", "width")]
        count = max(len(axis) for axis in axes)
        if not count:
            return
        if values["shape"]:
            raise ValueError("give either shape or num, channels, height and width, not both")
        if any(len(axis) not in (1, count) for axis in axes):
            raise ValueError("num, channels, height and width must be given equally often or once")
        values["shape"] = tuple(
            tuple(axis[min(i, len(axis) - 1)] for axis in axes) for i in range(count)
        )


@dataclass(frozen=True)
class PythonParams(LayerParams):
    """Python: a layer written in Python, by module and class."""

    messages: ClassVar = ("python_param",)
    module: str | None = None
    layer: str | None = None
    param_str: str | None = None
    share_in_parallel: bool = False


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
    """BatchNorm; without `use_global_stats` (None) it is true in the TEST phase, false in TRAIN."""

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
    """Embed: for each number i of the bottom, row i of the weights (input_dim, num_output)."""

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
    `bias_filler`, `momentum`, `eps`, `frozen`) four. A setting that is not given is None.
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


_QUARTER_FILLER = Filler(value=0.25)


@dataclass(frozen=True)
class ReLUParams(LayerParams):
    """ReLU: numbers below zero are multiplied by `negative_slope`."""

    messages: ClassVar = ("relu_param",)
    negative_slope: float = 0.0
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class SigmoidParams(LayerParams):
    """Sigmoid, whose only setting is the engine that computes it."""

    messages: ClassVar = ("sigmoid_param",)
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class TanHParams(LayerParams):
    """TanH, whose only setting is the engine that computes it."""

    messages: ClassVar = ("tanh_param",)
    engine: str = "DEFAULT"


@dataclass(frozen=True)
class PReLUParams(LayerParams):
    """PReLU: a slope below zero that is learnt for each channel, or for all (`channel_shared`)."""

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
    """LRN: local response normalisation over `local_size` channels, or pixels of one channel."""

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
class MVNParams(LayerParams):
    """MVN: each channel of each sample less its mean.

    With `across_channels` a sample is taken as a whole. With `normalize_variance` the result is
    divided by the standard deviation, to which `eps` is added.
    """

    messages: ClassVar = ("mvn_param",)
    normalize_variance: bool = True
    across_channels: bool = False
    eps: float = 1e-9


@dataclass(frozen=True)
class ArgMaxParams(LayerParams):
    """ArgMax: the places of the `top_k` largest numbers along `axis`.

    With `out_max_val` the top has their values instead. Without an axis it looks at all numbers of
    a sample, and has with `out_max_val` both places and values.
    """

    messages: ClassVar = ("argmax_param",)
    out_max_val: bool = False
    top_k: int = 1
    axis: int | None = None

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the number of places."""
        _require_positive(values, "top_k")


@dataclass(frozen=True)
class ReductionParams(LayerParams):
    """Reduction of all axes from `axis` on, by SUM, ASUM, SUMSQ or MEAN, times `coeff`."""

    messages: ClassVar = ("reduction_param",)
    operation: str = "SUM"
    axis: int = 0
    coeff: float = 1.0


@dataclass(frozen=True)
class TileParams(LayerParams):
    """Tile: the blob `tiles` times, one after the other along `axis`."""

    messages: ClassVar = ("tile_param",)
    tiles: int
    axis: int = 1

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the number of tiles."""
        _require_positive(values, "tiles")


@dataclass(frozen=True)
class SPPParams(LayerParams):
    """SPP: pooling into 1, 2 x 2, 4 x 4 and more bins, whose numbers follow one another."""

    messages: ClassVar = ("spp_param",)
    pyramid_height: int
    pool: str = "MAX"
    engine: str = "DEFAULT"

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check the number of levels."""
        _require_positive(values, "pyramid_height")


@dataclass(frozen=True)
class Im2colParams(LayerParams):
    """Im2col: the numbers that a convolution's window covers, as channels; pairs are
    (height, width)."""

    messages: ClassVar = ("convolution_param",)
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    axis: int = 1
    force_nd_im2col: bool = False

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Merge the spellings of kernel, stride and pad; check what Caffe checks."""
        read_window(values, layer.convolution_param)

    def written(self) -> dict[str, Any]:
        """Spell the pairs as Caffe does."""
        return write_window(super().written())


@dataclass(frozen=True)
class InterpParams(LayerParams):
    """DeepLab's Interp: bilinear interpolation with the output's corners on those of the input.

    The output is `height` x `width`, or the input's size shrunk and zoomed by the factors.
    `pad_beg` and `pad_end` are 0 or negative; negative numbers crop the input first.
    """

    messages: ClassVar = ("interp_param",)
    height: int | None = None
    width: int | None = None
    zoom_factor: int | None = None
    shrink_factor: int | None = None
    pad_beg: int = 0
    pad_end: int = 0

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check that one size is given, and the signs."""
        given = {name for name in ("height", "width", "zoom_factor", "shrink_factor")
                 if values.get(name) is not None}
        fixed, factors = {"height", "width"}, {"zoom_factor", "shrink_factor"}
        ways = [given >= fixed, bool(given & factors), len(layer.bottom) == 2]
        if sum(ways) != 1 or (given & fixed and not given >= fixed):
            raise ValueError("give height and width, or zoom_factor and shrink_factor (one or "
                             "both), or a second bottom, and only one of these")
        for name in given:
            _require_positive(values, name)
        if max(values["pad_beg"], values["pad_end"]) > 0:
            raise ValueError("pad_beg and pad_end must be 0 or negative (crop)")


@dataclass(frozen=True)
class UpsampleParams(LayerParams):
    """SegNet's Upsample: each number goes where the mask of a Pooling says.

    The top is `upsample_h` x `upsample_w`; else the bottom's size times `scale` (or `scale_h`,
    `scale_w`), less one where `pad_out_h`, `pad_out_w`.
    """

    messages: ClassVar = ("upsample_param",)
    scale: int = 2
    scale_h: int | None = None
    scale_w: int | None = None
    pad_out_h: bool = False
    pad_out_w: bool = False
    upsample_h: int | None = None
    upsample_w: int | None = None

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Check that pairs are whole, and the sizes that the fork checks."""
        for names in (("scale_h", "scale_w"), ("upsample_h", "upsample_w")):
            if len({values.get(name) is None for name in names}) == 2:
                raise ValueError(f"{names[0]} and {names[1]} must both be given")
        for name in ("scale", "scale_h", "scale_w", "upsample_h", "upsample_w"):
            if values.get(name) is not None and values[name] < 2:
                raise ValueError(f"{name} must be at least 2, got {values[name]}")
        for pad, own in (("pad_out_h", "scale_h"), ("pad_out_w", "scale_w")):
            scale = values.get(own) or values["scale"]
            if values[pad] and scale != 2 and values.get("upsample_h") is None:
                raise ValueError(f"{pad} needs a scale of 2, got {scale}")


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
    """Eltwise: `operation` is PROD, SUM or MAX; for SUM `coeff` has a factor for each bottom."""

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
    """PixelNet's hypercolumn, RandBI (bilinear) or RandComp (nearest), with a rate for each map."""

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


def _require_positive(values: dict[str, Any], name: str) -> None:
    if (values.get(name) or 0) < 1:
        raise ValueError(f"{name} must be given and at least 1, got {values.get(name)}")


def _merge_axis(values: dict[str, Any], message: Message, old_name: str) -> None:
    if message.HasField(old_name):
        if message.HasField("axis"):
            raise ValueError(f"give either axis or {old_name}, not both")
        values["axis"] = getattr(message, old_name)


@dataclass(frozen=True)
class LossParams(LayerParams):
    """A loss: which label it leaves out, and by what its sum is divided.

    `normalization` is FULL (all positions), VALID (those not left out), BATCH_SIZE or NONE.
    """

    messages: ClassVar[tuple[str, ...]] = ("loss_param",)
    default_normalization: ClassVar[str] = "VALID"
    ignore_label: int | None = None
    normalization: str = "VALID"

    @classmethod
    def adjust(cls, values: dict[str, Any], layer: Message) -> None:
        """Take `normalization`, if it is not given the old `normalize`, else Caffe's default."""
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


PARAMS_BY_TYPE: dict[str, type[LayerParams]] = {
    "Input": InputParams,
    "Data": DataParams,
    "ImageData": ImageDataParams,
    "HDF5Data": HDF5DataParams,
    "MemoryData": MemoryDataParams,
    "WindowData": WindowDataParams,
    "DummyData": DummyDataParams,
    "Python": PythonParams,
    "Convolution": ConvolutionParams,
    "Deconvolution": ConvolutionParams,
    "InnerProduct": InnerProductParams,
    "Pooling": PoolingParams,
    "BatchNorm": BatchNormParams,
    "Scale": ScaleParams,
    "Bias": BiasParams,
    "Normalize": NormalizeParams,
    "ReLU": ReLUParams,
    "Sigmoid": SigmoidParams,
    "TanH": TanHParams,
    "PReLU": PReLUParams,
    "ELU": ELUParams,
    "Power": PowerParams,
    "Exp": ExpParams,
    "Log": LogParams,
    "AbsVal": NoParams,
    "BNLL": NoParams,
    "Threshold": ThresholdParams,
    "Dropout": DropoutParams,
    "Softmax": SoftmaxParams,
    "LRN": LRNParams,
    "MVN": MVNParams,
    "ArgMax": ArgMaxParams,
    "Reduction": ReductionParams,
    "Tile": TileParams,
    "Embed": EmbedParams,
    "SPP": SPPParams,
    "Im2col": Im2colParams,
    "Filter": NoParams,
    "BatchReindex": NoParams,
    "Parameter": ParameterParams,
    "BN": BNParams,
    "Interp": InterpParams,
    "Upsample": UpsampleParams,
    "Concat": ConcatParams,
    "Slice": SliceParams,
    "Split": NoParams,
    "Silence": NoParams,
    "Eltwise": EltwiseParams,
    "Flatten": FlattenParams,
    "Reshape": ReshapeParams,
    "Crop": CropParams,
    "RandBI": RandBIParams,
    "RandComp": RandBIParams,
    "SoftmaxWithLoss": SoftmaxWithLossParams,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLossParams,
    "EuclideanLoss": LossParams,
    "HingeLoss": HingeLossParams,
    "MultinomialLogisticLoss": LossParams,
    "Accuracy": AccuracyParams,
}


def params_class(layer_type: str) -> type[LayerParams]:
    """Return the class of a type's settings, GenericParams for types without one."""
    return PARAMS_BY_TYPE.get(layer_type, GenericParams)
