"""The training loop: one tf.function step a mini-batch, under tf.distribute's current strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.priors import measure_priors
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.dataset.shards import parse_record
from pixelnet_tf.errors import DataError, RunError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.checkpoints import Checkpoints
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.initial import initialise
from pixelnet_tf.training.log import TrainingLog
from pixelnet_tf.training.multipliers import training_multipliers
from pixelnet_tf.training.solver import solver_from_config
from pixelnet_tf.training.step import loss_and_gradients
from pixelnet_tf.training.tap_balance import balance_taps
from pixelnet_tf.training.validation import case_validator, fit_prior_strength

#: Called with every row of the log and the total number of steps.
Progress = Callable[[dict[str, Any], int], None]


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do, worked out before its first step."""

    steps: int
    steps_per_epoch: int
    epoch_slices: int
    checkpoint_every: int
    validate_every: int
    log_every: int


def plan_training(config: Config, schedule: SliceSchedule, validates: bool) -> TrainingPlan:
    """Work out how many steps an epoch, the training and its intervals have."""
    training = config.training
    per_epoch = -(-schedule.epoch_slices // training.batch_slices)
    steps = training.steps or training.epochs * per_epoch
    return TrainingPlan(steps, per_epoch, schedule.epoch_slices,
                        training.checkpoint_every or min(per_epoch, 200),
                        (training.validate_every or per_epoch) if validates else 0,
                        max(1, min(20, steps // 50)))


class Trainer:
    """Train a PixelNet on a prepared study and write a run.

    Args:
        config: the resolved configuration.
        study: prepared slices.
        split: which cases train and validate.
        out: the run's folder, any path that `tf.io.gfile` knows.
        progress, say: receive rows of the log and lines of text.

    Raises:
        DataError: nothing to train on. ModelError: start weights that do not fit.
    """

    def __init__(self, config: Config, study: PreparedStudy, split: Split, out: str, *,
                 progress: Progress | None = None, say: Callable[[str], None] = lambda line: None):
        if not split.train:
            raise DataError(f"{study.path}: the split has no case to train on")
        self.config, self.study, self.split = config, study, split
        self.run_folder = RunFolder(out)
        self.progress, self.say = progress, say
        self.schedule = SliceSchedule(study, split.train, config.sampling, config.training.seed)
        self.plan = plan_training(config, self.schedule, bool(split.validation))
        self.priors = measure_priors(study, self.schedule, config.sampling)
        self.validate = case_validator(study, split.validation, config, self.priors)
        self.strategy = tf.distribute.get_strategy()

    def run(self, resume: bool = False) -> PixelNet:
        """Train to the last step; returns the final model, the best one if it was validated.

        Raises:
            RunError: the folder holds a run already and `resume` is False, or writing fails.
            ConfigError: resumed with another configuration.
        """
        folder, config = self.run_folder, self.config
        if folder.exists() and not resume:
            raise RunError(f"{folder.path}: holds a run already; go on with --resume, or give a "
                           "new --out")
        resume = resume and folder.exists()
        if resume:
            folder.check_same_config(config)
        if config.training.deterministic:
            keras.utils.set_random_seed(config.training.seed)
            tf.config.experimental.enable_op_determinism()
        with self.strategy.scope():
            model = PixelNet(config.model, len(config.study.modalities),
                             len(config.study.labels), seed=config.training.seed)
            self._check_image_sizes(model)
            for line in initialise(model, config.training.initial_weights,
                                   config.training.pretrained_intensity):
                self.say(line)
            if config.training.balance_taps and not resume:
                self._balance_taps(model)
            optimizer = solver_from_config(config.training.solver, self.plan.steps,
                                           training_multipliers(model, config.training))
            trained = [v for v in model.trainable_variables
                       if optimizer.multipliers[v.path][0] > 0]
            optimizer.build(trained)
        if not resume:
            folder.start(config, self.split, self.priors)
        checkpoints = Checkpoints(folder.file("checkpoints"),
                                  [v.value for v in (*model.variables, *optimizer.variables)])
        self._loop(model, optimizer, trained, checkpoints,
                   checkpoints.restore("last") if resume else None)
        if checkpoints.restore("best"):
            self.say(f"best validation at step {checkpoints.state['best']['step']}: "
                     f"{checkpoints.state['best']['score']:.4f}")
        if self.split.validation:
            self._fit_priors(model)
        folder.save_model(model)
        return model

    def _balance_taps(self, model: PixelNet) -> None:
        rows = self.schedule.with_lesion
        rows = rows[np.linspace(0, len(rows) - 1, num=min(8, len(rows))).astype(int)]
        channels = len(self.config.study.modalities)
        images = [parse_record(tf.constant(self.study.read_record_bytes(row)), channels)["image"]
                  for row in rows]
        height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
        padded = [tf.image.pad_to_bounding_box(image, 0, 0, height, width) for image in images]
        factors = balance_taps(model, np.stack(padded))
        self.say("taps balanced, factors " + " ".join(f"{factor:.3g}" for factor in factors))

    def _fit_priors(self, model: PixelNet) -> None:
        priors, dice = fit_prior_strength(model, self.study, self.split.validation, self.config,
                                          self.priors)
        self.run_folder.save_priors(priors)
        self.say("prior correction fitted on the validation cases: strength "
                 f"{priors.strength:g} (Dice " + ", ".join(
                     f"{strength:g}: {value:.3f}" for strength, value in dice.items()) + ")")

    def _loop(self, model, optimizer, trained, checkpoints: Checkpoints, state) -> None:
        config, plan = self.config, self.plan
        first = state["step"] if state else 0
        columns = [f"validation/dice_{name}" for name in config.study.class_names[1:]]
        log = TrainingLog(self.run_folder.path, first, (*columns, "validation/score"))
        batches = iter(training_batches(
            self.study, self.schedule, config.sampling, first_step=first,
            batch_slices=config.training.batch_slices, seed=config.training.seed))
        step_function = self._step_function(model, optimizer, trained)
        mark, step = (log.seconds(), first), first
        try:
            for step in range(first + 1, plan.steps + 1):
                loss = step_function(next(batches), tf.constant(step, tf.int32))
                if step % plan.log_every == 0 or step == plan.steps:
                    self._log(log, step, float(loss), optimizer, mark)
                    mark = (log.seconds(), step)
                if plan.validate_every and (step % plan.validate_every == 0 or step == plan.steps):
                    self._validate(model, checkpoints, log, step)
                    mark = (log.seconds(), step)
                if step % plan.checkpoint_every == 0 or step == plan.steps:
                    checkpoints.save("last", step)
        except KeyboardInterrupt:
            # The interrupted step may be half applied; the last whole state is on disk.
            last = checkpoints.state.get("last", {}).get("step", 0)
            self.say(f"stopped in step {step}; --resume goes on from step {last}")
            raise
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            # A broken record's bytes stand in TensorFlow's message and need not be text.
            reason = getattr(error, "message", "a record of the prepared study is broken")
            raise RunError(f"training failed in step {step}: {reason}; if {self.study.path} was "
                           "prepared anew meanwhile, start again") from None
        finally:
            log.close()

    def _step_function(self, model, optimizer, trained):
        training, strategy = self.config.training, self.strategy
        precision = tf.as_dtype(training.precision)
        tensors = [variable.value for variable in trained]

        def one_worker(batch, seed):
            loss, gradients = loss_and_gradients(model, batch, seed, variables=tensors,
                                                 fast=training.fast, precision=precision)
            count = strategy.num_replicas_in_sync
            if count > 1:
                # Keras' `apply` adds them up over the replicas.
                gradients = [g / count for g in gradients]
            optimizer.apply(gradients, trained)
            return loss

        @tf.function(reduce_retracing=True)
        def step_function(batch, step):
            seed = tf.stack([training.seed, step])
            losses = strategy.run(one_worker, args=(batch, seed))
            return strategy.reduce(tf.distribute.ReduceOp.MEAN, losses, axis=None)

        return step_function

    def _log(self, log: TrainingLog, step: int, loss: float, optimizer, mark) -> None:
        if loss != loss:
            raise RunError(f"the loss is not a number at step {step}; lower "
                           "training.solver.base_lr, and resume is of no use: start anew")
        seconds, since = mark
        slices = (step - since) * self.config.training.batch_slices
        row = {"step": step, "epoch": round(step / self.plan.steps_per_epoch, 3), "loss": loss,
               "learning_rate": float(optimizer.learning_rate),
               "slices_per_second": round(slices / max(log.seconds() - seconds, 1e-9), 3)}
        log.write(**row)
        if self.progress:
            self.progress(row, self.plan.steps)

    def _validate(self, model, checkpoints: Checkpoints, log: TrainingLog, step: int) -> None:
        scores = self.validate(model)
        mean = sum(scores.values()) / len(scores)
        row = {f"validation/{name}": value for name, value in scores.items()}
        log.write(step=step, **row, **{"validation/score": mean})
        if self.progress:
            self.progress({"step": step, **row}, self.plan.steps)
        if mean > checkpoints.state.get("best", {}).get("score", -1.0):
            checkpoints.save("best", step, score=mean)

    def _check_image_sizes(self, model: PixelNet) -> None:
        index = self.study.index
        for height, width in {*zip(index.height.tolist(), index.width.tolist(), strict=True)}:
            model.check_image_size(height, width)
