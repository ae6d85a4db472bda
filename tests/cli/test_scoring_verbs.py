"""evaluate, compare, submit and report by the command line: files, messages, exit codes."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from pixelnet_tf.cli import main
from pixelnet_tf.config import config_to_dict, config_to_yaml, load_config


def _write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1])), path)


@pytest.fixture
def folders(tmp_path):
    """A BraTS study of two cases, and predictions `good` and `poor`."""
    labels = np.zeros((12, 12, 6), np.uint8)
    labels[3:9, 3:9, 1:5], labels[4:8, 4:8, 2:4], labels[5:7, 5:7, 2:4] = 2, 4, 1
    for case in ("p1", "p2"):
        _write(tmp_path / "study" / case / f"{case}_seg.nii.gz", labels)
        for modality in ("flair", "t1ce", "t2"):
            _write(tmp_path / "study" / case / f"{case}_{modality}.nii.gz",
                   (labels + 10).astype(np.int16))
        _write(tmp_path / "good" / f"{case}.nii.gz", labels)
        _write(tmp_path / "poor" / f"{case}.nii.gz", np.roll(labels, 1, axis=0))
    return tmp_path


def _run(*arguments) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    return left.value.code


def _evaluate(folders, name, *more) -> int:
    return _run("evaluate", "--predictions", folders / name, "--references", folders / "study",
                "--out", folders / f"{name}_scores", "--workers", 1, *more)


def test_evaluate_loads_only_what_it_needs(folders):
    code = ("import sys\nfrom pixelnet_tf.cli import main\ntry:\n    main(sys.argv[1:])\n"
            "except SystemExit as end:\n    assert end.code == 0\n"
            "print({'tensorflow', 'SimpleITK', 'pandas', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "--predictions", folders / "good", "--references",
         folders / "study", "--out", folders / "scores", "--workers", "1"],
        check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_evaluate_writes_summary_and_csv(folders, capsys):
    assert _evaluate(folders, "poor") == 0
    printed = capsys.readouterr().out
    assert "hausdorff95_pooled" in printed
    summary = json.loads((folders / "poor_scores" / "summary.json").read_text())
    rows = list(csv.DictReader((folders / "poor_scores" / "cases.csv").open()))
    # Edema to edema: 6x6x4 boxes shifted by one voxel share 5/6.
    assert float(rows[0]["Dice_WT"]) == pytest.approx(5 / 6, rel=1e-5)
    assert summary["scores"]["WT"]["Dice"]["mean"] == pytest.approx(5 / 6)
    assert summary["scores"]["WT"]["Hausdorff95"]["n"] == 2
    assert [row["case"] for row in rows][:3] == ["p1", "p2", "Mean"]


def test_evaluate_by_isles_and_by_another_hausdorff95(folders, capsys):
    assert _evaluate(folders, "poor", "--protocol", "isles") == 0
    summary = json.loads((folders / "poor_scores" / "summary.json").read_text())
    assert list(summary["scores"]) == ["lesion"]
    assert summary["scores"]["lesion"]["Recall"]["mean"] == pytest.approx(5 / 6)
    assert _evaluate(folders, "poor", "--hausdorff95", "directed", "--overwrite") == 0
    assert "hausdorff95_directed:" in (folders / "poor_scores" / "summary.json").read_text()
    # It took no part in ISLES' scores.
    assert _evaluate(folders, "poor", "--protocol", "isles", "--hausdorff95", "directed",
                     "--overwrite") == 2
    assert "--hausdorff95 directed is for the brats protocol" in capsys.readouterr().err


def test_evaluate_takes_labels_and_regions_from_prediction_json(folders):
    config = load_config(None, ["study.labels={0: background, 1: a, 2: b, 4: c}",
                                "study.regions={everything: [1, 2, 4]}"])
    # JSON turns label values into strings.
    (folders / "good" / "prediction.json").write_text(json.dumps(
        {"config": config_to_dict(config), "cases": ["p1"]}))
    (folders / "good" / "p2.nii.gz").unlink()
    assert _evaluate(folders, "good") == 0
    summary = json.loads((folders / "good_scores" / "summary.json").read_text())
    assert list(summary["scores"]) == ["everything"]
    assert summary["cases"] == 1
    assert _evaluate(folders, "good", "--overwrite", "--set", "study.regions={c: [4]}") == 0
    summary = json.loads((folders / "good_scores" / "summary.json").read_text())
    assert list(summary["scores"]) == ["c"]


def test_a_place_that_cannot_be_written_is_told_before_the_scoring(folders, capsys, monkeypatch):
    """A file in the way, or no permission; of a folder and of a file that a verb writes."""
    monkeypatch.setattr("pixelnet_tf.api.scoring.FolderScoring.__init__", None)
    (folders / "file").write_text("")
    (folders / "closed").mkdir()
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("closed")
                        and access(path, mode))
    for place, words in ((folders / "file" / "scores", "is no folder"),
                         (folders / "closed" / "a" / "b", "is not open for writing")):
        for verb in (("evaluate", "--predictions", folders / "good", "--references",
                      folders / "study", "--out", place),
                     ("plan", folders / "study", "--out", place / "plan.yaml"),
                     ("run", folders / "study", place),
                     ("prepare", "--config", "brats2017", "--data", folders / "study", "--out",
                      place)):
            assert _run(*verb) == 5, verb
            said = " ".join(capsys.readouterr().err.split())
            assert words in said
            assert "--out" in said
    assert not any((folders / "closed").iterdir())


def test_a_mask_of_bids_is_scored_whatever_the_value_of_its_label_is(folders):
    """A mask holds 0 and 1; the study's label is 255 here."""
    for path in (folders / "study").rglob("*_seg.nii.gz"):
        _write(path, np.where(np.asarray(nib.load(path).dataobj) > 0, 255, 0).astype(np.uint8))
    files = {}
    for case in ("p1", "p2"):
        array = np.asarray(nib.load(folders / "good" / f"{case}.nii.gz").dataobj) > 0
        (folders / "good" / f"{case}.nii.gz").unlink()
        files[case] = f"sub-{case}/anat/sub-{case}_mask.nii.gz"
        _write(folders / "good" / files[case], np.roll(array, 1, axis=0).astype(np.uint8))
    config = load_config(None, ["study.labels={0: background, 255: lesion}",
                                "study.regions={lesion: [255]}"])
    (folders / "good" / "prediction.json").write_text(json.dumps(
        {"config": config_to_dict(config), "cases": ["p1", "p2"], "files": files}))
    assert _evaluate(folders, "good") == 0
    summary = json.loads((folders / "good_scores" / "summary.json").read_text())
    assert summary["scores"]["lesion"]["Dice"]["mean"] == pytest.approx(5 / 6)


