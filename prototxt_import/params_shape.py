"""Settings of the layers that normalise, sample, reduce, join and reshape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import LayerParams, Pair, read_window, write_window


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
class MVNParams(LayerParams):
    """MVN: each channel of each sample (`across_channels`: each sample) to mean 0, and to
    variance 1 where `normalize_variance`; `eps` is added to the standard deviation."""

    messages: ClassVar = ("mvn_param",)
    normalize_variance: bool = True
    across_channels: bool = False
    eps: float = 1e-9


@dataclass(frozen=True)
class ArgMaxParams(LayerParams):
    """ArgMax: places (or values, `out_max_val`) of the `top_k` largest, along `axis`; without an
    axis over all of a sample, with `out_max_val` then both."""

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
    """SPP: pooling into 1, 2 x 2, 4 x 4, ... bins, one after the other."""

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
    """DeepLab's Interp: bilinear, corners on corners, to `height` x `width`, or to sizes shrunk
    and zoomed; `pad_beg` and `pad_end` are 0 or negative, which crops the input first."""

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


def _require_positive(values: dict[str, Any], name: str) -> None:
    if (values.get(name) or 0) < 1:
        raise ValueError(f"{name} must be given and at least 1, got {values.get(name)}")


def _merge_axis(values: dict[str, Any], message: Message, old_name: str) -> None:
    if message.HasField(old_name):
        if message.HasField("axis"):
            raise ValueError(f"give either axis or {old_name}, not both")
        values["axis"] = getattr(message, old_name)
