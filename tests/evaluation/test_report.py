"""The report stands alone and says what the run's files say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from pixelnet_tf.config import Config, config_to_yaml
from pixelnet_tf.evaluation.case_images import image_reader
from pixelnet_tf.evaluation.matching import match_cases
from pixelnet_tf.evaluation.protocols import BratsProtocol
from pixelnet_tf.evaluation.report import (
    ReportSource,
    class_frequencies,
    origin_tables,
    ranked_cases,
    split_table,
    write_report,
)
from pixelnet_tf.evaluation.score_cases import score_cases
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.io.files import digest
from pixelnet_tf.runs.rate_trial import RateTrial

STUDY = Config().study


@pytest.fixture
def source(tmp_path, predictions_dir, study_dir):
    run = tmp_path / "my <run>"
    run.mkdir()
    (run / "config.yaml").write_text(config_to_yaml(Config()))
    (run / "priors.json").write_text(json.dumps(
        {"class_names": list(STUDY.class_names), "real": [0.97, 0.01, 0.01, 0.01],
         "sampled": [0.25, 0.25, 0.25, 0.25]}))
    (run / "split.json").write_text(json.dumps(
        {"train": ["t1", "t2"], "validation": [], "test": ["case_a"], "folds": []}))
    (run / "log.jsonl").write_text("".join(
        json.dumps({"step": i, "loss": 1.0, "learning_rate": 0.1}) + "\n" for i in range(5)))
    matching = match_cases(predictions_dir, study_dir, STUDY)
    rules = BratsProtocol()
    evaluation = Evaluation.of(rules, STUDY.regions, score_cases(matching, STUDY, rules))
    return ReportSource(run, evaluation, matching, STUDY, image_reader(study_dir, STUDY))


class _Page(HTMLParser):
    """Collects tags, and the text of table cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self._in_cell = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._in_cell = tag in ("td", "th")

    def handle_data(self, data):
        if self._in_cell:
            self.cells.append(data)


def test_report_is_one_file_without_network(source, tmp_path):
    written = write_report(source, tmp_path / "out" / "report.html", overlays=1, viewers=False)
    text = written[0].read_text()
    page = _Page(text)
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 5
    embedded = {base64.b64decode(i.removeprefix("data:image/png;base64,")) for i in images}
    assert embedded == {path.read_bytes() for path in written[1:]}
    assert not [tag for tag, attrs in page.tags if tag in ("script", "link", "iframe")]
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert [p.name for p in written[1:]] == ["training.png", "scores.png", "volumes.png",
                                             "overlay_case_c.png", "overlay_case_a.png"]
    # The run's name is text, not markup.
    assert "my &lt;run&gt;" in text


def _rewrite_images(study_dir, case, change):
    for modality in STUDY.modalities:
        path = study_dir / case / f"{case}_{modality}.nii.gz"
        nib.save(change(nib.load(path)), path)


@pytest.mark.parametrize("code", ["RAS", "SAL"])
def test_images_whose_axes_are_in_another_order_make_the_same_pictures(source, study_dir, tmp_path,
                                                                       code):
    before = [path.read_bytes() for path in write_report(source, tmp_path / "a" / "report.html")]
    for case in source.matching.pairs:
        _rewrite_images(study_dir, case, lambda image: image.as_reoriented(
            orientations.ornt_transform(orientations.io_orientation(image.affine),
                                        orientations.axcodes2ornt(code))))
    after = [path.read_bytes() for path in write_report(source, tmp_path / "b" / "report.html")]
    assert after == before


def test_images_on_another_grid_are_brought_and_those_elsewhere_left_out(source, study_dir,
                                                                         tmp_path, caplog):
    def cropped(image):
        return image.slicer[2:, :, 1:]

    def moved(image):
        affine = image.affine.copy()
        affine[2, 3] += 500
        return nib.Nifti1Image(np.asarray(image.dataobj), affine)

    _rewrite_images(study_dir, "case_a", cropped)
    _rewrite_images(study_dir, "case_b", moved)
    written = write_report(source, tmp_path / "report.html")
    pictures = {path.stem for path in written if path.stem.startswith("overlay")}
    assert pictures == {"overlay_case_a", "overlay_case_c"}
    assert "case case_b: " in caplog.text
    assert "the image does not lie where the labels lie" in caplog.text
    titles = re.findall(r"<summary>(case_.*?)</summary>", written[0].read_text())
    assert [title.split(",")[0] for title in titles] == ["case_c (worst", "case_a (best"]


