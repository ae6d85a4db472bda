"""What a case was made from changes with what changes the slices, and with nothing else."""

import os
import shutil

import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import load_config
from pixelnet_tf.dataset.fingerprint import inputs_of, preparation_of

CONFIG = load_config("phantom")


def preparation(config):
    return preparation_of(config.study, config.prepare)


@pytest.mark.parametrize("override", [
    "prepare.region=volume", "prepare.slice_size=128", "prepare.bias_field.shrink_factor=2",
    "study.skull_stripped=false", "study.resample=true", "study.modalities=[flair, t1ce]",
    "study.labels={0: background, 4: enhancing, 1: necrosis, 2: edema}"])
def test_settings_of_the_slices_count(override):
    assert preparation(CONFIG) != preparation(load_config("phantom", [override]))


@pytest.mark.parametrize("override", [
    "prepare.workers=7", "study.name=x", "training.steps=1", "split.seed=9"])
def test_other_settings_do_not(override):
    assert preparation(CONFIG) == preparation(load_config("phantom", [override]))


def test_contents_count_and_neither_name_nor_time(tmp_path):
    def inputs(flair, truth=None):
        return inputs_of([Case("A", {"flair": flair}, truth)])["A"]

    first, second = tmp_path / "a.nii", tmp_path / "b.nii"
    first.write_text("one")
    before = inputs(first)
    assert before["segmentation"] is None
    shutil.copyfile(first, second)
    os.utime(second, ns=(5, 6))
    assert inputs(second) == before
    # Changed in place: as long as before, and as old.
    second.write_text("two")
    os.utime(second, ns=(5, 6))
    assert inputs(second) != before
    assert inputs(first, second)["segmentation"] == inputs(second)["images"]["flair"]
    assert inputs(tmp_path / "gone.nii") is None