def test_evaluate_does_not_overwrite_the_scores_of_something_else(folders, capsys):
    assert _evaluate(folders, "poor") == 0
    before = (folders / "poor_scores" / "summary.json").read_bytes()
    # The same again is the same result.
    assert _evaluate(folders, "poor") == 0
    assert (folders / "poor_scores" / "summary.json").read_bytes() == before
    asked = ("evaluate", "--predictions", folders / "good", "--references", folders / "study",
             "--out", folders / "poor_scores", "--workers", 1)
    capsys.readouterr()
    for more, words in (((), "of other files (p1, p2)"), (("--dry-run",), "of other files"),
                        (("--protocol", "isles"), "of other files (p1, p2) and by other rules")):
        assert _run(*asked, *more) == 3
        assert words in capsys.readouterr().err
        assert (folders / "poor_scores" / "summary.json").read_bytes() == before
    assert _run(*asked, "--overwrite") == 0
    assert (folders / "poor_scores" / "summary.json").read_bytes() != before


def test_evaluate_into_a_study_that_holds_predictions(folders, capsys):
    """They are scored against the truth in the cases' folders, and not against themselves."""
    for case in ("p1", "p2"):
        (folders / "study" / f"{case}.nii.gz").write_bytes(
            (folders / "poor" / f"{case}.nii.gz").read_bytes())
    assert _run("evaluate", "--predictions", folders / "study", "--references", folders / "study",
                "--out", folders / "s", "--workers", 1) == 0
    summary = json.loads((folders / "s" / "summary.json").read_text())
    assert summary["scores"]["WT"]["Dice"]["mean"] == pytest.approx(5 / 6)
    assert _run("evaluate", "--predictions", folders / "good", "--references", folders / "good",
                "--out", folders / "t", "--workers", 1) == 3
    assert "is both the prediction and the reference" in capsys.readouterr().err


def test_evaluate_of_a_mask_asks_what_its_labels_are(folders, capsys):
    for name in ("study", "good"):
        for path in (folders / name).rglob("*.nii.gz"):
            if name == "good" or path.name.endswith("_seg.nii.gz"):
                array = np.asarray(nib.load(path).dataobj)
                _write(path, (array > 0).astype(np.uint8))
    for more in ((), ("--dry-run",)):
        assert _evaluate(folders, "good", *more) == 2
        assert "hold the labels [0, 1] alone" in capsys.readouterr().err
        assert not (folders / "good_scores").exists()
    mask = ("--set", "study.labels={0: background, 1: lesion}",
            "--set", "study.regions={lesion: [1]}")
    assert _evaluate(folders, "good", *mask) == 0
    assert "region" not in capsys.readouterr().err
    # Whoever names BraTS' labels is believed, and told what is not there.
    assert _evaluate(folders, "good", "--overwrite", "--config", "brats2017") == 0
    assert "warning: region ET (labels [4]) is empty in every reference" in " ".join(
        capsys.readouterr().err.split())