def test_viewers_lie_in_the_page_under_a_policy_that_names_its_script(source, tmp_path):
    text = write_report(source, tmp_path / "report.html", overlays=0)[0].read_text()
    page = _Page(text)
    assert not [attrs for tag, attrs in page.tags if tag == "script" and "src" in attrs]
    policy = next(attrs["content"] for tag, attrs in page.tags
                  if attrs.get("http-equiv") == "Content-Security-Policy")
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        # NiiVue's code holds a sheet of its own, as text.
        inside = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest_of = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert parts[name] == f"'sha256-{digest_of}'"
    titles = re.findall(r"<summary>(case_.*?)</summary>", text)
    assert [title.split(",")[0] for title in titles] == [
        "case_c (worst", "case_b (median", "case_a (best"]
    bare = write_report(replace(source, read_image=None), tmp_path / "bare.html")[0].read_text()
    assert "script-src &#39;none&#39;" in bare
    assert "<script" not in bare


def test_report_holds_scores_settings_and_frequencies(source, tmp_path):
    text = write_report(source, tmp_path / "report.html", overlays=0)[0].read_text()
    cells = _Page(text).cells
    mean = source.evaluation.spread("WT", "Dice")["mean"]
    assert f"{mean:.3f}" in cells
    assert cells[cells.index("sampling.strategy") + 1] == "balanced"
    assert "97.000%" in cells
    assert "hausdorff95_pooled" in text
    assert 'id="overlays"' not in text


def test_a_report_shows_the_trial_of_the_learning_rate(source, tmp_path):
    trial = RateTrial("rule", "SGD", 0.002, (2.0,) * 8, (0.001, 0.002), ((1.5,) * 8, (1.0,) * 8))
    (source.run_dir / "learning_rate.json").write_text(json.dumps(trial.to_json()))
    written = write_report(source, tmp_path / "report.html", overlays=0)
    assert "learning_rate.png" in [path.name for path in written]
    assert ("Learning rate 0.002 chosen by a trial on training slices (learning_rate.json): "
            "loss at 0.001 ends at 0.75 of the start&#39;s, 0.002 ends at 0.50"
            ) in written[0].read_text()


def test_a_run_folder_without_files_leaves_sections_out(source, tmp_path):
    bare = ReportSource(tmp_path, source.evaluation, source.matching, STUDY)
    text = write_report(bare, tmp_path / "report.html")[0].read_text()
    assert "The run has no log.jsonl." in text
    assert "The run has no config.yaml." in text


def test_class_frequencies_by_hand(source, tmp_path, labels):
    table = class_frequencies(source.run_dir, {"a": source.matching.pairs["case_a"]}, STUDY)
    assert table.columns[2:] == ("Training slices", "Sampled pixels", "Truth, scored cases",
                                 "Predicted, scored cases")
    edema = 100 * (labels == 2).sum() / labels.size
    assert table.rows[2] == ("edema", "2", "1.000%", "25.000%", f"{edema:.3f}%", f"{edema:.3f}%")


def test_split_table_takes_both_forms(source, tmp_path):
    expected = (("train", "2"), ("validation", "0"), ("test", "1"), ("scored here", "3"))
    assert split_table(source.run_dir, 3).rows == expected
    tree = json.loads((source.run_dir / "split.json").read_text())
    (tmp_path / "split.json").write_text(json.dumps({"split": tree, "config": {}}))
    assert split_table(tmp_path, 3).rows == expected


def test_cases_are_ranked_from_the_worst(source):
    assert [case for case, _ in ranked_cases(source.evaluation)] == ["case_c", "case_b", "case_a"]


def test_a_report_says_what_it_is_made_from(source):
    assert origin_tables(source.trainings, source.evaluation) == []
    (source.run_dir / "model.keras").write_bytes(b"abc")
    made_from = {"case_a": {"reference": "r", "prediction": "p"}}
    table, = origin_tables(source.trainings, replace(source.evaluation, about={
        "made_from": made_from,
        "predicted_by": {"networks": ["w" * 64, None], "prior": "sampled", "mode": "exact"}}))
    assert table.rows == (
        # FIPS 180-2, appendix B.1.
        ("model.keras of the run", "ba7816bf8f01"), ("weights of the network 1", "w" * 12),
        ("weights of the network 2", "unknown"), ("prior, mode", "sampled, exact"),
        ("references and predictions", digest(made_from)[:12]))
