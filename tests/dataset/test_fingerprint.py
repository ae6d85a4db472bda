"""The fingerprint changes with what changes the slices, and with nothing else."""

import os

import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import load_config
from pixelnet_tf.dataset.fingerprint import fingerprint

CONFIG = load_config("phantom")


@pytest.fixture
def case(tmp_path) -> Case:
    (tmp_path / "a.nii").write_text("one")
    os.utime(tmp_path / "a.nii", ns=(5, 5))
    return Case("A", {"flair": tmp_path / "a.nii"})


@pytest.mark.parametrize("override", [
    "prepare.region=volume", "prepare.slice_size=128", "prepare.bias_field.shrink_factor=2",
    "study.skull_stripped=false", "study.resample=true", "study.modalities=[flair, t1ce]"])
def test_settings_of_the_slices_count(case, override):
    assert fingerprint(case, CONFIG, 1) != fingerprint(case, load_config("phantom", [override]), 1)


@pytest.mark.parametrize("override", [
    "prepare.workers=7", "study.name=x", "training.steps=1", "split.seed=9"])
def test_other_settings_do_not(case, override):
    assert fingerprint(case, CONFIG, 1) == fingerprint(case, load_config("phantom", [override]), 1)


def test_files_and_the_record_format_count(case):
    path, before = case.volumes["flair"], fingerprint(case, CONFIG, 1)
    assert before == fingerprint(case, CONFIG, 1) != fingerprint(case, CONFIG, 2)
    os.utime(path, ns=(5, 6))
    changed = fingerprint(case, CONFIG, 1)
    path.write_text("longer")
    os.utime(path, ns=(5, 6))
    assert len({before, changed, fingerprint(case, CONFIG, 1)}) == 3
