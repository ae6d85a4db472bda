"""Region-based training: a sigmoid for each of overlapping regions, from loss to server."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import pixelnet_tf as px
from pixelnet_tf.api.caffe import CaffeExport
from pixelnet_tf.config import Config, ModelConfig, load_config
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.evaluation.calibration import region_reliability_sums
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import segment_remotely, segment_volume
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.compatibility import AVERAGE, RESUME, Basis, check_fit
from pixelnet_tf.serving.about import describe_export, served_config
from pixelnet_tf.serving.model_card import model_card
from pixelnet_tf.serving.signatures import build_signatures, signatures_of
from pixelnet_tf.training.decisions import Judged, ScoredCases, _Choice, decide
from pixelnet_tf.training.initial import initialise
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.loss import make_loss
from pixelnet_tf.training.step import loss_and_gradients
from tests.listening import Listening
from tests.pixel_network import pixel_network, set_head
from tests.training.test_decisions import CASES, LEVEL
from tests.training.test_loop import stop_after
from tests.training.test_validation import ScaledStudy

#: ET, WT and TC of the classes necrosis, edema and enhancing.
REGIONS = ((3,), (1, 2, 3), (1, 3))
SCORES = tf.constant([[-1.0, 2.0, 0.5], [-3.0, -2.0, -1.0], [1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
CLASSES = tf.constant([2, 0, 3, 1])
#: Which regions these pixels are in, worked out by hand.
TRUTH = np.array([[0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]], float)


def by_hand() -> tuple[np.ndarray, np.ndarray]:
    """Binary cross-entropies (pixel, region), and the Dice of each region."""
    shares = 1 / (1 + np.exp(-SCORES.numpy().astype(float)))
    losses = -(TRUTH * np.log(shares) + (1 - TRUTH) * np.log(1 - shares))
    return losses, 2 * (shares * TRUTH).sum(axis=0) / (shares + TRUTH).sum(axis=0)


def test_losses_of_regions_by_hand():
    losses, dice = by_hand()
    for kind, expected in (("cross_entropy", losses.mean()), ("dice", 1 - dice.mean()),
                           ("cross_entropy_dice", losses.mean() + 1 - dice.mean())):
        loss = make_loss(kind, (), REGIONS)(SCORES, CLASSES)
        assert float(loss) == pytest.approx(expected, rel=1e-4), kind


def test_class_weights_weigh_pixels_and_regions():
    losses, dice = by_hand()
    weights = (0.5, 2.0, 1.0, 3.0)
    of_pixels = np.array([1.0, 0.5, 3.0, 2.0])
    of_regions = np.array([3.0, 2.0, 2.5])
    expected = (losses.mean(axis=1) * of_pixels).sum() / of_pixels.sum()
    loss = make_loss("cross_entropy", weights, REGIONS)(SCORES, CLASSES)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    loss = make_loss("dice", weights, REGIONS)(SCORES, CLASSES)
    assert float(loss) == pytest.approx(1 - (dice * of_regions).sum() / of_regions.sum(), rel=1e-4)


@pytest.mark.parametrize("kind", ["cross_entropy", "dice", "cross_entropy_dice"])
def test_a_mini_batch_without_a_pixel_that_counts_is_finite(kind):
    loss = make_loss(kind, (), REGIONS)(tf.zeros((0, 3)), tf.zeros((0,), tf.int32))
    assert np.isfinite(float(loss))


@pytest.mark.parametrize("hard", [0.0, 0.5])
def test_gradients_of_regions_are_those_of_the_gathered_hypercolumns(hard):
    """Listed, over a lattice and by the plain hypercolumn; hard pixels are the same ones."""
    model = PixelNet(ModelConfig(widths=(4, 4, 6, 6, 6), fc7="none", border=16, head_widths=(9,),
                                 head_filler="he", dropout=0.0, region_based=True), 3, 3, seed=3)
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid([0, 1], range(0, 24, 2), range(0, 20, 2), indexing="ij"), -1)
    batch = {"image": tf.constant(rng.normal(0, 1, (2, 24, 20, 3)), tf.float32),
             "pixels": tf.constant(grid.reshape(-1, 3), tf.float32),
             # More classes than regions.
             "classes": tf.constant(rng.integers(0, 4, grid[..., 0].size), tf.int32)}
    variables = [variable.value for variable in model.trainable_variables]

    def run(**options):
        return loss_and_gradients(
            model, batch, tf.constant([1, 2]), variables=variables, hard=hard, regions=REGIONS,
            loss_of=make_loss("cross_entropy_dice", (), REGIONS), **options)

    loss, plain = run(fast=False)
    for lattice in (0, 2):
        found, gradients = run(lattice=lattice)
        assert float(found) == pytest.approx(float(loss), rel=1e-5)
        for mine, theirs in zip(gradients, plain, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0,
                                       atol=1e-4 * np.abs(theirs).max() + 1e-9)


@pytest.fixture(scope="module")
def config(tiny_config) -> Config:
    return replace(tiny_config, model=replace(tiny_config.model, region_based=True),
                   training=replace(tiny_config.training, steps=2, checkpoint_every=1,
                                    loss="cross_entropy_dice"))


@pytest.fixture(scope="module")
def trained(tiny_study, config, tmp_path_factory):
    trainer = Trainer(config, tiny_study, tiny_study.split,
                      str(tmp_path_factory.mktemp("regions") / "run"), reporter=Listening())
    trainer.run()
    return trainer


def test_a_training_validates_regions_and_says_which_prior_they_have(trained, tiny_study):
    run = trained.run_folder
    rows = [row for row in run.log_rows() if "validation/score" in row]
    assert {"validation/dice_ET", "validation/dice_WT", "validation/dice_TC"} <= rows[-1].keys()
    assert not any("edema" in key for key in rows[-1])
    priors = run.priors()
    assert priors.regions == REGIONS
    assert priors.correction("corrected").shape == (3,)
    model = run.model()
    assert (model.classes, model.config.region_based) == (3, True)
    steps = [trial.step for trial in run.decisions().tried]
    assert "region_thresholds" in steps
    assert not any(step.startswith("class_offsets") for step in steps)
    assert steps.index("flips") < steps.index("region_thresholds")
    # It goes on, or says that there is nothing left, under the same regions alone.
    other = replace(trained.config, study=replace(trained.config.study, regions=dict(
        reversed(trained.config.study.regions.items()))))
    for purpose in (RESUME, AVERAGE):
        check_fit(run.basis(), run.basis(), purpose)
        with pytest.raises(ConfigError, match=r"the order of study\.regions"):
            check_fit(run.basis(), Basis("other", other), purpose)
        with pytest.raises(ConfigError, match=r"model\.region_based"):
            check_fit(run.basis(), Basis("other", replace(
                other, model=replace(other.model, region_based=False))), purpose)


def test_killed_and_resumed_regions_end_with_the_same_bits(trained, tiny_study, config, tmp_path):
    def trainer():
        return Trainer(config, tiny_study, tiny_study.split, str(tmp_path / "killed"),
                       reporter=stop_after(2))

    with pytest.raises(ZeroDivisionError):
        trainer().run()
    again = trainer()
    again.reporter = Listening()
    for mine, theirs in zip(again.run(resume=True).get_weights(),
                            trained.run_folder.model().get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.reporter.said[0] == "going on from step 1 of 2"
    for file in ("decisions.json", "priors.json"):
        assert (tmp_path / "killed" / file).read_bytes() == Path(
            trained.run_folder.file(file)).read_bytes(), file
    other = replace(config, model=replace(config.model, region_based=False))
    with pytest.raises(ConfigError, match=r"model\.region_based"):
        Trainer(other, tiny_study, tiny_study.split, str(tmp_path / "killed")).run(resume=True)


@pytest.mark.parametrize("region_based", [True, False])
def test_a_last_layer_is_taken_from_a_network_that_scores_the_same(trained, region_based):
    """Three classes are as many scores as three regions."""
    run = trained.run_folder
    before, theirs = PixelNet(replace(run.config().model, region_based=region_based), 3, 3,
                              seed=8), run.model()
    model = PixelNet(before.config, 3, 3, seed=8)
    start = initialise(model, run.file("model.keras"))
    wanted = theirs if region_based else before
    for name, layer in model.parts.items():
        own = (wanted if name == "cls_score_new" else theirs).parts[name]
        for mine, kept in zip(layer.get_weights(), own.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, kept, err_msg=name)
    assert start.new_layers == (set() if region_based else {"cls_score_new"})
    assert ("  cls_score_new: left as drawn (it scored regions there, and is to score classes)"
            in start.lines) is not region_based


def with_scores(run_folder, config) -> PixelNet:
    """The run's network with scores of either sign at each region."""
    model = run_folder.model()
    image = np.random.default_rng(5).normal(size=(1, 32, 32, 3)).astype(np.float32)
    scores = SliceSegmenter(model).scores(image, np.ones((1, 32, 32), bool)).numpy()
    last, factor = model.parts["cls_score_new"], 1 / scores.std(axis=(0, 1, 2)).max()
    last.kernel.assign(factor * last.kernel)
    last.bias.assign(factor * (last.bias - scores.mean(axis=(0, 1, 2))))
    return model


