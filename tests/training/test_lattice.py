"""The adaptive mode's lattice, decided on exact scores: by hand, and against the mode itself."""

import json
from dataclasses import asdict, replace

import nibabel as nib
import numpy as np
import pytest

import pixelnet_tf as px
from pixelnet_tf.config import LatticeConfig, Mode, load_config
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.inference.volume import PredictionGrid, score_voxels
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.decisions import Decisions
from pixelnet_tf.training.lattice import ExactCase, agreement, decide_lattice, words
from pixelnet_tf.training.loop import Trainer
from tests.listening import Listening


@pytest.fixture(scope="module")
def network(tiny_config):
    model = PixelNet(tiny_config.model, 3, 4, seed=0)
    head = model.parts["cls_score_new"]
    head.kernel.assign(60 * head.kernel)
    return model


def exact_case(study, config, model) -> tuple[ExactCase, np.ndarray]:
    volume = study.read_volume(study.cases[0])
    grid = PredictionGrid.of(volume, config.prediction.inside_brain(config.study))
    segmenter = SliceSegmenter(model)
    level = -segmenter.scores(volume.images, grid.domain).numpy()[grid.domain].mean(axis=0)
    segmenter = SliceSegmenter(model, level)
    return ExactCase(volume, grid, segmenter.scores(volume.images, grid.domain).numpy()), level


@pytest.mark.parametrize("lattice", [LatticeConfig(4, 2, 1.0), LatticeConfig(8, 4, 0.5)], ids=str)
def test_the_acted_mode_gives_the_labels_of_the_mode(tiny_study, tiny_config, network, lattice):
    case, level = exact_case(tiny_study, tiny_config, network)
    decoding = Decoding(4)
    found = agreement([case], network.architecture, 3, decoding, lattice)
    segmenter = SliceSegmenter(network, level, "adaptive", lattice=lattice)
    labels = score_voxels(segmenter, case.volume, tiny_config.study,
                          tiny_config.prediction).argmax(-1)
    plan = case.volume.plan
    exact = plan.read_voxels(case.scores).argmax(-1)
    brain = plan.read_voxels(case.volume.brain)
    assert len(np.unique(exact)) > 2
    assert found.equal == pytest.approx((labels == exact)[brain].mean(), abs=1e-3)
    dice = [2 * ((labels == k) & (exact == k)).sum() / ((labels == k).sum() + (exact == k).sum())
            for k in range(1, 4) if (exact == k).any() or (labels == k).any()]
    assert found.dice == pytest.approx(min(dice), abs=5e-3)


def blob(tiny_study, *voxels: tuple[int, int, int]) -> ExactCase:
    """Exact scores that lead by 6 everywhere: one class in these voxels, else background."""
    volume = tiny_study.read_volume(tiny_study.cases[0])
    volume = replace(volume, brain=np.ones_like(volume.brain))
    grid = PredictionGrid.of(volume, True)
    scores = np.zeros((*grid.domain.shape, 4), np.float32)
    scores[..., 0] = 6
    for place in voxels:
        scores[place] = [0, 0, 6, 0]
    return ExactCase(volume, grid, scores)


def test_a_lesion_between_the_corners_is_lost_and_no_lattice_that_loses_one_is_taken(
        tiny_study, network):
    """Ten voxels in a row along the slices, between four columns of corners: sure, and unseen."""
    table, decoding = network.architecture, Decoding(4)
    hidden = blob(tiny_study, *((z, 6, 6) for z in range(10)))
    found = agreement([hidden], table, 3, decoding, LatticeConfig())
    assert found.lost == 1
    assert not found.within(0.5)
    lattice, trial = decide_lattice([hidden], table, 3, decoding, 0.999)
    # The margin beyond what they lead by looks at all.
    assert lattice.margin == 8.0
    assert trial.kept
    assert (trial.equal, trial.lost, trial.dice) == (1.0, 0, 1.0)
    # One voxel less is no lesion that counts, and a loose bound lets it go.
    small = blob(tiny_study, *((z, 6, 6) for z in range(9)))
    assert agreement([small], table, 3, decoding, LatticeConfig()).lost == 0


def test_the_cheapest_lattice_is_taken_where_all_keep_to_the_bound(tiny_study, network):
    empty = blob(tiny_study)
    lattice, trial = decide_lattice([empty], network.architecture, 3, Decoding(4), 1.0)
    assert trial.kept
    # Of equal work it is the surer one.
    assert (lattice.slices, lattice.margin) == (4, 2.0)
    assert trial.work < 0.6
    assert "every fourth slice, margin 2" in words(lattice, trial)
    again = Decisions.from_json(json.loads(json.dumps(Decisions("rule", ("a",), {
        "lattice": {"stride": 4, "slices": 4, "margin": 0.5}}, adaptive=trial).to_json())))
    assert again.adaptive == trial


def test_where_no_lattice_keeps_to_the_bound_the_closest_is_taken_and_said(tiny_study, network):
    case = blob(tiny_study, *((z, 6, 6) for z in range(10)))
    case = replace(case, scores=case.scores * 100)
    lattice, trial = decide_lattice([case], network.architecture, 3, Decoding(4), 1.0)
    assert not trial.kept
    assert lattice == LatticeConfig(4, 1, 8.0)
    assert words(lattice, trial).endswith("not kept)")


@pytest.mark.parametrize("text", ["stride=3", "slices=3", "margin=-1"])
def test_a_lattice_that_there_is_not_is_refused(text):
    with pytest.raises(ConfigError, match=f"prediction.lattice.{text.split('=')[0]}"):
        load_config("phantom", [f"prediction.lattice.{text}"])


def test_a_training_in_adaptive_mode_decides_its_lattice_and_predictions_follow(
        tiny_study, tiny_config, tmp_path):
    config = replace(tiny_config, prediction=replace(
        tiny_config.prediction, mode=Mode.ADAPTIVE, adaptive_bound=1.0))
    ears = Listening()
    trainer = Trainer(config, tiny_study, tiny_study.split, str(tmp_path / "run"), reporter=ears)
    trainer.run()
    decided = trainer.run_folder.decisions()
    assert decided.adaptive.bound == 1.0
    assert any(said.startswith("adaptive mode: lattice of ") for said in ears.said)
    follows = px.Segmenter.from_run(tmp_path / "run")
    # What is not in the settings stays as the configuration has it.
    lattice = decided.settings.get("lattice", asdict(LatticeConfig()))
    assert asdict(follows.config.prediction.lattice) == lattice
    assert decided.adaptive.kept
    exact = px.Segmenter.from_run(tmp_path / "run", mode="exact")
    for name, model in (("one", follows), ("other", exact)):
        model.predict_study(tiny_study.path, tmp_path / name, cases=tiny_study.split.validation)
    case, = tiny_study.split.validation
    one, other = (nib.load(tmp_path / name / f"{case}.nii.gz").get_fdata()
                  for name in ("one", "other"))
    np.testing.assert_array_equal(one, other)
