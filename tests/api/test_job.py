"""The whole job by one call: folds, and cases that have no truth."""

import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.api.check import check_folder
from pixelnet_tf.api.job import Job
from pixelnet_tf.api.study import make_cross_validation, make_trainer
from pixelnet_tf.cases.phantom import draw_brats_case
from pixelnet_tf.errors import ConfigError
from tests.listening import Listening
from tests.main_job import run_main
from tests.study_forms import write_study

TINY = ("prepare.bias_field.enabled=false", "prepare.workers=1", "split.validation=0",
        "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16",
        "sampling.pixels=60", "training.steps=1", "training.batch_slices=1",
        "evaluation.workers=1")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four cases in the form of BIDS, the last one without a truth."""
    cases = {}
    for number in (1, 2, 3, 4):
        drawn = draw_brats_case(0, number, (16, 16, 8))
        cases[f"case_{number}"] = {"first": drawn.volumes["flair"], "second": drawn.volumes["t1ce"],
                                   "seg": (drawn.labels > 0).astype(np.uint8)}
    del cases["case_4"]["seg"]
    return write_study(tmp_path_factory.mktemp("job") / "people", "bids", cases,
                       np.diag([-12.5, -12.5, 18.0, 1.0]))


def options(*settings):
    return [word for setting in (*TINY, *settings) for word in ("--set", setting)]


def test_a_job_of_folds_scores_every_case_once(study, tmp_path, capsys):
    """Those of the folds by the network that has not seen them, those set aside by the average; the
    one without a truth is segmented."""
    out = tmp_path / "out"
    call = ("run", study, out, "--no-trial", "--folds", 2, *options("split.test=1"))
    assert run_main(*call) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    for words in ("scores of the cases that each network has not seen:",
                  "scores of the test cases:", f"written: {out / 'report.html'}"):
        assert words in said
    split = px.PreparedStudy.open(out / "prepared").split
    assert (len(split.train), len(split.test), len(split.folds)) == (2, 2, 2)
    job = Job(study, out)
    assert sorted(job.out_of_fold.evaluation.scores) == sorted(split.train)
    assert sorted(path.name for path in job.folder.predictions.glob("*.nii.gz")) == [
        f"{name}.nii.gz" for name in sorted(split.test)]
    scored = px.evaluate(out / "predictions", study, config=job.config, allow_missing=True)
    assert list(scored.evaluation.scores) == [
        name for name in sorted(split.test) if name != "sub-case4_ses-01"]
    page = (out / "report.html").read_text()
    assert "<h1>people</h1>" in page
    assert "run of 2 folds" in " ".join(page.split())
    assert "Out of fold" in page
    assert {path.name for path in (out / "report_figures").glob("training*")} == {
        "training_fold_0.png", "training_fold_1.png"}
    assert check_folder(out).whole
    assert job.left() == ["predict"]
    (out / "run" / "fold_1" / "model.keras").unlink()
    assert job.left() == ["train", "predict"]


def test_where_no_test_case_has_a_truth_they_are_segmented(study, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_main("run", study, out, "--no-trial", *options("split.test=0")) == 0
    said = capsys.readouterr()
    assert "segmented, not scored" in said.err
    assert (out / "predictions" / "sub-case4_ses-01.nii.gz").is_file()
    assert not (out / "scores").exists()
    assert not (out / "report.html").exists()


@pytest.mark.parametrize("option", [
    ("--preset", "laptop"), ("--minutes", "5"), ("--weights", "vgg.caffemodel"), ("--no-trial",)])
def test_an_option_of_a_plan_is_refused_beside_a_configuration(study, tmp_path, capsys, option):
    out = tmp_path / "out"
    assert run_main("run", study, out, "--config", "phantom", *option) == 2
    said = capsys.readouterr().err
    assert option[0] in said
    assert f"leave out {option[0]}, or --config" in said
    assert not out.exists()


def test_a_job_goes_on_by_the_options_that_its_plan_was_made_by_and_by_no_other(study, tmp_path):
    out, weights = tmp_path / "out", tmp_path / "vgg.caffemodel"
    weights.write_bytes(b"")
    asked = {"preset": "best", "weights": weights, "trial": False}

    def stop(heard, done):
        if heard == "preparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Job(study, out, **asked, overrides=TINY, reporter=Listening(stop)).run()
    for same in ({}, {"preset": "best"}, asked):
        assert Job(study, out, **same).config.training.initial_weights == str(weights)
    weights.with_name("other.caffemodel").write_bytes(b"")
    for name, value in (("preset", "laptop"), ("minutes", 5.0),
                        ("weights", weights.with_name("other.caffemodel"))):
        with pytest.raises(ConfigError, match=rf"plan\.yaml: holds a job of another plan .* "
                           rf"--{name}; give a new OUT, or leave --{name} out to go on"):
            Job(study, out, **{name: value})


def test_a_configuration_that_names_no_network_is_refused_before_anything_is_prepared(
        study, tmp_path, capsys):
    """It trained the paper's network, by accident."""
    (tmp_path / "study.yaml").write_text("study: {layout: bids, modalities: [first, second]}\n")
    call = ("run", study, tmp_path / "out", "--config", tmp_path / "study.yaml")
    assert run_main(*call) == 2
    said = capsys.readouterr().err
    assert "says nothing of the network and its training" in said
    assert "pixelnet-tf plan" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [make_cross_validation, make_trainer])
def test_a_training_by_a_file_names_its_network(main_job, tmp_path, make):
    (tmp_path / "study.yaml").write_text("study: {name: phantom}\n")
    with pytest.raises(ConfigError, match="says nothing of the network and its training"):
        make(main_job / "prepared", tmp_path / "study.yaml", tmp_path / "run")
