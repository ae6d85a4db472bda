"""One case stored in many ways: the same labels on its own grid, in every mode and served.

A phantom with box-shaped lesions and a network made by hand, which sees the lesions by their
intensity at single pixels. What it must say of a voxel can be worked out from the image alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import Config, GuidedFilterConfig, load_config
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import segment_remotely, segment_volume
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.serving.signatures import build_signatures
from pixelnet_tf.volumes.case_volume import PreparedVolume, prepare_case
from tests.pixel_network import pixel_network, set_head

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false", "study.modalities=[flair, t2]",
                                 "study.labels={0: background, 1: core, 4: rim}",
                                 "study.regions={WT: [1, 4]}", "prediction.batch_slices=3"])
#: Intensities of brain and lesion, the same in both channels: each marks a class of its own.
BRAIN, LESION = 100.0, 400.0
SPACING_MM = (0.9, 1.3, 4.0)


@dataclass(frozen=True)
class Stored:
    """Voxels to the left, to the back and upwards; `prepare.slice_size`; `prediction.brain_only`;
    and the ways in which the volume is stored: axes of the file, degrees that it is tilted by."""

    size: tuple[int, int, int]
    slice_size: int
    brain_only: str
    ways: tuple[tuple[str, float], ...]


STORED = {
    "128 to 256, padded": Stored((96, 128, 3), 256, "no", (("LPS", 0), ("RAS", 20), ("SPL", 0))),
    "192 to 256": Stored((192, 192, 3), 256, "auto", (("LPS", 0), ("PIR", 15))),
    "odd, padded": Stored((75, 61, 3), 101, "auto", (("LPS", 0), ("IAR", 25), ("ASL", 0))),
    "as it is": Stored((57, 52, 3), 0, "auto", (("LPS", 0), ("LAI", 10), ("SRA", 0), ("PLS", 30))),
}
MODES = {"exact": ("exact", 0), "adaptive": ("adaptive", 0), "filter": ("exact", 4),
         "adaptive and filter": ("adaptive", 4)}


def draw(size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Channels (x, y, z, 2) float32 and label values (x, y, z) uint8; axes left, back, up."""
    rng = np.random.default_rng(3)
    place = [(np.arange(n) + 0.5) / n for n in size]
    x, y, z = np.meshgrid(*place, indexing="ij")
    brain = ((x - 0.5) / 0.45) ** 2 + ((y - 0.5) / 0.42) ** 2 < 1
    channels = np.where(brain[..., None], BRAIN + rng.normal(0, 4, (*size, 2)), 0)
    labels = np.zeros(size, np.uint8)
    # No two slices, and no mirror images, are alike; one box lies at the rim of the brain.
    for number, (value, left, top) in enumerate(((1, 0.22, 0.3), (4, 0.55, 0.42), (1, 0.06, 0.4),
                                                 (4, 0.4, 0.7))):
        box = (x > left) & (x < left + 0.21) & (y > top) & (y < top + 0.16)
        box &= (z > (0.0, 0.34, 0.0, 0.67)[number]) & brain
        labels[box] = value
        channels[box, int(value == 4)] = LESION + rng.normal(0, 4, box.sum())
    return channels.astype(np.float32), labels


def store(folder, size, way: tuple[str, float]) -> Case:
    """Write the phantom with the file's axes along `way`'s, tilted, its voxels anisotropic."""
    codes, degrees = way
    channels, labels = draw(size)
    tilt = nib.eulerangles.euler2mat(*np.radians(degrees) * np.array([1, 0.5, -0.7]))
    affine = nib.affines.from_matvec(tilt @ np.diag([-1, -1, 1]) @ np.diag(SPACING_MM),
                                     [31.5, -17, 8])
    turn = orientations.ornt_transform(orientations.axcodes2ornt("LPS"),
                                       orientations.axcodes2ornt(codes))
    affine = affine @ orientations.inv_ornt_aff(turn, size)
    paths = {}
    for name, array in (("flair", channels[..., 0]), ("t2", channels[..., 1]), ("seg", labels)):
        paths[name] = folder / f"{codes}_{name}.nii"
        image = nib.Nifti1Image(orientations.apply_orientation(array, turn), affine)
        assert "".join(nib.aff2axcodes(image.affine)) == codes
        nib.save(image, paths[name])
    segmentation = paths.pop("seg")
    return Case(codes, paths, segmentation)


