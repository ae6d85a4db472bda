"""The state of a training, which its checkpoints hold: a model, its solver, averaged weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import tensorflow as tf

from pixelnet_tf.caffe.snapshot import Snapshot, save_snapshot, snapshot_paths
from pixelnet_tf.config import LrPolicy, SolverType, TrainingConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.checkpoints import Checkpoints
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.training.solver import (
    CaffeSolver,
    policy_from_config,
    solver_from_config,
    update_each,
)


class TrainingState:
    """A model, its solver, and the variables that are trained.

    Args:
        new_layers: names of the layers that do not come from pretrained weights.
        steps: solver steps of the whole training.
        learning_rate: in place of the configuration's policy; `optimizer.learning_rate` changes it.
        scales: variable path -> by what a pretrained variable was multiplied (`StartWeights`), for
            `training.native_rates`.

    Attributes:
        result: the model that is validated and kept: with `training.average_weights` one of its
            own, of the averaged weights, else the trained one.
    """

    def __init__(self, model: PixelNet, config: TrainingConfig, new_layers: Collection[str],
                 steps: int, learning_rate: float | None = None,
                 scales: Mapping[str, float] | None = None):
        self.model, self.config = model, config
        #: Where the variables have replicas, a network that has none.
        self.plain: PixelNet | None = None
        multipliers = training_multipliers(model, config, new_layers)
        if config.native_rates:
            multipliers = native_multipliers(multipliers, scales or {}, config.solver.type)
        self.optimizer = solver_from_config(config.solver, steps, multipliers, learning_rate)
        self.trained = [variable for variable in model.trainable_variables
                        if self.optimizer.multipliers[variable.path][0] > 0]
        self.optimizer.build(self.trained)
        self.result = model
        if config.average_weights:
            self.result = PixelNet(model.config, model.channels, model.classes, draw=False)
            self.result.set_weights(model.get_weights())

    @property
    def network(self) -> PixelNet:
        """`result` on one device, to validate, to save and to predict with.

        Of a state in replicas it is the network that they were copied from, which takes over the
        weights.
        """
        if self.plain is None:
            return self.result
        self.plain.set_weights([variable.numpy() for variable in self.result.weights])
        return self.plain

    @property
    def variables(self) -> list[tf.Variable]:
        """What a checkpoint holds, in its order: the weights to predict with come first."""
        own = () if self.result is self.model else self.model.variables
        return [v.value for v in (*self.result.variables, *self.optimizer.variables, *own)]

    def average(self) -> None:
        """Let the averaged weights follow the model's, after a step of the solver.

        They keep the share `average_weights` of themselves, but less in the first steps,
        (1 + t) / (10 + t) after t of them, so that the start is soon forgotten. The stored
        statistics of a BatchNorm are averaged likewise. Without averaging it does nothing.
        """
        if self.result is self.model:
            return
        step = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.float32)
        new = 1 - tf.minimum(self.config.average_weights, (1 + step) / (10 + step))
        for mean, weight in zip(self.result.variables, self.model.variables, strict=True):
            update_each(mean, _follow, tf.convert_to_tensor(weight), new)

    def go_on_from(self, snapshot: Snapshot) -> None:
        """Take over step and histories of Caffe's solver; the model has the weights already.

        Raises `ModelError` for a snapshot of another type of solver.
        """
        assert isinstance(self.optimizer, CaffeSolver)  # `check_source` has seen to it.
        self.optimizer.set_histories(snapshot.histories)
        self.optimizer.iterations.assign(snapshot.step)

    @classmethod
    def of_run(cls, run: RunFolder) -> TrainingState:
        """The last state that a run has saved, or the one that the run's path names.

        Raises:
            ModelError: it has none, or one that Caffe could not go on from. RunError: it is broken.
        """
        kind = run.kind or "last"
        if not run.exists() or run.state(kind) is None:
            raise ModelError("holds no state of a training that Caffe could go on from",
                             file=run.path, hint="give the --out of `pixelnet-tf train`")
        config = run.config()
        check_caffe_follows(config.training, run.name)
        model = PixelNet(config.model, len(config.study.modalities), len(config.score_names),
                         draw=False)
        # Only the policy `poly` asks for the number of steps, and no state holds it.
        trial = run.rate_trial()
        training = config.training if trial is None else replace(
            config.training, solver=replace(config.training.solver, base_lr=trial.chosen))
        state = cls(model, training, run.new_layers() or (), steps=1)
        Checkpoints(run.file("checkpoints"), state.variables).restore(kind)
        return state

    def snapshot_paths(self, folder: Path, form: str) -> tuple[Path, Path]:
        """Where `save_snapshot` writes the state and its caffemodel."""
        return snapshot_paths(folder, int(self.optimizer.iterations), form)

    def save_snapshot(self, folder: Path, form: str) -> tuple[Path, Path]:
        """Write the state as Caffe's snapshot, `binaryproto` or `hdf5`; returns the two files."""
        step = int(self.optimizer.iterations)
        assert isinstance(self.optimizer, CaffeSolver)  # `of_run` has seen to it.
        falls = policy_from_config(self.config.solver, max_steps=1).falls(step)
        return save_snapshot(self.model, self.optimizer.histories(), step, falls, folder, form)