def test_what_is_served_and_sent_is_what_is_segmented_here(trained, tiny_study, tmp_path):
    run = trained.run_folder
    asked = replace(trained.config, prediction=replace(
        trained.config.prediction, region_thresholds={"TC": 0.6}, prior="sampled"))
    decoding = Decoding.of(asked.study, asked.prediction, True)
    segmenter = SliceSegmenter(with_scores(run, asked), decoding=decoding)
    volume = tiny_study.read_volume(tiny_study.cases[0])
    here = segment_volume(segmenter, volume, asked.study, asked.prediction, True, True)
    assert here.probabilities.shape == (*here.labels.shape, 3)
    assert len(np.unique(here.labels)) > 2
    inside = here.labels > 0
    np.testing.assert_array_equal(
        (here.probabilities > np.float32([0.5, 0.5, 0.6])).any(axis=-1), inside)
    assert here.voxels.by_region
    _, signatures = build_signatures(segmenter, asked)

    def answer(images, domain):
        given = signatures["segment_domain"](tf.constant(images), tf.constant(domain))
        return given["labels"].numpy(), given["probabilities"].numpy()

    there = segment_remotely(answer, volume, asked.study, asked.prediction, True, True,
                             by_region=True)
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-6)
    np.testing.assert_allclose(there.uncertainty.entropy, here.uncertainty.entropy, atol=1e-5)
    pixels = np.array([[0, 3, 4], [1, 20, 11]], np.int32)
    scores = signatures["classify_pixels"](tf.constant(volume.images[4:6]),
                                           tf.constant(pixels))["scores"]
    dense = segmenter.scores(volume.images[4:6], np.ones((2, *volume.images.shape[1:3]), bool))
    np.testing.assert_allclose(scores, tf.gather_nd(dense, pixels), atol=1e-4)
    assert "(pixel, region) float32, before the sigmoid of each region" in str(
        signatures_of(asked)["classify_pixels"])

    about = json.loads(json.dumps(describe_export(run, asked, "regions", 1)))
    assert about["scores"]["of"] == ["ET", "WT", "TC"]
    assert [tuple(one.values()) for one in about["scores"]["cut"]] == [
        ("WT", 0.5, 2), ("TC", 0.6, 1), ("ET", 0.5, 4)]
    card = model_card(about)
    assert "| 1 | WT | 1, 2, 4 |" in card
    assert "2 where WT has more than 0.5; 1 where TC has more than 0.6" in card
    with pytest.raises(ConfigError, match="region_thresholds was settled by"):
        served_config(about, lambda given: replace(given, prediction=replace(
            given.prediction, region_thresholds={})))


