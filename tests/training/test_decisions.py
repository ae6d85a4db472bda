"""Decisions about the prediction, made on validation cases and on no others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import (
    GuidedFilterConfig,
    PostprocessConfig,
    PredictionConfig,
    config_from_dict,
    load_config,
)
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError
from pixelnet_tf.evaluation.comparison import gain_of
from pixelnet_tf.evaluation.tuning import mean_dice
from pixelnet_tf.inference.postprocess import postprocess_labels
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import score_voxels
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.decisions import Decisions
from pixelnet_tf.training.decisions import Judged, ScoredCases, _Candidate, _Choice, decide
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.validation import confusion
from tests.listening import Listening
from tests.pixel_network import pixel_network, set_head
from tests.training.test_validation import ScaledStudy

GOLDEN = Path(__file__).parents[1] / "golden" / "run"
IMAGES = {modality: GOLDEN / f"{modality}.nii.gz" for modality in ("flair", "t1ce", "t2")}
CASES = tuple(ScaledStudy.sizes)
NAMES = ("background", "necrosis", "edema", "enhancing")
LEVEL = ClassPriors(NAMES, (0.7, 0.1, 0.1, 0.1), (0.7, 0.1, 0.1, 0.1))


@pytest.mark.parametrize(("gains", "taken"), [
    # Five cases and more: the interval over cases decides.
    ([0.01] * 5, True), ([0.01, 0.012, 0.008, 0.011, 0.009, -0.001], True),
    ([0.3, -0.1, -0.1, -0.1, 0.1], False), ([0.0] * 6, False),
    # Fewer: each must gain, and 0.02 in the mean.
    ([0.03, 0.02], True), ([0.05], True), ([0.019], False), ([0.2, 0.2, 0.2, 0.0], False),
])
def test_a_gain_that_is_more_than_noise(gains, taken):
    old = np.linspace(0.4, 0.6, len(gains))
    assert gain_of(old + gains, old).beyond_noise == taken


@pytest.fixture(scope="module")
def scored(tiny_study, tiny_config, tmp_path_factory):
    """(network, its scores of a case for candidates, what lets each class win somewhere)."""
    model = PixelNet(tiny_config.model, 3, 4, seed=0)
    head = model.parts["cls_score_new"]
    head.kernel.assign(20 * head.kernel)
    found = ScoredCases([Judged(lambda: model, tiny_study.cases[:1], LEVEL)], tiny_study,
                        tiny_config.prediction, "float32", tmp_path_factory.mktemp("scored"))
    scores = score_voxels(SliceSegmenter(model), tiny_study.read_volume(tiny_study.cases[0]),
                          tiny_config.study, tiny_config.prediction)
    # All classes on one level.
    return model, found, -scores[scores[..., 1] > -1000].mean(axis=0)


@pytest.mark.parametrize(("radius", "flips"), [(0, True), (2, False), (2, True)])
def test_a_candidate_gives_the_labels_that_the_segmenter_gives(tiny_study, tiny_config, scored,
                                                               radius, flips):
    model, cases, added = scored
    smoothing = GuidedFilterConfig(radius)
    volume = tiny_study.read_volume(tiny_study.cases[0])
    labels = score_voxels(SliceSegmenter(model, added, smoothing=smoothing, flips=flips), volume,
                          tiny_config.study, tiny_config.prediction).argmax(-1)
    expected = confusion(labels, volume.plan.read_voxels(volume.labels), 4)
    assert (expected.sum(axis=0) > 0).sum() > 2
    plain, found = cases.confusions([_Candidate(added, GuidedFilterConfig(), False),
                                     _Candidate(added, smoothing, flips)])[0]
    assert np.abs(found - expected).sum() <= 4
    assert np.abs(plain - expected).sum() > 20


def test_no_lattice_is_decided_where_the_adaptive_mode_fills_other_numbers(scored):
    _, cases, added = scored
    off = GuidedFilterConfig()
    assert len(cases.exact_cases(_Candidate(added, off, False))) == 1
    assert cases.exact_cases(_Candidate(added, off, True)) is None
    assert cases.exact_cases(_Candidate(added, GuidedFilterConfig(2), False)) is None


def test_a_clean_up_is_judged_as_it_is_applied(scored, monkeypatch):
    """Holes are filled last: the lesion has 98 voxels where components are counted."""
    _, cases, _ = scored
    study = cases.study.config.study
    truth = np.zeros((20, 12, 12), np.uint8)
    truth[2:7, 2:7, 2:7] = 1
    labels = truth.copy()
    labels[3:6, 3:6, 3:6] = 0
    # Spots of 60 voxels, which are none.
    labels[12:15, 2:6, 2:7] = labels[12:15, 8:12, 2:7] = 1
    monkeypatch.setattr(cases, "volumes", lambda candidate, clean: [(labels, truth)])
    configured = PredictionConfig(postprocess=PostprocessConfig(fill_holes=True))
    choice = _Choice(cases, configured, 1.0)
    choice.decide_clean_up()
    decided = config_from_dict({"prediction": choice.settings()}).prediction.postprocess
    assert decided.largest_component
    assert decided.fill_holes
    assert not decided.minimum_component
    taken = [trial for trial in choice.trials if trial.taken][-1]
    assert max(taken.dice) == mean_dice(truth, postprocess_labels(labels, None, study, decided),
                                        study)


def test_a_class_that_is_found_too_seldom_gets_its_offset_and_nothing_else_changes(tiny_config):
    """Right but for edema, whose score stays 0.5 below the background's where it should win."""
    network = pixel_network(channels=3, classes=4)
    set_head(network, 40 * np.eye(4)[1:], np.array([20, 0, -20.75, 0]))
    ears = Listening()
    priors, decisions = decide(network, ScaledStudy(0, tiny_config), CASES, tiny_config.prediction,
                               "float32", LEVEL, ears)
    # No strength is better than another, and the first of equals is 0.
    assert priors == replace(LEVEL, strength=0.0)
    assert ears.said[0].startswith("prior correction fitted on the validation cases: strength 0 ")
    assert decisions.cases == CASES
    assert decisions.settings == {"class_offsets": {"edema": 1.0}}
    steps = {trial.step: trial for trial in decisions.tried}
    assert list(steps)[:6] == ["prior", "class_offsets.necrosis", "class_offsets.edema",
                               "class_offsets.enhancing", "guided_filter", "flips"]
    assert [step for step, trial in steps.items() if trial.taken] == ["class_offsets.edema"]
    trial = steps["class_offsets.edema"]
    assert dict(zip(trial.values, trial.dice, strict=True))[1.0] == 1.0
    assert trial.gain == pytest.approx(1.0 - trial.dice[0])
    again = Decisions.from_json(json.loads(json.dumps(decisions.to_json())))
    assert again.settings == decisions.settings
    assert [trial.line() for trial in again.tried] == [trial.line() for trial in decisions.tried]


