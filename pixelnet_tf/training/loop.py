"""The training loop: one tf.function step a mini-batch, on one device or several replicas."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import AUTO, Config, FollowDecisions, TrainingConfig
from pixelnet_tf.dataset.measure_priors import measure_priors
from pixelnet_tf.dataset.pipeline import in_turn, parse_record, parts_of, training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import ConfigError, DataError, RunError, is_out_of_memory
from pixelnet_tf.evaluation.comparison import ENOUGH_CASES, LEAST_GAIN
from pixelnet_tf.io.files import check_apart, remove_leftovers
from pixelnet_tf.io.locks import Lock, check_free, exclusive
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.model.precision import auto_precision
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.runs.checkpoints import Checkpoints
from pixelnet_tf.runs.compatibility import RESUME, Basis, check_fit
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.rate_trial import STEPS, RateTrial
from pixelnet_tf.training.decisions import decide
from pixelnet_tf.training.initial import (
    StartWeights,
    balance_taps,
    check_source,
    initialise,
    tap_scales,
)
from pixelnet_tf.training.interruption import TERMINATED, TRY_AGAIN, Interruption
from pixelnet_tf.training.log import TrainingLog
from pixelnet_tf.training.needs import needs_of
from pixelnet_tf.training.rate_trial import find_rate, with_rate
from pixelnet_tf.training.replicas import Replicas, check_shared
from pixelnet_tf.training.solver import policy_from_config
from pixelnet_tf.training.state import TrainingState
from pixelnet_tf.training.step import Step, make_step
from pixelnet_tf.training.validation import case_validator, validated

#: Progress is reported at least so often, whatever is logged: a step may take a minute.
_REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do, worked out before its first step."""

    steps: int
    steps_per_epoch: int
    epoch_slices: int
    checkpoint_every: int
    validate_every: int
    log_every: int