def test_evaluate_and_compare_name_training_cases(folders, capsys):
    (folders / "good" / "prediction.json").write_text(json.dumps(
        {"cases": ["p1", "p2"], "trained_on": ["p2"], "prior": "sampled", "mode": "exact",
         "networks": [{"model": "r", "weights": "w", "correction": []}]}))
    assert _evaluate(folders, "good") == 0
    assert "trained on, or chosen by, 1 of the 2 cases" in capsys.readouterr().out
    summary = json.loads((folders / "good_scores" / "summary.json").read_text())
    assert summary["trained_on"] == ["p2"]
    assert summary["predicted_by"] == {"networks": ["w"], "prior": "sampled", "mode": "exact"}
    assert _evaluate(folders, "poor") == 0
    capsys.readouterr()
    assert _run("compare", folders / "good_scores", folders / "poor_scores", "--single") == 0
    printed = capsys.readouterr().out
    assert "The network of good_scores was trained on" in printed
    assert "The network of poor_scores" not in printed
    # Every model's own table says whose it is.
    for name in ("good_scores", "poor_scores"):
        assert f"Mean scores of {name}, 2 cases" in printed
        assert f"Scores of {name} by the brats protocol" in printed


def test_runs_scored_against_other_references_are_not_compared(folders, capsys):
    assert _evaluate(folders, "good") == 0
    path = folders / "study" / "p2" / "p2_seg.nii.gz"
    _write(path, np.roll(np.asarray(nib.load(path).dataobj), 2, axis=1))
    assert _evaluate(folders, "poor") == 0
    assert _run("compare", folders / "good_scores", folders / "poor_scores") == 3
    assert "'p2', were scored against other references" in capsys.readouterr().err


def test_evaluate_dry_run_writes_nothing(folders, capsys):
    assert _evaluate(folders, "good", "--dry-run") == 0
    assert "would score 2 cases" in capsys.readouterr().out
    assert not (folders / "good_scores").exists()


def test_evaluate_refuses_a_missing_case_unless_told(folders, capsys):
    (folders / "good" / "p2.nii.gz").unlink()
    assert _evaluate(folders, "good") == 3
    assert "without a prediction:\n  p2" in capsys.readouterr().err
    assert not (folders / "good_scores").exists()
    assert _evaluate(folders, "good", "--allow-missing") == 0
    summary = json.loads((folders / "good_scores" / "summary.json").read_text())
    assert summary["without_prediction"] == ["p2"]


def _float(folder):
    image = nib.load(folder / "p2.nii.gz")
    _write(folder / "p2.nii.gz", np.asarray(image.dataobj).astype(np.float32))


def _label(folder):
    _write(folder / "p2.nii.gz", np.full((12, 12, 6), 3, np.uint8))


def _grid(folder):
    _write(folder / "p2.nii.gz", np.zeros((12, 12, 5), np.uint8))


def _twice(folder):
    _write(folder / "p2.nii", np.zeros((12, 12, 6), np.uint8))


def _missing(folder):
    (folder / "p2.nii.gz").unlink()


@pytest.mark.parametrize("spoil", [_float, _label, _grid, _twice, _missing])
def test_bad_predictions_end_with_3_and_the_case(folders, capsys, spoil):
    spoil(folders / "good")
    for more in ((), ("--dry-run",)):
        assert _evaluate(folders, "good", *more) == 3
        assert "p2" in capsys.readouterr().err
    archive = folders / "x.zip"
    assert _run("submit", "--challenge", "brats2017", "--predictions", folders / "good",
                "--references", folders / "study", "--out", archive) == 3
    assert "case p2: " in capsys.readouterr().err
    assert not archive.exists()


def test_an_empty_folder_ends_with_3(folders, capsys):
    (folders / "empty").mkdir()
    assert _evaluate(folders, "empty") == 3
    assert "holds no predictions" in capsys.readouterr().err


def test_submit(folders, capsys):
    assert _run("submit", "--challenge", "brats2017", "--predictions", folders / "good",
                "--references", folders / "study", "--out", folders / "x.zip") == 0
    assert "2 cases" in capsys.readouterr().out
    assert (folders / "x.zip").is_file()


def test_compare(folders, capsys):
    _evaluate(folders, "good")
    _evaluate(folders, "poor")
    capsys.readouterr()
    runs = (folders / "good_scores", folders / "poor_scores")
    assert _run("compare", *runs, "--names", "balanced,uniform", "--format", "markdown") == 0
    printed = capsys.readouterr().out
    assert "| balanced | 1.000 | 1.000 | 1.000 | 0.00 | 0.00 | 0.00 |" in printed
    assert "| balanced − uniform | WT | Dice | +0.167 |" in printed
    out = folders / "tables" / "compare.tex"
    assert _run("compare", *runs, "--format", "latex", "--out", out) == 0
    assert r"\begin{tabular}" in out.read_text()


