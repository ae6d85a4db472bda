"""Volumes to axial, coronal or sagittal slices, and slices back to volumes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pixelnet_tf.config import PLANES
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.geometry import VolumeGeometry, nearest_whole

#: How many times as long as the other a side of a pixel may be in a coronal or sagittal slice:
#: beyond, most of the picture would be interpolated.
MOST_STRETCHED = 4.0
#: The axes of the view (column, row, slice) that slices, rows and columns of a plane lie along.
_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


class SlicePlan:
    """How a volume becomes slices of one plane, and how slices become that volume again.

    Slices lie in the axial view of `VolumeGeometry`: row 0 is anterior, column 0 is the patient's
    right, slice 0 the lowest. With `slice_size` a slice is scaled up until its longer side has that
    many pixels and zero-padded to a square, centred (the ISLES rule, paper section 3.3.2); 0 keeps
    the volume's own grid. Every voxel has a pixel that nearest-neighbour scaling took from it and
    from no other, so labels come back unchanged.

    Coronal and sagittal slices are upright: row 0 is the highest; column 0 of a coronal one is the
    patient's right, slice 0 anterior, and column 0 of a sagittal one is anterior, slice 0 the
    patient's right. Where the sides of a pixel differ there, the longer one is divided, by linear
    interpolation, until pixels are square to within half of one at the edge.

    Attributes:
        geometry: where the volume lies in space.
        plane: one of `PLANES`; `slice_size` is of axial slices alone.
        slices, height, width: number and size of the prepared slices.

    Raises:
        DataError: the volume's slices are larger than `slice_size`, or a side of a pixel is more
            than `MOST_STRETCHED` times as long as the other in another plane than the axial one.
    """

    def __init__(self, geometry: VolumeGeometry, slice_size: int = 0, plane: str = PLANES[0]):
        self.geometry = geometry
        self.slice_size, self.plane = slice_size, plane
        self.slices, self._native_height, self._native_width = (
            geometry.view_shape[axis] for axis in _AXES[plane])
        if plane != PLANES[0]:
            self._scaled = self.height, self.width = self._square_pixels()
            return
        if not slice_size:
            self._scaled = (self._native_height, self._native_width)
            self.height, self.width = self._scaled
            return
        longer = max(self._native_height, self._native_width)
        if longer > slice_size:
            raise DataError(f"slices of {self._native_height}x{self._native_width} pixels are "
                            f"larger than prepare.slice_size = {slice_size}",
                            hint=f"set it to at least {longer}")
        height, width = (max(native, round(native * slice_size / longer))
                         for native in (self._native_height, self._native_width))
        self._scaled = height, width
        self.height = self.width = slice_size

    def _square_pixels(self) -> tuple[int, int]:
        """Height and width of an upright slice with square pixels."""
        sides_mm = [self.geometry.view_spacing_mm[axis] for axis in _AXES[self.plane][1:]]
        stretched = round(max(sides_mm) / min(sides_mm), 3)
        if stretched > MOST_STRETCHED:
            raise DataError(
                f"pixels of {sides_mm[0]:.3g} x {sides_mm[1]:.3g} mm in {self.plane} slices: one "
                f"side is more than {MOST_STRETCHED:g} times the other, and most of the picture "
                "would be interpolated", value=stretched,
                hint="set model.planes=[axial], or leave the case out")
        height, width = (max(native, nearest_whole(native * side / min(sides_mm)))
                         for native, side in zip((self._native_height, self._native_width),
                                                 sides_mm, strict=True))
        return height, width

    @cached_property
    def native_pixels_yx(self) -> np.ndarray:
        """Pixel of the prepared slice that each voxel of a slice is read at.

        Returns:
            (native height * native width, 2) int32, (row, column), row by row.
        """
        grid = np.meshgrid(self._rows, self._columns, indexing="ij")
        return np.stack(grid, axis=-1).reshape(-1, 2).astype(np.int32)

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of a slice on the volume's own grid, in voxels."""
        return self._native_height, self._native_width

    @property
    def picture(self) -> tuple[slice, slice]:
        """Rows and columns of a prepared slice that show the volume; the others are padding."""
        (top, left), (height, width) = self._margins, self._scaled
        return slice(top, top + height), slice(left, left + width)

    def to_slices(self, volume_xyz: np.ndarray, order: str = "linear") -> np.ndarray:
        """Cut a volume into slices.

        Args:
            volume_xyz: (x, y, z) or (x, y, z, channel).
            order: `linear` for images, `nearest` for labels and masks.

        Returns:
            (slice, height, width) or (slice, height, width, channel), of the volume's type; zero
            in the padding.
        """
        return self.view_to_slices(self.geometry.to_view(volume_xyz), order)

    def view_to_slices(self, view: np.ndarray, order: str = "linear") -> np.ndarray:
        """Cut a volume in the view's axes (`VolumeGeometry.to_view`) into slices; see `to_slices`.
        """
        slices = np.moveaxis(view, _AXES[self.plane], (0, 1, 2))
        if self.plane != PLANES[0]:
            slices = slices[:, ::-1]
        if self._scaled != (self._native_height, self._native_width):
            slices = self._scale(slices, order)
        top, left = self._margins
        padding = [(0, 0), (top, self.height - self._scaled[0] - top),
                   (left, self.width - self._scaled[1] - left)]
        if (self.height, self.width) != self._scaled:
            slices = np.pad(slices, padding + [(0, 0)] * (slices.ndim - 3))
        return np.ascontiguousarray(slices)

    def from_slices(self, slices: np.ndarray) -> np.ndarray:
        """Put slices together: the exact inverse of nearest `to_slices`.

        Args:
            slices: (slice, height, width) or (slice, height, width, channel).

        Returns:
            (x, y, z) or (x, y, z, channel), of the slices' type.
        """
        return self.to_volume(self.read_voxels(slices))

    def read_voxels(self, slices: np.ndarray) -> np.ndarray:
        """Read the slices at the voxels of the original grid, the first half of `from_slices`.

        Args:
            slices: (slice, height, width, ...), any number of slices.

        Returns:
            (slice, native height, native width, ...): one value a voxel, still in radiological
            view.
        """
        return slices[:, self._rows][:, :, self._columns]

    def to_volume(self, voxels: np.ndarray) -> np.ndarray:
        """Turn voxels as `read_voxels` gives them, of all slices, into the volume's own axes."""
        return np.ascontiguousarray(self.seen_as_volume(voxels))

    def seen_as_volume(self, voxels: np.ndarray) -> np.ndarray:
        """What `to_volume` returns, on the same memory and not a copy."""
        return self.geometry.seen_from_view(self._to_view(voxels))

    def to_axial(self, voxels: np.ndarray) -> np.ndarray:
        """Turn voxels as `read_voxels` gives them, of all slices, into those of axial slices."""
        return np.moveaxis(self._to_view(voxels), _AXES[PLANES[0]], (0, 1, 2))

    def _to_view(self, voxels: np.ndarray) -> np.ndarray:
        if self.plane != PLANES[0]:
            voxels = voxels[:, ::-1]
        return np.moveaxis(voxels, (0, 1, 2), _AXES[self.plane])

    @property
    def _margins(self) -> tuple[int, int]:
        return (self.height - self._scaled[0]) // 2, (self.width - self._scaled[1]) // 2

    @cached_property
    def _rows(self) -> np.ndarray:
        return self._margins[0] + _centres(self._native_height, self._scaled[0])

    @cached_property
    def _columns(self) -> np.ndarray:
        return self._margins[1] + _centres(self._native_width, self._scaled[1])

    def _scale(self, slices: np.ndarray, order: str) -> np.ndarray:
        height, width = self._scaled
        if order == "nearest":
            rows = _sources(self._native_height, height)
            columns = _sources(self._native_width, width)
            return slices[:, rows][:, :, columns]
        down = _linear_weights(self._native_height, height)
        across = _linear_weights(self._native_width, width)
        channels = slices.reshape(*slices.shape[:3], -1)
        scaled = np.einsum("ry,syxc,qx->srqc", down, channels, across, optimize=True)
        return scaled.reshape(len(slices), height, width, *slices.shape[3:]).astype(slices.dtype)