def test_a_training_decides_on_validation_cases_and_opens_no_test_case(tiny_study, tiny_config,
                                                                      tmp_path):
    copy = tmp_path / "prepared"
    shutil.copytree(tiny_study.path, copy)
    test, = tiny_study.split.test
    (copy / "cases" / f"{test}.tfrecord").unlink()
    (copy / "cases" / f"{test}.json").unlink()
    ears = Listening()
    study = PreparedStudy.open(copy)
    trainer = Trainer(tiny_config, study, study.split, str(tmp_path / "run"), reporter=ears)
    trainer.run()
    decisions = trainer.run_folder.decisions()
    assert decisions.cases == study.split.validation
    assert "every case gains" in decisions.rule
    line = next(said for said in ears.said if said.startswith("decided on 1 validation cases"))
    assert "which are few" in line
    assert "predict, export and serve follow them" in line
    assert px.Segmenter.from_run(tmp_path / "run").follows.startswith(
        "follows what 1 validation cases decided")


def test_without_validation_cases_the_settings_stay_and_a_warning_says_so(make_trainer):
    ears, trainer = Listening(), make_trainer(validates=False, steps=1)
    trainer.reporter = ears
    trainer.run()
    assert trainer.run_folder.decisions() is None
    assert any(said.startswith("warning: no validation cases: nothing could be decided")
               for said in ears.said)


