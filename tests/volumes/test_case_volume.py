"""One case from its files to slices."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import BiasFieldConfig, Config, PrepareConfig, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.reporting import LogReporter
from pixelnet_tf.volumes import case_volume
from pixelnet_tf.volumes.case_volume import prepare_case, prepare_volumes
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.phantom_study import write_phantom
from pixelnet_tf.volumes.raw_volume import RawVolume

STUDY = StudyConfig(modalities=("flair", "t2"))
PLAIN = Config(study=STUDY, prepare=PrepareConfig(bias_field=BiasFieldConfig(enabled=False)))


class Heard(LogReporter):
    """Keeps what it hears of progress."""

    def __init__(self):
        self.steps = []

    def progress(self, task, done, total, detail=""):
        self.steps.append((task, done, total, detail))


@pytest.fixture
def case(tmp_path, save, ball) -> Case:
    labels = np.zeros(ball.shape, np.float32)
    labels[12, 14, 6] = 4
    return Case("A", {"flair": save(tmp_path / "f.nii.gz", ball),
                      "t2": save(tmp_path / "t2.nii.gz", (3 * ball).astype(np.int16))},
                save(tmp_path / "seg.nii.gz", labels))


def prepared(case, config=PLAIN):
    return prepare_case(case, config.study, config.prepare)


def test_slices_of_normalised_channels(case, ball):
    volume = prepared(case)
    assert volume.images.shape == (12, 24, 24, 2)
    assert volume.images.dtype == np.float32
    assert volume.labels.dtype == np.uint8
    assert volume.labels[6, 14, 12] == 3
    assert volume.labels.sum() == 3
    np.testing.assert_array_equal(volume.plan.from_slices(volume.brain), ball > 0)
    inside = volume.images[volume.brain]
    np.testing.assert_allclose(inside.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inside.std(0), 1, atol=1e-5)
    assert not volume.images[~volume.brain].any()
    assert list(volume.normalization) == ["flair", "t2"]
    assert volume.normalization["flair"]["mean"] == pytest.approx(ball[ball > 0].mean(), rel=1e-6)
    assert volume.geometry.shape == ball.shape


def test_the_isles_rule_keeps_the_background_at_zero(case):
    config = dataclasses.replace(PLAIN, prepare=dataclasses.replace(PLAIN.prepare, slice_size=40))
    native, volume = prepared(case), prepared(case, config)
    assert volume.images.shape == (12, 40, 40, 2)
    assert not volume.images[~volume.brain].any()
    np.testing.assert_array_equal(volume.plan.from_slices(volume.labels),
                                  native.plan.from_slices(native.labels))


def test_without_segmentation(case):
    assert prepared(dataclasses.replace(case, segmentation=None)).labels is None


def test_bias_field_of_chosen_modalities(case):
    prepare = PrepareConfig(bias_field=BiasFieldConfig(iterations=(2,), modalities=("t2",)))
    plain = prepared(case).images
    corrected = prepared(case, dataclasses.replace(PLAIN, prepare=prepare)).images
    np.testing.assert_array_equal(corrected[..., 0], plain[..., 0])
    assert (corrected[..., 1] != plain[..., 1]).any()


def test_channels_side_by_side_come_out_as_one_after_the_other(case, monkeypatch):
    config = Config(study=STUDY, prepare=PrepareConfig(bias_field=BiasFieldConfig(iterations=(5,))))
    found = []
    for cores in (1, 2):
        monkeypatch.setattr(case_volume, "own_cores", lambda cores=cores: cores)
        heard = Heard()
        found.append(prepare_case(case, config.study, config.prepare, heard))
        assert heard.steps == [("correcting", 0, 2, "flair"), ("correcting", 1, 2, "t2")]
    assert found[0].images.tobytes() == found[1].images.tobytes()
    assert found[0].normalization == found[1].normalization


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
@pytest.mark.parametrize("settings", [
    [], ["study.skull_stripped=false"]], ids=["brain", "head"])
def test_no_case_takes_more_memory_than_is_said(settings, tmp_path):
    """In a process of its own, since the peak is that of the whole process."""
    code = """if True:
        import sys
        from pathlib import Path
        from pixelnet_tf.cases.layouts import find_cases
        from pixelnet_tf.config import load_config
        from pixelnet_tf.dataset.encode import encode_case
        from pixelnet_tf.volumes.case_volume import PROGRAM_BYTES, memory_to_prepare
        from pixelnet_tf.volumes.raw_volume import geometry_of
        import pixelnet_tf.dataset.encode, pixelnet_tf.volumes.case_volume

        def peak():
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * next(int(each.split()[1]) for each in lines if "VmHWM" in each)

        for module in (pixelnet_tf.dataset.encode, pixelnet_tf.volumes.case_volume):
            module.own_cores = lambda: 2
        config = load_config("phantom", ["prepare.bias_field.iterations=[1]", *sys.argv[2:]])
        case = find_cases(Path(sys.argv[1]), config.study)[0]
        bound = PROGRAM_BYTES + memory_to_prepare(
            geometry_of(case.files[0]), config.study, config.prepare, cores=2)
        encode_case(case, config.study, config.prepare)
        print(peak(), bound)
    """
    write_phantom(tmp_path, 1, 0, size=(128, 128, 64))
    done = subprocess.run([sys.executable, "-c", code, tmp_path, *settings], check=True,
                          capture_output=True, text=True)
    taken, bound = map(int, done.stdout.split())
    assert bound / 3 < taken < bound


def test_a_case_that_itk_does_nothing_for_is_prepared_without_it(tmp_path):
    """It takes 0.1 GB of memory, in every process that segments prepared volumes, too."""
    code = """if True:
        import sys
        from pixelnet_tf.cases.layouts import find_cases
        from pixelnet_tf.config import load_config
        from pixelnet_tf.volumes.case_volume import prepare_case
        case = find_cases(sys.argv[1], load_config("phantom").study)[0]
        for enabled in ("false", "true"):
            config = load_config("phantom", [f"prepare.bias_field.enabled={enabled}"])
            prepare_case(case, config.study, config.prepare)
            print("SimpleITK" in sys.modules)
    """
    write_phantom(tmp_path, 1, 0, size=(32, 32, 8))
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=True,
                          capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"]


def test_another_grid_is_an_error_or_resampled(case, tmp_path, save, ball):
    moved = np.diag([-1.0, -1, 1, 1])
    moved[2, 3] = 1
    other = dataclasses.replace(case, volumes={
        **case.volumes, "t2": save(tmp_path / "moved.nii", 3 * ball, moved)})
    with pytest.raises(DataError, match=r"case A: .*moved\.nii.*affine.*study\.resample"):
        prepared(other)
    config = dataclasses.replace(PLAIN, study=dataclasses.replace(STUDY, resample=True))
    volume = prepared(other, config)
    # One slice up in the scanner is one slice later on the first modality's grid.
    mean, std = volume.normalization["t2"].values()
    column = volume.plan.from_slices(volume.images)[12, 12, 3:10, 1]
    np.testing.assert_allclose(column * std + mean, 3 * ball[12, 12, 2:9], rtol=1e-5)


def test_missing_modality_names_the_case(case):
    with pytest.raises(DataError, match=r"case A: modality 't2' is missing.*\['flair'\]"):
        prepared(dataclasses.replace(case, volumes={"flair": case.volumes["flair"]}))


@pytest.mark.parametrize("shape", [(40, 36, 1), (1, 40, 36)])
def test_a_volume_of_one_slice_is_corrected_in_the_plane(shape):
    rng = np.random.default_rng(0)
    array = rng.uniform(80, 120, shape).astype(np.float32)
    volume = RawVolume(array, VolumeGeometry.of(shape, np.diag([-1.0, -1, 5, 1])), "one slice")
    config = dataclasses.replace(PLAIN, prepare=PrepareConfig(bias_field=BiasFieldConfig(
        iterations=(4, 4))))
    prepared = prepare_volumes("A", dict.fromkeys(STUDY.modalities, lambda: volume),
                               config.study, config.prepare)
    assert np.isfinite(prepared.images).all()
    assert prepared.images.std() == pytest.approx(1, abs=1e-3)


def test_a_case_at_fault_says_its_own_fault(case):
    bad = dataclasses.replace(case, faults=(
        DataError("flair: 2 files fit, ['a.nii', 'b.nii']"),))
    with pytest.raises(DataError, match="case A: flair: 2 files fit"):
        prepared(bad)


@pytest.mark.parametrize(("change", "words"), [
    (lambda array: np.where(array > 0, np.nan, array), "voxels are NaN"),
    (lambda array: np.full_like(array, 5), "every voxel is 5"),
])
def test_what_the_checks_refuse_is_never_prepared(case, tmp_path, save, ball, change, words):
    path = save(tmp_path / "bad.nii", change(ball).astype(np.float32))
    for modality in STUDY.modalities:
        bad = dataclasses.replace(case, volumes={**case.volumes, modality: path})
        with pytest.raises(DataError, match=rf"case A: .*bad\.nii: .*{words}"):
            prepared(bad)


def test_an_unknown_label_is_named_with_its_file(case, tmp_path, save, ball):
    path = save(tmp_path / "three.nii", (3 * (ball > 0)).astype(np.uint8))
    with pytest.raises(DataError, match=r"case A: .*three\.nii: unknown label 3;"):
        prepared(dataclasses.replace(case, segmentation=path))