def test_predictions_hold_regions_and_follow_the_command_line(trained, tiny_study, tmp_path):
    run = trained.run_folder
    segmenter = px.Segmenter.from_run(run.path, overrides=[
        "prediction.probability_maps=true", "prediction.region_thresholds={WT: 0.001}"])
    case = tiny_study.split.test[0]
    segmenter.predict_study(tiny_study.path, tmp_path / "out", cases=[case])
    rows = [line.split("\t") for line in
            (tmp_path / "out" / "lesions.tsv").read_text().splitlines()]
    assert {row[1] for row in rows[1:]} == {"ET", "WT", "TC"}
    again = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert again["config"]["model"]["region_based"] is True
    for overrides in (["study.regions.WT=[1, 2]"], ["model.region_based=false"]):
        with pytest.raises(ConfigError):
            px.Segmenter.from_run(run.path, overrides=overrides)


def test_caffe_has_no_such_network(trained):
    with pytest.raises(ModelError, match="a softmax over classes, and this one scores overlapping"):
        CaffeExport(trained.run_folder.path)


def test_calibration_of_regions_by_hand():
    truth = np.array([[[0, 0, 1, 2]]], np.uint8)
    shares = np.array([[[[0.0, 0.0], [0.2, 0.0], [0.9, 0.8], [0.7, 0.6]]]], np.float32)
    both, first, second = region_reliability_sums(truth, shares, [(1, 2), (2,)])
    # The first voxel is background, and said to be.
    assert first.sum(axis=1) == pytest.approx([3, 1.8, 2])
    assert second.sum(axis=1) == pytest.approx([3, 1.4, 1])
    # Of both together: wrong is the second region of the third voxel alone.
    assert both.sum(axis=1) == pytest.approx([6, 0.8 + 0.9 + 0.7 + 1.0 + 0.8 + 0.6, 5])


