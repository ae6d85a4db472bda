"""`pixelnet-tf predict`, and the end of the main job: evaluate."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.config import config_to_yaml, load_config
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from tests.earlier_version import copy_without_manifest
from tests.main_job import run_main


def predict(main_job, out, *more, data="prepared") -> int:
    return run_main("predict", "--model", main_job / "run", "--data", main_job / data, "--out",
                    out, *more)


def test_the_main_job_to_its_end(main_job, tmp_path, capsys):
    split = json.loads((main_job / "run" / "split.json").read_text())
    case, = split["test"]
    assert predict(main_job, tmp_path / "p", "--split", "test", "--overlays",
                   "--uncertainty") == 0
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        f"{case}.nii.gz", "prediction.json", "overlays", "uncertainty", "lesions", "lesions.tsv",
        "manifest.jsonl"}
    entropy = np.asarray(nib.load(
        tmp_path / "p" / "uncertainty" / f"{case}_entropy.nii.gz").dataobj)
    assert 0 <= entropy.min() < entropy.max() <= np.log(4) + 1e-6
    image = nib.load(tmp_path / "p" / f"{case}.nii.gz")
    tumour = np.asarray(image.dataobj) > 0
    with open(tmp_path / "p" / "lesions.tsv", newline="") as file:
        lesions = [row for row in csv.DictReader(file, delimiter="\t") if row["region"] == "WT"]
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    volumes = [float(row["volume_ml"]) for row in lesions]
    assert sum(volumes) == pytest.approx(tumour.sum() * voxel_ml, rel=1e-4)
    assert volumes == sorted(volumes, reverse=True)
    weighted = sum(float(row["mean_entropy"]) * volume
                   for row, volume in zip(lesions, volumes, strict=True)) / sum(volumes)
    assert weighted == pytest.approx(entropy[tumour].mean(), rel=1e-4)
    assert (tmp_path / "p" / "overlays" / f"{case}.png").read_bytes()[:4] == b"\x89PNG"
    assert f"pictures written to {tmp_path / 'p' / 'overlays'}" in capsys.readouterr().out
    assert run_main("evaluate", "--predictions", tmp_path / "p", "--references",
                    main_job / "study", "--out", tmp_path / "s", "--workers", 1) == 0
    with open(tmp_path / "s" / "cases.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert row["case"] == case
    # The score again, by hand.
    predicted, truth = (np.asarray(nib.load(path).dataobj) > 0 for path in (
        tmp_path / "p" / f"{case}.nii.gz", main_job / "study" / case / f"{case}_seg.nii.gz"))
    dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
    assert float(row["Dice_WT"]) == pytest.approx(dice, abs=1e-5)
    assert (tmp_path / "s" / "summary.json").is_file()
    assert "WT" in capsys.readouterr().out


def test_all_cases_raw_and_prepared_give_the_same(main_job, tmp_path):
    assert predict(main_job, tmp_path / "a") == 0
    assert predict(main_job, tmp_path / "b", data="study") == 0
    names = sorted(path.name for path in (tmp_path / "a").glob("*.nii.gz"))
    assert len(names) == 4
    for name in names:
        one, other = (nib.load(tmp_path / side / name) for side in "ab")
        assert one.header.binaryblock == other.header.binaryblock
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))


def test_the_prior_changes_the_labels_as_it_should(main_job, tmp_path):
    sizes = {}
    for prior in ("sampled", "corrected"):
        out = tmp_path / prior
        assert predict(main_job, out, "--prior", prior) == 0
        sizes[prior] = sum((np.asarray(nib.load(path).dataobj) > 0).sum()
                           for path in out.glob("*.nii.gz"))
        assert json.loads((out / "prediction.json").read_text())["prior"] == prior
    # A lesion is rarer in the image than among the sampled pixels.
    assert sizes["corrected"] < sizes["sampled"]


def test_modes_agree(main_job, tmp_path):
    volumes = {}
    for mode in ("exact", "reference", "adaptive"):
        assert predict(main_job, tmp_path / mode, "--mode", mode, "--case", "phantom_002") == 0
        volumes[mode] = np.asarray(nib.load(tmp_path / mode / "phantom_002.nii.gz").dataobj)
    assert (volumes["exact"] == volumes["reference"]).mean() > 0.9999
    assert (volumes["exact"] == volumes["adaptive"]).mean() > 0.98


def test_several_runs_are_averaged(main_job, tmp_path, capsys):
    copy_without_manifest(main_job / "run", tmp_path / "other")
    other = RunFolder(str(tmp_path / "other"))
    other.save_model(PixelNet(other.config().model, channels=3, classes=4, seed=7))
    # An average follows no decisions of a single network.
    asked = ("--split", "test", "--probabilities", "--set", "prediction.decisions=ignore")
    runs = {"one": [main_job / "run"], "other": [tmp_path / "other"],
            "both": [main_job / "run", tmp_path / "other"]}
    logs = {}
    for name, models in runs.items():
        chosen = [argument for model in models for argument in ("--model", model)]
        assert run_main("predict", *chosen, "--data", main_job / "prepared", "--out",
                        tmp_path / name, *asked) == 0
        path, = (tmp_path / name / "probabilities").iterdir()
        logs[name] = np.log(np.asarray(nib.load(path).dataobj, np.float64) + 1e-12)
    mean = np.exp((logs["one"] + logs["other"]) / 2)
    mean /= mean.sum(axis=-1, keepdims=True)
    assert np.abs(logs["one"] - logs["other"]).max() > 0.01
    np.testing.assert_allclose(np.exp(logs["both"]), mean, atol=1e-4)
    about = json.loads((tmp_path / "both" / "prediction.json").read_text())
    assert [network["model"] for network in about["networks"]] == [
        str(model) for model in runs["both"]]


@pytest.mark.parametrize(("name", "change", "words"), [
    ("config.yaml", ("region: brain", "region: volume"), "has prepare.region='volume'"),
    ("config.yaml", ("t1ce, t2]", "t1, t2]"), "has study.modalities="),
    ("split.json", ("phantom_001", "phantom_009"), "has split.validation="),
])
def test_runs_that_cannot_be_averaged(main_job, tmp_path, capsys, name, change, words):
    copy_without_manifest(main_job / "run", tmp_path / "other")
    file = tmp_path / "other" / name
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    assert predict(main_job, tmp_path / "p", "--model", tmp_path / "other", "--split",
                   "test") == 2
    message = capsys.readouterr().err
    assert words in message
    assert str(tmp_path / "other") in message
    assert not (tmp_path / "p").exists()


def test_raw_images_in_another_layout_by_config(main_job, tmp_path, capsys):
    assert predict(main_job, tmp_path / "a", "--case", "phantom_002") == 0
    patient = tmp_path / "clinic" / "patient_x"
    patient.mkdir(parents=True)
    for modality in ("flair", "t1ce", "t2"):
        shutil.copy(main_job / "study" / "phantom_002" / f"phantom_002_{modality}.nii.gz",
                    patient / f"{modality}_scan.nii.gz")
    config = tmp_path / "clinic.yaml"
    config.write_text("study: {layout: pattern, files: {flair: flair_scan.nii.gz, "
                      "t1ce: t1ce_scan.nii.gz, t2: t2_scan.nii.gz}}\n")
    asked = ("predict", "--model", main_job / "run", "--data", tmp_path / "clinic", "--out",
             tmp_path / "b", "--config", config)
    assert run_main(*asked) == 0
    one, other = (np.asarray(nib.load(path).dataobj) for path in (
        tmp_path / "a" / "phantom_002.nii.gz", tmp_path / "b" / "patient_x.nii.gz"))
    np.testing.assert_array_equal(one, other)
    config.write_text("study: {modalities: [t2, flair, t1ce]}\n")
    assert run_main(*asked) == 2
    assert "but the model was trained with" in capsys.readouterr().err


def test_probabilities_and_dry_run(main_job, tmp_path, capsys):
    assert predict(main_job, tmp_path / "p", "--dry-run", "--case", "phantom_001") == 0
    assert "1 cases would be segmented (phantom_001), 0 kept" in capsys.readouterr().out
    assert not (tmp_path / "p").exists()
    assert predict(main_job, tmp_path / "p", "--probabilities", "--case", "phantom_001") == 0
    maps = nib.load(tmp_path / "p" / "probabilities" / "phantom_001.nii.gz")
    assert maps.shape == (30, 28, 16, 4)


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["--case", "phantom_9"], 3, "no case 'phantom_9' (did you mean"),
    (["--set", "prediction.modee=exact"], 2, "did you mean 'mode'?"),
    (["--set", "prediction.prior=real"], 2, "'sampled', 'corrected', 'fitted'"),
    (["--split", "nothing"], 2, "'nothing' is not one of"),
])
def test_exit_codes(main_job, tmp_path, capsys, arguments, code, words):
    assert predict(main_job, tmp_path / "p", *arguments) == code
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message


def test_models_that_are_none(main_job, tmp_path, capsys):
    for model in (tmp_path / "nowhere", main_job / "study"):
        assert run_main("predict", "--model", model, "--data", main_job / "prepared", "--out",
                        tmp_path / "p") == 4
        assert str(model) in capsys.readouterr().err
    copy_without_manifest(main_job / "run", tmp_path / "run")
    asked = ("predict", "--model", tmp_path / "run", "--data", main_job / "prepared", "--out",
             tmp_path / "p")
    for words in ("cannot be loaded as a model", "no such model"):
        (tmp_path / "run" / "model.keras").write_bytes(b"nothing")
        if words == "no such model":
            (tmp_path / "run" / "model.keras").unlink()
        for more in ((), ("--dry-run",)):
            assert run_main(*asked, *more) == 4
            assert words in capsys.readouterr().err


def test_what_is_asked_for_later_is_made_later(main_job, tmp_path, capsys):
    """Finished cases have no picture yet; a folder that is named is there."""
    asked = ("--case", "phantom_001")
    assert predict(main_job, tmp_path / "p", *asked) == 0
    assert predict(main_job, tmp_path / "p", *asked, "--overlays") == 0
    printed = capsys.readouterr()
    assert "1 finished cases are kept" in printed.err
    assert f"pictures written to {tmp_path / 'p' / 'overlays'}" in printed.out
    assert (tmp_path / "p" / "overlays" / "phantom_001.png").is_file()


def test_training_cases_are_said(main_job, tmp_path, capsys):
    assert predict(main_job, tmp_path / "p", "--dry-run") == 0
    assert "trained on, or chosen by, 3 of the 4 cases" in " ".join(
        capsys.readouterr().err.split())
    assert predict(main_job, tmp_path / "p", "--dry-run", "--split", "test") == 0
    assert "trained on" not in capsys.readouterr().err


def test_bad_cases_stop_predict_or_are_left_out(main_job, tmp_path, capsys):
    study = tmp_path / "study"
    for case in ("phantom_001", "phantom_002"):
        shutil.copytree(main_job / "study" / case, study / case)
    (study / "phantom_002" / "phantom_002_t2.nii.gz").unlink()
    asked = ("predict", "--model", main_job / "run", "--data", study, "--out", tmp_path / "p")
    for more in ((), ("--dry-run",)):
        assert run_main(*asked, *more) == 3
        assert "phantom_002: modality 't2' is missing" in capsys.readouterr().err
        assert not (tmp_path / "p").exists()
    assert run_main(*asked, "--skip-bad-cases") == 0
    assert "warning: left out phantom_002" in capsys.readouterr().err
    assert run_main("predict", "--model", main_job / "run", "--data", study, "--out",
                    study / "predictions") == 2
    assert "lies within" in capsys.readouterr().err


def test_a_case_of_another_part_than_the_asked_one(main_job, tmp_path, capsys):
    split = json.loads((main_job / "run" / "split.json").read_text())
    trained, tested = split["train"][0], split["test"][0]
    asked = ("--split", "test", "--dry-run", "--case")
    assert predict(main_job, tmp_path / "p", *asked, tested) == 0
    assert f"1 cases would be segmented ({tested})" in capsys.readouterr().out
    assert predict(main_job, tmp_path / "p", *asked, trained) == 2
    assert f"{trained!r} is in the part 'train'" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["prepare.region=volume", "prepare.slice_size=64",
                                     "prepare.bias_field.enabled=true",
                                     "study.skull_stripped=false"])
def test_a_study_prepared_in_another_way_is_refused(main_job, tmp_path, capsys, setting):
    copy_without_manifest(main_job / "prepared", tmp_path / "prepared")
    config = load_config(tmp_path / "prepared" / "config.yaml", [setting])
    (tmp_path / "prepared" / "config.yaml").write_text(config_to_yaml(config))
    asked = ("predict", "--model", main_job / "run", "--data", tmp_path / "prepared", "--out",
             tmp_path / "p", "--dry-run")
    assert run_main(*asked) == 3
    assert f"has {setting.split('=')[0]}=" in capsys.readouterr().err
    if setting == "prepare.region=volume":
        # Who knows that the model's images were prepared so may say it.
        assert run_main(*asked, "--set", setting) == 0