def plan_training(training: TrainingConfig, schedule: SliceSchedule, validates: bool
                  ) -> TrainingPlan:
    """Work out how many steps an epoch, the training and its intervals have."""
    per_epoch = -(-schedule.epoch_slices // training.step_slices)
    steps = training.steps or training.epochs * per_epoch
    return TrainingPlan(steps, per_epoch, schedule.epoch_slices,
                        training.checkpoint_every or min(per_epoch, 200),
                        (training.validate_every or per_epoch) if validates else 0,
                        max(1, min(20, steps // 50)))


class Trainer:
    """Train a PixelNet on a prepared study and write a run.

    Args:
        config: the resolved configuration; its sections `study` and `prepare` are replaced by those
            that the study was prepared with.
        study: prepared slices.
        split: which cases train and validate.
        out: the run's folder, any path that `tf.io.gfile` knows.
        reporter: hears of the task "training", in steps, of validations, and of what is found.
        replicas: devices that share each mini-batch; None: one device.

    Raises:
        DataError: nothing to train on.
        ConfigError: what several replicas cannot share.
    """

    def __init__(self, config: Config, study: PreparedStudy, split: Split, out: str, *,
                 reporter: Reporter | None = None, replicas: Replicas | None = None):
        if not split.train:
            raise DataError("the split has no case to train on", file=study.path)
        self.study, self.split = study, split
        self.run_folder = RunFolder(out)
        config = replace(config, study=study.config.study, prepare=study.config.prepare)
        if self.run_folder.exists():
            # What was chosen when the run began, on whatever machine.
            begun = self.run_folder.config()
            config = config.with_precision(begun.training.precision, begun.prediction.precision)
        self.config = config.with_precision(auto_precision(config.model))
        self.replicas, self.reporter = replicas, reporter_or_log(reporter)
        if replicas is not None:
            check_shared(config.training.batch_slices, config.model.batch_norm, replicas.count)
            if not replicas.chief:
                self.reporter = WarningsAlone(self.reporter)
        self.schedule = SliceSchedule(study, split.train, config.sampling, config.training.seed,
                                      config.model.offsets, config.model.planes)
        self.plan = plan_training(config.training, self.schedule, bool(split.validation))

    def check(self, resume: bool = False) -> None:
        """Raise what can be told before any work; writes nothing.

        Raises:
            RunError: the folder holds a run already and `resume` is False, or another program
                is at work there.
            ConfigError: resumed with another configuration, split or study; called within the scope
                of a strategy; the folder lies within the prepared study.
            DataError: a case's slices are missing or cut short.
            ModelError: start weights that do not exist; slices too small for the network.
        """
        folder, training = self.run_folder, self.config.training
        check_apart(folder.path, self.study.path)
        check_free(folder.path)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ConfigError("within the scope of a tf.distribute strategy every replica would "
                              "train on the same slices",
                              hint="leave the strategy's scope, and give replicas=")
        if folder.kind is not None:
            raise RunError(f"{folder.name}: is a checkpoint of {folder.path}",
                           hint="give another --out")
        self._check_folder(resume)
        if self._starts():
            check_source(training.initial_weights, self.plan.steps, training.balance_taps,
                         training.solver)
            # Raises where the policy asks for more steps than there are.
            policy_from_config(training.solver if training.solver.base_lr != AUTO
                               else with_rate(training, 1.0).solver, self.plan.steps)
        for case in (*self.split.train, *self.split.validation):
            self.study.check_shard(case)
        index = self.study.index
        network = Architecture.of(self.config.model, len(self.config.score_names))
        network.blob_shapes(len(self.config.study.modalities))
        for height, width in {*zip(index.height.tolist(), index.width.tolist(), strict=True)}:
            network.check_image_size(height, width)

    def _check_folder(self, resume: bool) -> None:
        if self.run_folder.exists():
            if not resume:
                raise RunError("holds a run already", file=self.run_folder.path,
                               hint="go on with --resume, or give a new --out")
            check_fit(self.run_folder.basis(), self._basis(), RESUME)

    def check_start_weights(self) -> None:
        """Give a network its start weights, as `run` does, and let go of it; writes nothing.

        A training that goes on from a checkpoint has none to check. ImageNet's are fetched, if they
        are not there yet.

        Raises:
            ModelError: start weights that cannot be had, or do not fit.
        """
        if self._starts():
            training = self.config.training
            initialise(self._new_model(), training.initial_weights,
                       training.pretrained_intensity, training.extra_channels)

    def describe(self) -> str:
        """One sentence about what the training will do."""
        return (f"{len(self.split.train)} training and {len(self.split.validation)} validation "
                f"cases; {self.plan.epoch_slices} slices an epoch, {self.plan.steps} steps of "
                f"{self.config.training.step_slices} slices, {self.config.sampling.words}, in "
                f"{self.config.training.precision}"
                + (f"; {self.replicas.describe()}" if self.replicas else ""))

    def needs(self) -> str:
        """One sentence about what it will take of this machine, estimated in a second."""
        index, study = self.study.index, self.config.study
        needs = needs_of(Architecture.of(self.config.model, len(self.config.score_names)),
                         self.config.training, self.config.sampling, len(study.modalities),
                         int(index.height.max()), int(index.width.max()))
        return needs.line(self.plan.steps)

    def measure_priors(self) -> ClassPriors:
        """Class frequencies of the training slices; with `sampling.lesion_mixing` they are drawn,
        which takes some seconds."""
        return measure_priors(self.study, self.schedule, self.config.sampling,
                              self.config.scored_regions)

    def run(self, resume: bool = False) -> PixelNet:
        """Train to the last step; returns the final model, the best one if it was validated.

        Ctrl-C (KeyboardInterrupt) and SIGTERM (SystemExit with code 143, with replicas 75) end the
        step at hand, save the state and leave; a second one does not wait. Of several workers all
        stop after the same step, whichever was asked to. One that is not the chief returns a
        network that means nothing.

        Args:
            resume: go on from the run's last checkpoint, to the same weights as a training that
                was never stopped; without a checkpoint, or a run, it starts with the first step.

        Raises:
            PixelNetError: as `check`; RunError: writing fails. ModelError: start weights that do
                not fit.
        """
        self.check(resume)
        replicas = self.replicas
        code = TERMINATED if replicas is None else TRY_AGAIN
        with Interruption(code) as interruption, _deterministic(self.config.training):
            if replicas is None:
                return self._as_chief(interruption, resume)
            try:
                # All have looked at the folder, which the chief now begins.
                replicas.wait()
                return (self._as_chief(interruption, resume) if replicas.chief
                        else self._follow(interruption, replicas))
            except tf.errors.OpError as error:
                if is_out_of_memory(error):
                    raise
                raise (replicas.failure(error)
                       or RunError(f"training failed: {_reason(error)}")) from None

    def _as_chief(self, interruption: Interruption, resume: bool) -> PixelNet:
        with exclusive(self.run_folder.path, "train", self.reporter) as lock:
            # Another one may have been at work there until now.
            self._check_folder(resume)
            return self._run(interruption, lock)

    def _follow(self, interruption: Interruption, replicas: Replicas) -> PixelNet:
        """Train beside the chief, which alone writes to the folder."""
        folder, config = self.run_folder, self.config
        replicas.wait()
        new_layers = folder.new_layers() if folder.exists() else None
        if new_layers is None:
            raise RunError(f"holds no run that {replicas.own} sees, and the chief has begun it",
                           file=folder.path, hint="give an --out that all workers share")
        trial = folder.rate_trial() if config.training.solver.base_lr == AUTO else None
        training = config.training if trial is None else with_rate(config.training, trial.chosen)
        model = self._new_model()
        whole = replicas.state(model, training, new_layers, self.plan.steps, folder.scales())
        replicas.take_from_chief(whole.variables)
        _Steps(self, whole, interruption, replicas.sum(0)).run()
        return model

    def _run(self, interruption: Interruption, lock: Lock) -> PixelNet:
        folder = self.run_folder
        for part in ("", "tensorboard"):
            remove_leftovers(folder.file(part))
        whole, checkpoints, priors = self.begin()
        for line in priors.lines():
            self.reporter.message(line)
        if self.replicas is not None:
            self.replicas.take_from_chief(whole.variables)
            self.replicas.sum(checkpoints.state.get("last", {}).get("step", 0))
        _Loop(self, whole, checkpoints, priors, interruption, lock).run()
        best = checkpoints.restore("best")
        model = whole.network
        if best:
            self.reporter.message(f"best validation at step {checkpoints.state['best']['step']}: "
                                  f"{checkpoints.state['best']['score']:.4f}")
        lock.check()
        self._decide(model, priors)
        folder.save_model(model)
        return model

    def begin(self) -> tuple[TrainingState, Checkpoints, ClassPriors]:
        """The state that the training goes on from, and writes the run's files of a new one.

        Raises: as `run`.
        """
        folder, config = self.run_folder, self.config
        state = folder.state("last") if folder.exists() else None
        if state is None and folder.exists():
            self.reporter.message("no checkpoint yet: starting again with the first step")
        model = self._new_model()
        new_layers = None if state is None else folder.new_layers()
        scales, snapshot = folder.scales() if folder.exists() else {}, None
        if new_layers is None:
            start = self._initialise(model, balance=state is None)
            new_layers, snapshot = start.new_layers, start.snapshot
            scales = start.scales if config.training.native_rates else {}
        trial = self._rate_trial(model, new_layers, scales, started=state is not None)
        training = config.training if trial is None else with_rate(config.training, trial.chosen)
        if self.replicas is None:
            whole = TrainingState(model, training, new_layers, self.plan.steps, scales=scales)
            if state is None and snapshot is not None:
                whole.go_on_from(snapshot)
        if state is None:
            priors = self.measure_priors()
            folder.start(config, self.split, priors, self._basis().slices, new_layers, trial,
                         scales)
        else:
            priors = folder.priors()
        if self.replicas is not None:
            # The others make theirs after the chief's folder, and each variable together with it.
            self.replicas.wait()
            whole = self.replicas.state(model, training, new_layers, self.plan.steps, scales)
            if state is None and snapshot is not None:
                whole.go_on_from(snapshot)
        checkpoints = Checkpoints(folder.file("checkpoints"), whole.variables, self.reporter)
        checkpoints.remove_leftovers()
        if state is None and snapshot is not None:
            checkpoints.save("last", snapshot.step)
        restored = checkpoints.restore("last")
        if restored is not None and state is not None:
            self.reporter.message(f"going on from step {restored['step']} of {self.plan.steps}")
        return whole, checkpoints, priors

    def _starts(self) -> bool:
        """Whether the training begins with its first step."""
        return not self.run_folder.exists() or self.run_folder.state("last") is None

    def _new_model(self) -> PixelNet:
        config = self.config
        return PixelNet(config.model, len(config.study.modalities), len(config.score_names),
                        seed=config.training.seed)

    def _basis(self) -> Basis:
        # Validation cases choose the best checkpoint, and so the weights.
        slices = self.study.digest((*self.split.train, *self.split.validation))
        return Basis("this call", self.config, self.split, slices, on_disk=False)

    def _initialise(self, model: PixelNet, balance: bool) -> StartWeights:
        """Give the model its start weights."""
        training = self.config.training
        start = initialise(model, training.initial_weights, training.pretrained_intensity,
                           training.extra_channels)
        for line in start.lines:
            self.reporter.message(line)
        if training.balance_taps and balance:
            scales = dict(start.scales)
            for path, scale in tap_scales(model, self._balance_taps(model)).items():
                if path.split("/")[0] not in start.new_layers:
                    scales[path] = scales.get(path, 1.0) * scale
            return replace(start, scales=scales)
        return start

    def _rate_trial(self, model: PixelNet, new_layers: Collection[str],
                    scales: Mapping[str, float], started: bool) -> RateTrial | None:
        """The trial of `base_lr: auto`: the run's own where it has one, else a new one."""
        config = self.config
        if config.training.solver.base_lr != AUTO:
            return None
        trial = self.run_folder.rate_trial() if self.run_folder.exists() else None
        if trial is None:
            if started:
                raise RunError("is missing, and with it the learning rate that the training began "
                               "with", file=self.run_folder.file("learning_rate.json"),
                               hint="take it from a copy of the run, or train anew into a new "
                                    "--out")
            size = config.training.solver.iter_size
            batches = in_turn(training_batches(
                self.study, self.schedule, config.sampling, seed=config.training.seed,
                batch_slices=config.training.batch_slices).take(STEPS * size))
            try:
                kept = list(batches)
                trial = find_rate(model, config.training, config.sampling, new_layers, scales,
                                  [kept[at:at + size] for at in range(0, len(kept), size)],
                                  self.reporter, config.scored_regions)
            except (tf.errors.OpError, UnicodeDecodeError) as error:
                if is_out_of_memory(error):
                    raise
                raise RunError(
                    f"the trial of the learning rate failed: {_reason(error)}",
                    hint=f"if {self.study.path} was prepared anew meanwhile, start again"
                ) from None
        self.reporter.message(trial.describe())
        return trial

    def _balance_taps(self, model: PixelNet) -> list[float]:
        rows = self.schedule.with_lesion
        rows = rows[np.linspace(0, len(rows) - 1, num=min(8, len(rows))).astype(int)]
        channels = len(self.config.study.modalities)
        images = [parse_record(tf.constant(self.study.read_record_bytes(row)), channels)["image"]
                  for row in rows]
        height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
        padded = [tf.image.pad_to_bounding_box(image, 0, 0, height, width) for image in images]
        factors = balance_taps(model, np.stack(padded))
        self.reporter.message("taps balanced, factors "
                              + " ".join(f"{factor:.3g}" for factor in factors))
        return factors

    def _decide(self, model: PixelNet, measured: ClassPriors) -> None:
        """Let the validation cases decide about the prediction, and write what they did."""
        asked = self.config.prediction
        if not self.split.validation:
            self.reporter.warning(
                "no validation cases: nothing could be decided about the prediction, which takes "
                f"the settings of the configuration (prior {asked.prior}); set split.validation")
            return
        priors, decisions = decide(model, self.study, self.split.validation, asked,
                                   self.config.training.precision, measured, self.reporter)
        self.run_folder.save_priors(priors)
        self.run_folder.save_decisions(decisions)
        for trial in decisions.tried:
            self.reporter.message(f"  {trial.line()}")
        count = len(decisions.cases)
        few = (f", which are few: taken is only what gains {LEAST_GAIN:g} and in each case"
               if count < ENOUGH_CASES else "")
        use = ("predict, export and serve follow them" if asked.decisions == FollowDecisions.APPLY
               else "not applied, as prediction.decisions is ignore")
        self.reporter.message(f"decided on {count} validation cases{few}: "
                              f"{decisions.settings or 'no change'}; in decisions.json, {use}")


class WarningsAlone:
    """The reporter of a worker that is not the chief: what the chief says need not be said twice.

    Args:
        reporter: hears the warnings.
    """

    def __init__(self, reporter: Reporter):
        self.warning = reporter.warning

    def message(self, text: str) -> None:
        """Say nothing."""

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        """Say nothing."""


class _Steps:
    """The solver steps of one training, as a worker takes them that leaves the rest to the chief.

    Args:
        done: the last step whose update is complete.
    """

    def __init__(self, trainer: Trainer, whole: TrainingState, interruption: Interruption,
                 done: int):
        # With the rate that a trial found, where one did.
        self.config = replace(trainer.config, training=whole.config)
        self.plan = trainer.plan
        self.reporter = trainer.reporter
        self.replicas = trainer.replicas
        self.state, self.interruption, self.done = whole, interruption, done
        self.study_path = trainer.study.path
        #: Whether the last step still lacks its validation.
        self.unvalidated = False
        #: Whether the variables hold the state after `done`, and nothing of a later step.
        self.whole = True
        self.batches = [in_turn(training_batches(
            trainer.study, trainer.schedule, self.config.sampling,
            first_batch=self.done * self.config.training.solver.iter_size,
            batch_slices=self.config.training.batch_slices, seed=self.config.training.seed,
            part=part)) for part in self._parts()]

    def _parts(self) -> list[range | None]:
        """The part of a mini-batch that each replica of this process reads; None: all of it."""
        if self.replicas is None:
            return [None]
        parts = parts_of(self.config.training.batch_slices, self.replicas.count)
        return [parts[number] for number in self.replicas.local]

    def run(self) -> None:
        """Do every step that is left, each with the log, validation and checkpoint due after it."""
        try:
            if self.replicas is None or self.replicas.cluster is None:
                self._run()
            else:
                # All workers stop after the same step, so that none waits for another in vain.
                with self.interruption.held():
                    self._run()
        except (KeyboardInterrupt, SystemExit):
            self._stop()
            raise
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            if is_out_of_memory(error):
                raise
            lost = (self.replicas.failure(error)
                    if self.replicas and isinstance(error, tf.errors.OpError) else None)
            raise lost or RunError(
                f"training failed in step {self.done + 1}: {_reason(error)}",
                hint=f"if {self.study_path} was prepared anew meanwhile, start again") from None
        finally:
            self._close()

    def _run(self) -> None:
        step_function = make_step(self.state, self.config.sampling, self.config.scored_regions,
                                  self.replicas)
        if self.unvalidated:
            self._validate_or_stop()
            self._save()
        if self.done < self.plan.steps:
            self.reporter.message("the first step takes longest: TensorFlow builds the "
                                  "network's computation")
        while self.done < self.plan.steps:
            with self.interruption.held():
                self._step(step_function)
            if self.unvalidated:
                self._validate_or_stop()
            if self._due(self.plan.checkpoint_every):
                with self.interruption.held():
                    self._save()
            if self.replicas is not None and self.replicas.cluster is not None:
                if self.replicas.sum(int(self.interruption.asked)):
                    self.interruption.stop()

    def _validate_or_stop(self) -> None:
        """Validate; among several workers a signal breaks it off, and waits for all of them."""
        if self.replicas is None or self.replicas.cluster is None:
            self._validate()
        elif not self.interruption.asked:
            with self.interruption.not_held():
                self._validate()

    def _due(self, every: int) -> bool:
        return bool(every) and (self.done % every == 0 or self.done == self.plan.steps)

    def _step(self, step_function: Step) -> None:
        batches: list[Any] = [[next(part) for part in self.batches]
                              for _ in range(self.config.training.solver.iter_size)]
        if self.replicas is None:
            batches = [batch for batch, in batches]
        self.whole = False
        loss = float(step_function(batches, tf.constant(self.done + 1, tf.int32)))
        if not math.isfinite(loss):
            # Looked at after every step: no checkpoint may hold what such a step left behind.
            raise RunError(f"the loss is not a number at step {self.done + 1}",
                           hint="lower training.solver.base_lr, and resume is of no use: start "
                                "anew")
        self.done, self.whole = self.done + 1, True
        self._told(loss)

    def _told(self, loss: float) -> None:
        """Do with a step's loss what is due."""

    def _validate(self) -> None:
        """Score the state after the last step."""

    def _save(self) -> None:
        """Save the state."""

    def _stop(self) -> None:
        """Save what a stop would lose."""

    def _close(self) -> None:
        """Let go of what is open."""


class _Loop(_Steps):
    """The solver steps of one training, from the step after its checkpoint on, and what is written
    of them."""

    def __init__(self, trainer: Trainer, whole: TrainingState, checkpoints: Checkpoints,
                 priors: ClassPriors, interruption: Interruption, lock: Lock):
        saved = checkpoints.state.get("last", {})
        super().__init__(trainer, whole, interruption, saved.get("step", 0))
        self.checkpoints, self.lock = checkpoints, lock
        self.validate = case_validator(
            trainer.study, trainer.split.validation, self.config.prediction,
            self.config.training.precision, priors)
        self.policy = policy_from_config(self.config.training.solver, self.plan.steps)
        self.unvalidated = saved.get("unvalidated", False)
        columns = [f"validation/dice_{name}" for name in validated(self.config.study,
                                                                   self.config.model.region_based)]
        self.log = TrainingLog(trainer.run_folder.path, self.done, (*columns, "validation/score"))
        self.mark = (self.log.seconds(), self.done)
        #: When progress was reported last; not yet, so that the first step is told of.
        self.reported = float("-inf")

    def _told(self, loss: float) -> None:
        self.unvalidated = self._due(self.plan.validate_every)
        if self._due(self.plan.log_every):
            self._log(loss)
        elif time.monotonic() - self.reported > _REPORT_SECONDS:
            self._report(loss)

    def _close(self) -> None:
        self.log.close()

    def _log(self, loss: float) -> None:
        step = self.done
        seconds, since = self.mark
        slices = (step - since) * self.config.training.step_slices
        row = {"step": step, "epoch": round(step / self.plan.steps_per_epoch, 3), "loss": loss,
               # The step's own rate: the policy counts from 0, and the solver is a step further.
               "learning_rate": float(self.policy(step - 1)),
               "slices_per_second": round(slices / max(self.log.seconds() - seconds, 1e-9), 3)}
        self.log.write(**row)
        self._report(loss)
        self.mark = (self.log.seconds(), step)

    def _report(self, loss: float) -> None:
        step, (seconds, since) = self.done, self.mark
        slices = (step - since) * self.config.training.step_slices
        self.reported = time.monotonic()
        self.reporter.progress(
            "training", step, self.plan.steps,
            f"epoch {step / self.plan.steps_per_epoch:.2f}  loss {loss:.4f}  "
            f"lr {float(self.policy(step - 1)):.2e}  "
            f"{slices / max(self.log.seconds() - seconds, 1e-9):.2f} slices/s")

    def _validate(self) -> None:
        """Score the state after the last step, and keep it where it is the best so far.

        A stop in between costs the scores alone: they are taken first thing after a resume.
        """
        scores = self.validate(self.state.network)
        with self.interruption.held():
            mean = sum(scores.values()) / len(scores)
            row = {f"validation/{name}": value for name, value in scores.items()}
            self.log.write(step=self.done, **row, **{"validation/score": mean})
            self.reporter.message(f"step {self.done}/{self.plan.steps}  validation  " + "  ".join(
                f"{name} {value:.3f}" for name, value in scores.items()))
            if mean > self.checkpoints.state.get("best", {}).get("score", -1.0):
                self.lock.check()
                self.checkpoints.save("best", self.done, score=mean)
            self.unvalidated = False
        self.mark = (self.log.seconds(), self.done)

    def _save(self) -> None:
        details = {"unvalidated": True} if self.unvalidated else {}
        self.lock.check()
        self.log.keep()
        self.checkpoints.save("last", self.done, **details)

    def _stop(self) -> None:
        """Save what a stop would lose, and say where a resume goes on."""
        saved = self.checkpoints.state.get("last", {}).get("step", 0)
        if self.whole and self.done > saved:
            self._save()
            saved = self.done
        self.reporter.message(
            f"stopped; the state after step {saved} is saved, --resume goes on from there"
            if saved else "stopped before the first step had ended; --resume starts with it")


def _reason(error: Exception) -> str:
    # A broken record's bytes stand in TensorFlow's message and need not be text.
    return getattr(error, "message", "a record of the prepared study is broken")


@contextmanager
def _deterministic(training: TrainingConfig) -> Iterator[None]:
    """TensorFlow's deterministic kernels, where the training asks for them, and Python's generator
    seeded, from which Keras takes the seeds of layers that have none; both put back afterwards."""
    if not training.deterministic:
        yield
        return
    # TensorFlow can turn it off again, but not by a public name.
    from tensorflow.python.framework import config as tf_config

    before, state = tf_config.is_op_determinism_enabled(), random.getstate()
    random.seed(training.seed)
    tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        random.setstate(state)
        if not before:
            tf_config.disable_op_determinism()