def region_network() -> PixelNet:
    """Right but for the whole tumour, whose probability is 0.3 where it should be 1."""
    network = pixel_network(channels=3, classes=3, region_based=True)
    slopes = 40.0 * np.array([[0, 1, 1], [0, 1, 0], [1, 1, 1]])
    set_head(network, slopes, np.array([-20, -40.85, -20]))
    return network


def test_a_region_that_is_found_too_seldom_gets_its_threshold(config):
    study = ScaledStudy(0, config)
    _, decisions = decide(region_network(), study, CASES[-1:], config.prediction, "float32",
                          replace(LEVEL, regions=REGIONS), Listening())
    assert decisions.settings == {"region_thresholds": {"ET": 0.2, "WT": 0.2, "TC": 0.2}}
    taken = [trial for trial in decisions.tried if trial.taken]
    assert [trial.step for trial in taken] == ["region_thresholds"]
    dice = dict(zip(taken[0].values, taken[0].dice, strict=True))
    # Of those that are right, the one that changes least.
    assert dice[0.3] < dice[0.2] == dice[0.1] == 1.0
    assert taken[0].dice[0] < 0.95
    again = type(decisions).from_json(json.loads(json.dumps(decisions.to_json())))
    asked = again.apply(config.prediction, config.prediction)
    assert asked.region_thresholds == decisions.settings["region_thresholds"]
    # They were chosen on top of the prior.
    other = replace(config.prediction, prior="sampled")
    assert again.apply(config.prediction, other).region_thresholds == {}


def test_of_a_softmax_a_region_is_found_by_the_sum_of_its_classes(tiny_config, tmp_path):
    """Where a lesion is, the background has 0.45, its own class 0.4 and each other one 0.075."""
    network = pixel_network(channels=3, classes=4)
    odds = np.log(np.where(np.eye(3), 0.4, 0.075) / 0.45)
    set_head(network, np.concatenate([np.zeros((3, 1)), 20 + odds], axis=1),
             np.array([0, -20, -20, -20]))
    scored = ScoredCases([Judged(lambda: network, CASES[-1:], LEVEL)], ScaledStudy(0, tiny_config),
                         tiny_config.prediction, "float32", tmp_path)
    choice = _Choice(scored, tiny_config.prediction, 1.0)
    choice.decide_thresholds(Listening())
    # With 0.1 the core is taken for larger than it is; of those that are right 0.4 changes least.
    assert choice.settings() == {"region_thresholds": {"ET": 0.4, "WT": 0.4, "TC": 0.4}}
    assert choice.trials[0].values[0] == "none"
    assert choice.trials[0].dice[0] == 0.0
    dice = dict(zip(choice.trials[0].values, choice.trials[0].dice, strict=True))
    assert dice[0.1] < dice[0.2] == dice[0.4] == 1.0


def test_regions_of_single_classes_are_left_to_the_offsets(tiny_config, tmp_path):
    study = replace(tiny_config.study, regions={"n": (1,), "e": (2,), "c": (4,)})
    network = pixel_network(channels=3, classes=4)
    scored = ScoredCases([Judged(lambda: network, (), LEVEL)],
                         ScaledStudy(0, replace(tiny_config, study=study)),
                         tiny_config.prediction, "float32", tmp_path)
    choice = _Choice(scored, tiny_config.prediction, 1.0)
    choice.decide_thresholds(Listening())
    assert not choice.trials


@pytest.mark.parametrize("name", ["brats2017", "isles2017", "lgg", "phantom"])
def test_the_papers_softmax_stays_the_default(name):
    found = load_config(name)
    assert not found.model.region_based
    assert not found.prediction.region_thresholds
