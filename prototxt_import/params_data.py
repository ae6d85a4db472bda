"""Settings of inputs and data layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from google.protobuf.message import Message

from prototxt_import.params_base import Filler, LayerParams


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
    """Data, from a LevelDB or LMDB."""

    messages: ClassVar = ("data_param", "transform_param")
    source: str | None = None
    batch_size: int | None = None
    backend: str = "LEVELDB"
    rand_skip: int = 0
    force_encoded_color: bool = False
    prefetch: int = 4


@dataclass(frozen=True)
class ImageDataParams(TransformParams):
    """ImageData, from a list of image files."""

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
    """HDF5Data, from a list of HDF5 files."""

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
    """WindowData, windows of images for detection."""

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
