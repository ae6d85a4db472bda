"""evaluate, compare, submit and report by the command line: files, messages, exit codes."""

from __future__ import annotations

import csv
import json

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
    assert _evaluate(folders, "poor", "--hausdorff95", "directed") == 0
    assert "hausdorff95_directed:" in (folders / "poor_scores" / "summary.json").read_text()


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
    assert _evaluate(folders, "good", "--set", "study.regions={c: [4]}") == 0
    summary = json.loads((folders / "good_scores" / "summary.json").read_text())
    assert list(summary["scores"]) == ["c"]


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
    assert _evaluate(folders, "good") == 3
    assert "p2" in capsys.readouterr().err
    archive = folders / "x.zip"
    assert _run("submit", "--challenge", "brats2017", "--predictions", folders / "good",
                "--references", folders / "study", "--out", archive) == 3
    assert "'p2'" in capsys.readouterr().err
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
        "overlay_p1.png", "overlay_p2.png", "scores.png"]
    # Predictions without a prediction.json, as `experiment` merges them: the run knows the labels.
    (folders / "run" / "config.yaml").write_text(config_to_yaml(load_config(None, [
        "study.labels={0: background, 1: core, 2: edema, 4: rim}"])))
    assert _run("report", folders / "run", "--predictions", folders / "poor", "--scores",
                folders / "poor_scores", "--out", folders / "report.html", "--print-config") == 0
    assert "4: rim" in capsys.readouterr().out
    assert _run("report", folders / "absent", "--predictions", folders / "poor", "--scores",
                folders / "poor_scores", "--out", folders / "report.html") == 3