def _follow(mean: tf.Variable, now: tf.Tensor, new: tf.Tensor) -> None:
    mean.assign_add(tf.cast(new, now.dtype) * (now - tf.convert_to_tensor(mean)))


def check_caffe_follows(training: TrainingConfig, run: str) -> None:
    """Raise `ModelError` where Caffe's solvers have no counterpart to what a run trains by."""
    solver = training.solver
    unknown = [text for there, text in (
        (solver.type == SolverType.ADAMW, f"solver.type={solver.type}"),
        (solver.lr_policy == LrPolicy.COSINE, f"solver.lr_policy={solver.lr_policy}"),
        (solver.warmup_steps, f"solver.warmup_steps={solver.warmup_steps}"),
        (training.native_rates, "native_rates=true"),
        (training.average_weights, f"average_weights={training.average_weights:g}")) if there]
    if unknown:
        raise ModelError(f"was trained with training.{', training.'.join(unknown)}, which Caffe's "
                         "solvers do not know, so that none could go on from its state", file=run,
                         hint="export the network alone, without --snapshot")


def training_multipliers(model: PixelNet, config: TrainingConfig, new_layers: Collection[str]
                         ) -> dict[str, tuple[float, float]]:
    """Variable path -> (lr_mult, decay_mult) for one training.

    The head learns `solver.new_layers_lr` times as fast (x10 and x20 in the authors' later files),
    and so do fc6_conv and fc7_conv where they are among `new_layers`, the names of the layers that
    do not come from pretrained weights; the first `frozen_blocks` blocks do not learn.
    """
    table = model.architecture
    frozen = {layer.name for block in table.blocks[:config.frozen_blocks] for layer in block}
    new = {*table.head_names, *(layer.name for layer in table.beside)}
    new |= set(new_layers) - set(table.trunk_names)
    found = {}
    for path, (rate, decay) in model.multipliers.items():
        layer = path.split("/")[0]
        factor = 0.0 if layer in frozen else config.solver.new_layers_lr if layer in new else 1.0
        found[path] = (rate * factor, decay)
    return found


def native_multipliers(multipliers: Mapping[str, tuple[float, float]],
                       scales: Mapping[str, float], solver: str) -> dict[str, tuple[float, float]]:
    """Multipliers by which rescaled weights learn as they would have, had they not been rescaled.

    A weight that was multiplied by s has its gradient divided by s. For solvers that step in
    proportion to the gradient the rate is multiplied by s^2, so that the step is s times the one
    before; for those that divide by the gradient's own size, by s. The decay's multiplier takes
    that back, so that the share of a weight that decays is s times the one before, too.
    """
    power = 2 if solver in (SolverType.SGD, SolverType.NESTEROV) else 1
    found = dict(multipliers)
    for path, scale in scales.items():
        rate, decay = multipliers[path]
        found[path] = (rate * scale**power, decay / scale**power)
    return found