def plans_of(geometry: VolumeGeometry, slice_size: int, planes: Sequence[str]) -> list[SlicePlan]:
    """How a volume is cut along each of several planes; raises `DataError` as `SlicePlan`."""
    return [SlicePlan(geometry, slice_size if plane == PLANES[0] else 0, plane)
            for plane in planes]


def _sources(native: int, scaled: int) -> np.ndarray:
    """Voxel that holds the centre of each scaled pixel."""
    return (2 * np.arange(scaled) + 1) * native // (2 * scaled)


def _centres(native: int, scaled: int) -> np.ndarray:
    """Scaled pixel that holds the centre of each voxel; `_sources` leads back to the voxel."""
    return (2 * np.arange(native) + 1) * scaled // (2 * native)


def _linear_weights(native: int, scaled: int) -> np.ndarray:
    """Weights (scaled, native) float32 of linear interpolation, pixel centres on one scale."""
    position = np.clip((np.arange(scaled) + 0.5) * native / scaled - 0.5, 0, native - 1)
    low = np.minimum(np.floor(position).astype(int), max(native - 2, 0))
    weights = np.zeros((scaled, native), np.float32)
    weights[np.arange(scaled), low] = 1 - (position - low)
    if native > 1:
        weights[np.arange(scaled), low + 1] += position - low
    return weights