def test_compare_says_what_is_wrong(folders, capsys):
    _evaluate(folders, "good")
    scores = folders / "good_scores"
    assert _run("compare", scores, scores) == 3
    assert "--names" in capsys.readouterr().err
    assert _run("compare", scores, "--names", "a,b") == 2
    assert _run("compare", folders / "study") == 3
    assert "holds no summary.json" in capsys.readouterr().err


def test_report(folders, capsys):
    _evaluate(folders, "poor")
    (folders / "run").mkdir()
    assert _run("report", folders / "run", "--predictions", folders / "poor", "--scores",
                folders / "poor_scores", "--out", folders / "report.html", "--overlays", 1) == 0
    assert (folders / "report.html").is_file()
    assert sorted(p.name for p in (folders / "report_figures").iterdir()) == [
        "overlay_p1.png", "overlay_p2.png", "scores.png", "volumes.png"]
    # Predictions without a prediction.json, as `experiment` merges them: the run knows the labels.
    (folders / "run" / "config.yaml").write_text(config_to_yaml(load_config(None, [
        "study.labels={0: background, 1: core, 2: edema, 4: rim}"])))
    assert _run("report", folders / "run", "--predictions", folders / "poor", "--scores",
                folders / "poor_scores", "--out", folders / "report.html", "--print-config") == 0
    assert "4: rim" in capsys.readouterr().out
    assert _run("report", folders / "absent", "--predictions", folders / "poor", "--scores",
                folders / "poor_scores", "--out", folders / "report.html") == 4


def test_report_is_of_what_was_scored(folders, capsys):
    """Predictions, references and model that are not the ones behind the scores are refused."""
    _evaluate(folders, "poor")
    (folders / "run").mkdir()
    (folders / "run" / "model.keras").write_bytes(b"weights")
    asked = ("report", folders / "run", "--scores", folders / "poor_scores", "--out",
             folders / "report.html", "--overlays", 0, "--predictions")
    assert _run(*asked, folders / "good", "--dry-run") == 3
    assert "good/p1.nii.gz: is not the prediction that was scored" in capsys.readouterr().err
    assert _run(*asked, folders / "poor", "--dry-run") == 0
    assert "would write a report of 2 cases" in capsys.readouterr().out
    about = {"networks": [{"model": "elsewhere", "file": hashlib.sha256(b"others").hexdigest()}]}
    (folders / "poor" / "prediction.json").write_text(json.dumps(about))
    assert _run(*asked, folders / "poor") == 4
    assert "was predicted by elsewhere, whose model.keras is not that of" in capsys.readouterr().err
    about["networks"][0]["file"] = hashlib.sha256(b"weights").hexdigest()
    (folders / "poor" / "prediction.json").write_text(json.dumps(about))
    assert _run(*asked, folders / "poor", "--dry-run") == 0
    path = folders / "study" / "p2" / "p2_seg.nii.gz"
    _write(path, np.roll(np.asarray(nib.load(path).dataobj), 2, axis=1))
    assert _run(*asked, folders / "poor") == 3
    assert "p2_seg.nii.gz: is not the reference that was scored" in capsys.readouterr().err
    assert not (folders / "report.html").exists()


def test_postprocess_is_chosen_on_plain_predictions_of_the_run(folders, capsys):
    run = folders / "run"
    run.mkdir()
    config = load_config(None)
    (run / "config.yaml").write_text(config_to_yaml(config))
    (run / "split.json").write_text(json.dumps(
        {"train": [], "validation": ["p1", "p2"], "test": [], "folds": []}))
    (run / "model.keras").write_bytes(b"weights")
    asked = ("postprocess", "--model", run, "--predictions", folders / "poor", "--references",
             folders / "study")
    assert _run(*asked) == 0
    assert "mean Dice over 2 validation cases and 3 regions" in capsys.readouterr().out
    about = {"networks": [{"model": "other", "file": hashlib.sha256(b"others").hexdigest()}]}
    (folders / "poor" / "prediction.json").write_text(json.dumps(about))
    assert _run(*asked) == 4
    assert "was predicted by other" in capsys.readouterr().err
    cleaned = load_config(None, ["prediction.postprocess.fill_holes=true"])
    (folders / "poor" / "prediction.json").write_text(json.dumps(
        {"config": config_to_dict(cleaned)}))
    assert _run(*asked) == 2
    assert "was cleaned up already" in capsys.readouterr().err
    (folders / "poor" / "prediction.json").unlink()
    _label(folders / "poor")
    assert _run(*asked) == 3
    captured = capsys.readouterr()
    assert "unknown label 3" in captured.err
    assert "minimum_component" not in captured.out
