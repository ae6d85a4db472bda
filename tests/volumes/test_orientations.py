"""One case stored in all 48 orientations gives the same slices.

A file may store its axes in any order and direction; nibabel's orientation functions, which the
product's own views are not made by here, write the same scan in each of them.
"""

import itertools
from functools import cache

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cases.phantom import draw_brats_case
from pixelnet_tf.config import BiasFieldConfig, Config, PrepareConfig, StudyConfig
from pixelnet_tf.volumes.case_volume import PreparedVolume, prepare_volumes
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.raw_volume import RawVolume

CODES = ["".join(axes[i] for axes, i in zip(chosen, picks, strict=True))
         for chosen in itertools.permutations(("LR", "PA", "IS"))
         for picks in itertools.product((0, 1), repeat=3)]
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ np.diag([-1.0, -1.2, 3.0]), [60, 70, -40])
#: The phantom's own axes run to the left, to the back and up.
AFFINES = {"plain": np.diag([-1.0, -1.0, 1.0, 1.0]), "thick": np.diag([-0.8, -0.8, 5.0, 1.0]),
           "oblique": OBLIQUE,
           # Two axes of the file are as near to the patient's back as upwards.
           "diagonal": nib.affines.from_matvec(nib.eulerangles.euler2mat(0, 0, np.pi / 4)
                                               @ np.diag([-1.0, -1.2, 3.0]), [60, 70, -40])}


@cache
def phantom(skull_stripped: bool) -> dict[str, np.ndarray]:
    case = draw_brats_case(3, 0, (44, 40, 20))
    arrays = {name: case.volumes[name].astype(np.float32) for name in ("flair", "t2")}
    if not skull_stripped:
        # A head on noisy air, brighter at its rim.
        noise = np.random.default_rng(0).uniform(1, 4, case.labels.shape).astype(np.float32)
        arrays = {name: array + noise for name, array in arrays.items()}
    return {**arrays, "seg": case.labels.astype(np.float32)}


def stored(array: np.ndarray, affine: np.ndarray, code: str, source: str) -> RawVolume:
    """The scan as a file in this orientation holds it."""
    image = nib.Nifti1Image(array, affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(code)))
    # A file keeps its affine in single precision.
    return RawVolume(np.asarray(turned.dataobj, np.float32),
                     VolumeGeometry.of(turned.shape, np.float32(turned.affine)), source)


def prepare(code: str, affine: str, config: Config, other: str | None = None,
            shift: float = 0) -> PreparedVolume:
    """Prepare the scan in one orientation; `other` is that of the second modality and the truth,
    which lie `shift` voxels further along every axis."""
    arrays = phantom(config.study.skull_stripped)
    moved = AFFINES[affine] @ nib.affines.from_matvec(np.eye(3), [shift] * 3)
    volumes = {name: stored(array, AFFINES[affine], code, name) if name == "flair" else
               stored(array, moved, other or code, name) for name, array in arrays.items()}
    return prepare_volumes("A", {name: (lambda name=name: volumes[name])
                                 for name in ("flair", "t2")}, config.study,
                           config.prepare, lambda: volumes["seg"])


def config_of(skull_stripped: bool = True, resample: bool = False, n4: bool = False,
              **prepare_fields) -> Config:
    field = BiasFieldConfig(enabled=n4, iterations=(3, 3), shrink_factor=2)
    return Config(study=StudyConfig(modalities=("flair", "t2"), skull_stripped=skull_stripped,
                                    resample=resample),
                  prepare=PrepareConfig(bias_field=field, **prepare_fields))


CONFIGS = {
    "brain": config_of(), "core": config_of(skull_stripped=False, region="core"),
    "volume": config_of(region="volume"), "scaled": config_of(slice_size=61),
    "n4": config_of(n4=True), "permuted": config_of(resample=True),
}


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("kind", CONFIGS)
def test_all_orientations_give_the_same_slices(kind, affine):
    config = CONFIGS[kind]
    first = prepare("LPS", affine, config)
    assert first.labels.any()
    # N4 takes its time: every orientation of the axes once, in both directions somewhere.
    codes = CODES[::5] if kind == "n4" else CODES
    assert len(set(CODES)) == 48
    for number, code in enumerate(codes):
        other = CODES[(7 * number + 5) % 48] if kind == "permuted" else None
        volume = prepare(code, affine, config, other)
        np.testing.assert_array_equal(volume.brain, first.brain, err_msg=code)
        np.testing.assert_array_equal(volume.labels, first.labels, err_msg=code)
        np.testing.assert_allclose(volume.images, first.images, rtol=0, atol=1e-5, err_msg=code)
        for modality, numbers in volume.normalization.items():
            for key, value in numbers.items():
                assert value == pytest.approx(first.normalization[modality][key], rel=1e-5), code
        # Labels go back to the file's own axes, whatever they are.
        truth = stored(phantom(config.study.skull_stripped)["seg"], AFFINES[affine], code, "seg")
        back = volume.plan.from_slices(volume.labels)
        np.testing.assert_array_equal(back, np.searchsorted([0, 1, 2, 4], truth.array),
                                      err_msg=code)


@pytest.mark.parametrize("affine", AFFINES)
def test_interpolation_does_not_depend_on_the_order_either(affine):
    """Half a voxel apart, every nearest voxel is a tie; the affines differ in their last digits."""
    config = config_of(resample=True)
    first = prepare("LPS", affine, config, "LPS", shift=0.5)
    for number, code in enumerate(CODES[::3]):
        volume = prepare(code, affine, config, CODES[(7 * number + 5) % 48], shift=0.5)
        np.testing.assert_array_equal(volume.brain, first.brain, err_msg=code)
        np.testing.assert_array_equal(volume.labels, first.labels, err_msg=code)
        np.testing.assert_allclose(volume.images, first.images, rtol=0, atol=1e-4, err_msg=code)
        for modality, numbers in volume.normalization.items():
            assert list(numbers.values()) == pytest.approx(
                list(first.normalization[modality].values()), rel=1e-5), code