def in_view(volume: np.ndarray, codes: str) -> np.ndarray:
    """A volume in the file's axes to axes left, back, up, by nibabel alone."""
    return orientations.apply_orientation(volume, orientations.ornt_transform(
        orientations.axcodes2ornt(codes), orientations.axcodes2ornt("LPS")))


@pytest.fixture(scope="module")
def net() -> PixelNet:
    return pixel_network(channels=2, classes=3)


def tune(net: PixelNet, volume: PreparedVolume) -> np.ndarray:
    """Let the network score a lesion by 10 and brain by -10, as far as a voxel is one of them.

    Returns the threshold of each channel in the normalised image.
    """
    mean, std = (np.array([row[key] for row in volume.normalization.values()])
                 for key in ("mean", "std"))
    threshold = ((BRAIN + LESION) / 2 - mean) / std
    slope = 20 * std / (LESION - BRAIN)
    set_head(net, np.array([[0, slope[0], 0], [0, 0, slope[1]]]),
             np.array([0, *(-slope * threshold)]))
    return threshold


@pytest.fixture(scope="module")
def ways(net):
    """Mode -> (segmenter, signatures) of the network, each traced once for all cases."""
    made = {}
    for name, (mode, radius) in MODES.items():
        segmenter = SliceSegmenter(net, mode=mode, smoothing=GuidedFilterConfig(radius))
        made[name] = segmenter, build_signatures(segmenter, CONFIG)[1]
    return made


def of(stored: Stored) -> Config:
    return replace(CONFIG, prepare=replace(CONFIG.prepare, slice_size=stored.slice_size),
                   prediction=replace(CONFIG.prediction, brain_only=stored.brain_only))


def by_hand(stored: Stored, image: np.ndarray, brain: np.ndarray, threshold: np.ndarray
            ) -> tuple[np.ndarray, np.ndarray]:
    """What the network must say of each voxel, (x, y, z) label values, and whether it is a tie.

    A voxel is read at the scaled pixel that holds its centre; there the image is interpolated
    between this voxel and its neighbours.
    """
    across = []
    for native in stored.size[:2]:
        scaled = native
        if stored.slice_size:
            scaled = round(native * stored.slice_size / max(stored.size[:2]))
        pixel = np.floor((np.arange(native) + 0.5) * scaled / native)
        across.append(np.clip((pixel + 0.5) * native / scaled - 0.5, 0, native - 1))
    x, y, z = np.meshgrid(*across, np.arange(stored.size[2]), indexing="ij")
    score = np.stack([ndimage.map_coordinates(image[..., c].astype(np.float64), [x, y, z], order=1)
                      - threshold[c] for c in range(2)], axis=-1)
    labels = np.where(score.max(axis=-1) > 0, np.array([1, 4])[score.argmax(axis=-1)], 0)
    tie = (np.abs(score) < 1e-3).any(axis=-1) | (np.abs(score[..., 0] - score[..., 1]) < 1e-3)
    return np.where(brain, labels, 0).astype(np.uint8), tie


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_the_same_labels_in_every_orientation_mode_and_served(stored, net, ways, tmp_path):
    config, truth = of(stored), draw(stored.size)[1]
    native = prepare_case(store(tmp_path, stored.size, ("LPS", 0)), CONFIG.study, CONFIG.prepare)
    expected, tie = by_hand(stored, native.plan.from_slices(native.images),
                            native.plan.from_slices(native.brain), tune(net, native))
    # Interpolation gives no voxel of these lesions to its neighbours; few lie on the threshold.
    assert tie.sum() <= 5
    np.testing.assert_array_equal(expected[~tie], truth[~tie])
    for way in stored.ways:
        volume = prepare_case(store(tmp_path, stored.size, way), config.study, config.prepare)
        tune(net, volume)
        for mode, (segmenter, signatures) in ways.items():
            labels = segment_volume(segmenter, volume, config.study, config.prediction).labels
            where = f"{way}, {mode}"

            def given_the_domain(images, domain, served=signatures["segment_domain"]):
                return served(images, domain)["labels"].numpy(), None

            def by_zeros(images, domain, served=signatures["serving_default"]):
                return served(images)["labels"].numpy(), None

            inside = config.prediction.inside_brain(config.study)
            for served in (given_the_domain, *([by_zeros] if inside else [])):
                remote = segment_remotely(served, volume, config.study, config.prediction).labels
                np.testing.assert_array_equal(remote, labels, f"{where}, {served.__name__}")
            wrong = (in_view(labels, way[0]) != truth) & ~tie
            assert not wrong.any(), f"{where}: {wrong.sum()} of {(truth > 0).sum()} lesion voxels"