@pytest.fixture(scope="module")
def decided(tmp_path_factory) -> Path:
    """The golden run with decisions."""
    run = tmp_path_factory.mktemp("decided") / "run"
    shutil.copytree(GOLDEN / "run", run)
    decisions = Decisions("by hand", ("a", "b"), {
        "prior": "sampled", "class_offsets": {"edema": 0.25}, "flips": True,
        "postprocess": {"largest_component": ["WT"]}, "lattice": {"stride": 8}})
    (run / "decisions.json").write_text(json.dumps(decisions.to_json()))
    return run


def test_predictions_follow_decisions_and_the_caller_overrules_them(decided):
    follows = px.Segmenter.from_run(decided)
    asked = follows.config.prediction
    assert (asked.prior, asked.class_offsets, asked.flips) == ("sampled", {"edema": 0.25}, True)
    assert asked.postprocess.largest_component == ("WT",)
    assert asked.lattice.stride == 8
    assert "overruled" not in follows.follows
    same = px.Segmenter.from_run(GOLDEN / "run", prior="sampled", overrides=[
        "prediction.class_offsets={edema: 0.25}", "prediction.flips=true",
        "prediction.postprocess.largest_component=[WT]"])
    one, other = (model.predict(IMAGES) for model in (follows, same))
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    np.testing.assert_array_equal(one.labels, other.labels)
    # The offsets and the lattice were chosen on top of the prior.
    overruled = px.Segmenter.from_run(decided, prior="corrected")
    asked = overruled.config.prediction
    assert (asked.prior, asked.class_offsets, asked.flips) == ("corrected", {}, True)
    assert asked.lattice.stride == 4
    assert overruled.follows.endswith("overruled: prior, class_offsets, lattice")
    assert px.Segmenter.from_run(decided, prior="sampled").config == follows.config
    by_set = px.Segmenter.from_run(decided, overrides=["prediction.flips=false"])
    assert not by_set.config.prediction.flips
    assert by_set.config.prediction.prior == "sampled"
    # A part of a section that is set by name is the whole section.
    by_set = px.Segmenter.from_run(decided, overrides=["prediction.postprocess.fill_holes=true"])
    assert by_set.config.prediction.postprocess.largest_component == ()
    assert by_set.follows.endswith("overruled: postprocess")
    # A configuration's own settings stay where they are others than the training's.
    config = replace(plain := px.Segmenter.from_run(GOLDEN / "run").config, prediction=replace(
        plain.prediction, postprocess=replace(plain.prediction.postprocess, fill_holes=True)))
    given = px.Segmenter.from_run(decided, config=config).config.prediction
    assert (given.postprocess.fill_holes, given.postprocess.largest_component) == (True, ())
    assert given.flips


def test_what_ignores_decisions_predicts_as_a_run_without_them(decided):
    plain = px.Segmenter.from_run(GOLDEN / "run")
    assert plain.follows == ""
    ignores = px.Segmenter.from_run(decided, overrides=["prediction.decisions=ignore"])
    assert "not followed" in ignores.follows
    assert replace(ignores.config.prediction, decisions="apply") == plain.config.prediction
    several = px.Segmenter.from_run(decided, decided)
    assert several.config.prediction == plain.config.prediction
    assert "for its network alone" in several.follows


@pytest.mark.parametrize(("name", "decisions"), [
    ("brats2017", "ignore"), ("isles2017", "ignore"), ("lgg", "apply"), ("phantom", "apply")])
def test_the_papers_configurations_stay_the_papers(name, decisions):
    assert load_config(name).prediction.decisions == decisions


@pytest.mark.parametrize("change", [
    {"settings": {"mode": "adaptive"}}, {"settings": {"prior": "none"}}, {"settings": 3},
    {"tried": 1}, {"cases": [1]}, {"rule": None}])
def test_a_file_that_decides_nothing_is_refused(decided, tmp_path, change):
    run = tmp_path / "run"
    shutil.copytree(decided, run)
    tree = json.loads((run / "decisions.json").read_text())
    (run / "decisions.json").write_text(json.dumps({**tree, **change}))
    with pytest.raises(DataError, match=r"decisions\.json"):
        px.Segmenter.from_run(run)
