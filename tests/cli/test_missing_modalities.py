"""Cases that lack a modality, and a single case by its folder or its files."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.cases.layouts import find_cases, find_cases_or_one
from pixelnet_tf.errors import DataError
from pixelnet_tf.volumes.case_volume import prepare_case
from tests.main_job import run_main

MODALITIES = ("flair", "t1ce", "t2")


@pytest.fixture
def study(main_job, tmp_path) -> Path:
    """Two cases, of which the second has no t1ce."""
    for name in ("phantom_001", "phantom_002"):
        shutil.copytree(main_job / "study" / name, tmp_path / "study" / name)
    (tmp_path / "study" / "phantom_002" / "phantom_002_t1ce.nii.gz").unlink()
    return tmp_path / "study"


def files(case: Path, *modalities: str) -> list[str]:
    return [argument for name in modalities or MODALITIES
            for argument in ("--file", f"{name}={case / f'{case.name}_{name}.nii.gz'}")]


def labels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_a_case_is_segmented_without_a_modality_only_where_that_is_asked_for(main_job, study,
                                                                            tmp_path, capsys):
    predict = ("predict", "--model", main_job / "run", "--data", study, "--out", tmp_path / "p")
    assert run_main(*predict) == 3
    message = " ".join(capsys.readouterr().err.split())
    assert "phantom_002: " in message
    assert "modality 't1ce' is missing" in message
    assert "segment those that lack a modality without it by --allow-missing" in message
    assert not (tmp_path / "p").exists()
    assert run_main(*predict, "--allow-missing") == 0
    assert "phantom_002 lacks t1ce: segmented without it" in capsys.readouterr().err
    record = json.loads((tmp_path / "p" / "prediction.json").read_text())
    assert record["missing"] == {"phantom_002": ["t1ce"]}
    assert list(record["made_from"]["phantom_002"]["images"]) == ["flair", "t2"]
    # A complete case has the labels that it has without the option.
    model = px.Segmenter.from_run(main_job / "run")
    whole = study / "phantom_001"
    images = {name: whole / f"{whole.name}_{name}.nii.gz" for name in MODALITIES}
    np.testing.assert_array_equal(labels(tmp_path / "p" / "phantom_001.nii.gz"),
                                  model.predict(images).labels)
    # In memory, too.
    other = study / "phantom_002"
    two = {name: other / f"{other.name}_{name}.nii.gz" for name in ("flair", "t2")}
    with pytest.raises(DataError, match=r"'t1ce' is missing.*prediction\.allow_missing=true"):
        model.predict(two)
    allowing = px.Segmenter.from_run(main_job / "run",
                                     overrides=["prediction.allow_missing=true"])
    np.testing.assert_array_equal(labels(tmp_path / "p" / "phantom_002.nii.gz"),
                                  allowing.predict(two).labels)
    # Scores are told apart by what was missing.
    scores = px.evaluate(tmp_path / "p", main_job / "study", workers=1)
    assert scores.evaluation.about["missing_modalities"] == {"phantom_002": ["t1ce"]}
    table = scores.table()
    assert "by the modalities that are missing" in table
    row = next(line.split() for line in table.splitlines() if line.strip().startswith("t1ce"))
    assert row[1] == "1"
    for region, value in zip(scores.evaluation.regions, row[2:], strict=True):
        score = scores.evaluation.scores["phantom_002"][region]
        assert float(value) == pytest.approx(score.values["Dice"], abs=6e-4)


@pytest.mark.parametrize("lacks", [("flair",), ("t1ce",), ("flair", "t2")])
def test_a_missing_channel_is_zero_and_the_others_are_what_they_are(main_job, tmp_path, lacks):
    shutil.copytree(main_job / "study" / "phantom_001", tmp_path / "phantom_001")
    config = px.load_config("phantom", ["prepare.bias_field.enabled=false"])
    for skull_stripped in (True, False):
        study = px.load_config("phantom", [
            f"study.skull_stripped={str(skull_stripped).lower()}"]).study
        for name in lacks:
            (tmp_path / "phantom_001" / f"phantom_001_{name}.nii.gz").unlink(missing_ok=True)
        case, = find_cases(tmp_path, study)
        assert case.lacks == lacks
        with pytest.raises(DataError, match=f"modality '{lacks[0]}' is missing"):
            prepare_case(case, study, config.prepare)
        found = prepare_case(case.allowing_missing(), study, config.prepare)
        kept = [name for name in MODALITIES if name not in lacks]
        alone = px.load_config("phantom", [
            f"study.skull_stripped={str(skull_stripped).lower()}",
            f"study.modalities={kept}"]).study
        expected = prepare_case(find_cases(tmp_path, alone)[0], alone, config.prepare)
        for number, name in enumerate(MODALITIES):
            if name in lacks:
                assert not found.images[..., number].any()
            else:
                np.testing.assert_array_equal(found.images[..., number],
                                              expected.images[..., kept.index(name)])
        np.testing.assert_array_equal(found.brain, expected.brain)


def test_a_case_without_any_image_or_with_another_fault_stays_refused(main_job, tmp_path):
    case = tmp_path / "phantom_001"
    shutil.copytree(main_job / "study" / "phantom_001", case)
    for name in ("t1ce", "t2"):
        (case / f"phantom_001_{name}.nii.gz").unlink()
    shutil.copy(case / "phantom_001_flair.nii.gz", case / "phantom_001_flair.nii")
    study = px.load_config("phantom").study
    two_files, = find_cases(tmp_path, study)
    for name in ("phantom_001_flair.nii", "phantom_001_flair.nii.gz"):
        (case / name).unlink()
    none, = find_cases(tmp_path, study)
    for found in (two_files, none):
        assert found.lacks == ()
        assert found.allowing_missing().faults


def test_a_single_case_by_its_folder_and_by_its_files(main_job, tmp_path, capsys):
    case = main_job / "study" / "phantom_003"
    arguments = ("predict", "--model", main_job / "run", "--out")
    assert run_main(*arguments, tmp_path / "folder", "--data", case) == 0
    assert run_main(*arguments, tmp_path / "files", *files(case)) == 0
    assert run_main(*arguments, tmp_path / "named", *files(case), "--case", "anna") == 0
    folder, by_files, named = (labels(tmp_path / path) for path in (
        "folder/phantom_003.nii.gz", "files/phantom_003.nii.gz", "named/anna.nii.gz"))
    np.testing.assert_array_equal(folder, by_files)
    np.testing.assert_array_equal(folder, named)
    capsys.readouterr()
    assert run_main(*arguments, tmp_path / "x", *files(case, "flair", "t2")) == 3
    assert "modality 't1ce' is missing; give it by --file t1ce=FILE" in " ".join(
        capsys.readouterr().err.split())
    assert run_main(*arguments, tmp_path / "x", *files(case, "flair", "t2"), "--allow-missing",
                    "--dry-run") == 0
    assert run_main(*arguments, tmp_path / "x", "--file", "falir=a.nii.gz") == 3
    assert "did you mean 'flair'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [
    (), ("--data", "x", "--file", "flair=y"), ("--file", "flair"), ("--file", "=y"),
    ("--file", "flair=a", "--file", "flair=b"), ("--file", "flair=a", "--split", "test")])
def test_files_that_are_given_otherwise(main_job, tmp_path, arguments):
    assert run_main("predict", "--model", main_job / "run", "--out", tmp_path / "p",
                    *arguments) == 2


@pytest.mark.parametrize("layout", ["brats", "isles", "pattern", "bids"])
def test_the_folder_of_a_case_in_layouts_that_have_one(layout, main_job, tmp_path):
    source = main_job / "study" / "phantom_001" / "phantom_001_flair.nii.gz"
    place, overrides = {
        "brats": ("c1/c1_flair.nii.gz", []),
        "isles": ("c1/VSD.Brain.XX.O.MR_FLAIR.1/VSD.Brain.XX.O.MR_FLAIR.1.nii.gz", []),
        "pattern": ("c1/any.nii.gz", ["study.files={flair: any.nii.gz}"]),
        "bids": ("sub-1/anat/sub-1_FLAIR.nii.gz", []),
    }[layout]
    for number in (1, 2):
        target = tmp_path / place.replace("1/", f"{number}/", 1).replace("sub-1_",
                                                                         f"sub-{number}_").replace(
            "c1_", f"c{number}_")
        for path in (target, Path(str(target).replace("FLAIR", "T2"))):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)
    # Of several modalities, so that the folder of one volume is no case.
    modalities = "[flair, t2]" if layout == "isles" else "[flair]"
    study = px.load_config("phantom", [f"study.layout={layout}",
                                       f"study.modalities={modalities}", *overrides]).study
    name = Path(place).parts[0]
    assert [case.name for case in find_cases_or_one(tmp_path / name, study)] == [name]
    assert len(find_cases_or_one(tmp_path, study)) == 2
    with pytest.raises(DataError, match="no such folder"):
        find_cases_or_one(tmp_path / "none", study)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no case found"):
        find_cases_or_one(tmp_path / "empty", study)
