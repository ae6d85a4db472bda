"""A contestant of this package."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import AUTO, Config
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.slice_segmenter import SliceSegmenter
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.training.loop import Trainer
from pixelnet_tf.training.rate_trial import with_rate
from pixelnet_tf.training.state import TrainingState
from pixelnet_tf.training.step import make_step


def seconds_a_step(config: Config, study: PreparedStudy, split: Split, steps: int) -> float:
    """CPU-seconds of a step, reading and varying the slices counted in, from the fourth on."""
    trainer = Trainer(config, study, split, "never-written")
    model = trainer._new_model()
    training = config.training
    if training.solver.base_lr == AUTO:
        training = with_rate(training, 1e-5)
    state = TrainingState(model, training, model.weighted, 10**6)
    step = make_step(state, config.sampling, config.scored_regions)
    size = training.solver.iter_size
    batches = iter(training_batches(study, trainer.schedule, config.sampling,
                                    batch_slices=training.batch_slices, seed=training.seed))
    for number in range(1, steps + 4):
        if number == 4:
            start = time.process_time()
        step([next(batches) for _ in range(size)], tf.constant(number, tf.int32))
    return (time.process_time() - start) / steps


class _Trainer(Trainer):
    """A training whose prediction is decided by the race, with one rule for all contestants."""

    def _decide(self, model: PixelNet, measured: ClassPriors) -> None:
        pass


def run_config(config: Config, steps: int, every: int) -> Config:
    """The configuration of a run of so many steps, which validates after `every` of them."""
    return replace(config, training=replace(config.training, steps=steps, validate_every=every,
                                            checkpoint_every=min(100, every)))


def train(config: Config, study: PreparedStudy, split: Split, run: Path, steps: int,
          every: int, reporter: Reporter) -> SliceSegmenter:
    """Train, or go on, for the given steps, validating after `every` of them."""
    if config.model.region_based:
        # The race decides for all contestants by offsets of classes.
        raise ConfigError("a race compares networks that score classes",
                          hint="set model.region_based=false")
    trainer = _Trainer(run_config(config, steps, every), study, split, str(run), reporter=reporter)
    if (run / "model.keras").exists():
        trainer.check(resume=True)
        model = trainer.run_folder.model()
    else:
        model = trainer.run(resume=True)
    return SliceSegmenter(model, precision=config.prediction.precision, frozen=True)


def curve(run: Path) -> list[tuple[int, float]]:
    """(step, validation Dice) of the log."""
    from pixelnet_tf.runs.folder import RunFolder

    return [(row["step"], row["validation/score"]) for row in RunFolder(str(run)).log_rows()
            if "validation/score" in row]
