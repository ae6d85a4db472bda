"""A run on disk: its configuration, split, priors and model."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config, Prior, config_from_yaml, config_to_yaml
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.io import remote
from pixelnet_tf.io.files import (
    begin_folder,
    file_digest,
    read_json_as,
    read_json_lines,
    read_text,
    remove,
    replacing,
    write_json,
    write_text,
)
from pixelnet_tf.io.plain import build
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.checkpoints import load_state, read_states, remove_states
from pixelnet_tf.runs.compatibility import WEIGHTS, Basis, check_fit
from pixelnet_tf.runs.decisions import Decisions
from pixelnet_tf.runs.keras_file import load_known_model
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.runs.rate_trial import RateTrial

#: What to do with a broken file of a run.
_ADVICE = "take the file from a copy of the run, or train anew into a new --out"


@dataclass(frozen=True)
class _Start:
    """What start.json holds; see `RunFolder.start`."""

    slices: str = ""
    new_layers: tuple[str, ...] | None = None
    scales: dict[str, float] = field(default_factory=dict)


class RunFolder:
    """RUN: what `pixelnet-tf train` writes, and what predict, export and report read.

    Files: config.yaml, split.json, priors.json, model.keras, checkpoints/, log.jsonl, log.csv,
    tensorboard/. A path that ends with .keras is a model
    alone, as `pixelnet-tf import-caffe` writes it: the other files stand beside it, named after it
    (NAME.config.yaml). RUN/checkpoints/best (or last) is the run with the weights of that state,
    for a training that has not ended.

    Attributes:
        path: path of the run.
        name: the path as it was given, or the URL that it mirrors.
        kind: `best` or `last` where the weights are those of a checkpoint, else None.
        held: whatever must be there as long as the run is used.
    """

    held: object = None

    def __init__(self, path: str):
        self.name = remote.named(path)
        self.path, self.kind = path, None
        folder, kind = posixpath.split(path.rstrip("/"))
        if (kind in ("best", "last") and posixpath.basename(folder) == "checkpoints"
                and tf.io.gfile.exists(posixpath.join(folder, "state.json"))):
            self.path, self.kind = posixpath.dirname(folder) or ".", kind

    def file(self, name: str) -> str:
        """Path of a file in the run."""
        if not self.path.endswith(".keras"):
            return posixpath.join(self.path, name)
        if name == "model.keras":
            return self.path
        return f"{self.path.removesuffix('.keras')}.{name}"

    def exists(self) -> bool:
        """Whether a run has been started here."""
        return tf.io.gfile.exists(self.file("config.yaml"))

    def start(self, config: Config, split: Split, priors: ClassPriors, slices: str = "",
              new_layers: Iterable[str] = (), trial: RateTrial | None = None,
              scales: Mapping[str, float] | None = None) -> None:
        """Write what the run begins with, config.yaml last: with it the run exists.

        Args:
            slices: digest of the slices (`PreparedStudy.digest`); empty where unknown.
            new_layers: names of the layers that hold random start weights.
            trial: the one that chose the learning rate.
            scales: what `training.native_rates` makes up for (`StartWeights`).
        """
        begin_folder(self.path)
        # What is best in there is of a training that had saved no state to go on from.
        remove_states(self.file("checkpoints"))
        remove(self.file("decisions.json"))
        remove(self.file("learning_rate.json"))
        if trial is not None:
            write_json(self.file("learning_rate.json"), trial.to_json())
        write_json(self.file("split.json"), split.to_json())
        write_json(self.file("priors.json"), priors.to_json())
        write_json(self.file("start.json"), {"slices": slices, "new_layers": sorted(new_layers),
                                             **({"scales": dict(scales)} if scales else {})})
        write_text(self.file("config.yaml"), config_to_yaml(config))

    def new_layers(self) -> frozenset[str] | None:
        """Layers that began at random; None where the run does not say (one of an older version).
        """
        found = self._start().new_layers
        return None if found is None else frozenset(found)

    def scales(self) -> dict[str, float]:
        """By what pretrained variables were multiplied, where `training.native_rates` is on."""
        return self._start().scales

    def basis(self) -> Basis:
        """What the run stands on, for `check_fit`."""
        return Basis(self.name, self.config(), self.split(), self._start().slices)

    def config(self) -> Config:
        """The resolved configuration of the training."""
        source = self.file("config.yaml")
        if not tf.io.gfile.exists(source):
            raise ModelError(f"not a trained run (no {posixpath.basename(source)})", file=self.path,
                             hint="give the --out folder of `pixelnet-tf train` or `import-caffe`")
        return config_from_yaml(read_text(source, _ADVICE), source)

    def split(self) -> Split:
        """The split that the run was trained on; without a case for an imported model."""
        path = self.file("split.json")
        if not tf.io.gfile.exists(path):
            return Split(())
        return read_json_as(path, Split.from_json, _ADVICE)

    def priors(self) -> ClassPriors:
        """Class frequencies of the training; unknown ones for an imported model."""
        path = self.file("priors.json")
        if not tf.io.gfile.exists(path):
            return ClassPriors.unknown(self.config().study.class_names)
        return read_json_as(path, ClassPriors.from_json, _ADVICE)

    def save_priors(self, priors: ClassPriors) -> None:
        """Replace the class frequencies (after fitting on validation cases)."""
        write_json(self.file("priors.json"), priors.to_json())

    def rate_trial(self) -> RateTrial | None:
        """The trial that chose the learning rate; None where the configuration names it."""
        path = self.file("learning_rate.json")
        if not tf.io.gfile.exists(path):
            return None
        return read_json_as(path, RateTrial.from_json, _ADVICE)

    def decisions(self) -> Decisions | None:
        """What the validation cases decided; None where none did, and for a checkpoint of a
        training, whose weights nothing was decided for."""
        path = self.file("decisions.json")
        if self.kind is not None or not tf.io.gfile.exists(path):
            return None
        return read_json_as(path, Decisions.from_json, _ADVICE)

    def save_decisions(self, decisions: Decisions) -> None:
        """Write what the validation cases decided."""
        write_json(self.file("decisions.json"), decisions.to_json())

    def save_model(self, model: PixelNet) -> None:
        """Write model.keras whole."""
        path = self.file("model.keras")
        # Keras wants the ending .keras, which the temporary name of a whole file lacks.
        with replacing(path) as whole, scratch_folder(posixpath.dirname(path) or ".") as folder:
            local = posixpath.join(folder, "model.keras")
            model.save(local)
            tf.io.gfile.rename(local, whole)

    def model(self) -> PixelNet:
        """Load model.keras, or the checkpoint that the path named.

        Raises:
            ModelError: the training has not ended, or there is no such checkpoint, or it is broken.
        """
        return self._loaded()[0]

    def _loaded(self) -> tuple[PixelNet, str | None]:
        """The model, and the SHA-256 of its file where it has one whose manifest tells it."""
        if self.kind is not None:
            config = self.config()
            model = PixelNet(config.model, len(config.study.modalities), len(config.score_names),
                             draw=False)
            load_state(self.file("checkpoints"), self.kind, model)
            return model, None
        path = self.file("model.keras")
        if not tf.io.gfile.exists(path):
            best = f"; or take {self.file('checkpoints/best')}, its best state so far" * (
                self.state("best") is not None)
            raise ModelError("no such model", file=path,
                             hint="let `pixelnet-tf train --resume` finish, or give the --out of "
                                  f"`train` or `import-caffe`{best}")
        return load_known_model(path)

    def correction(self, prior: str, class_offsets: Mapping[str, float] | None = None,
                   strength: float | None = None) -> np.ndarray:
        """What is added to the model's scores, (class,) float32: the correction of a prior, and
        `prediction.class_offsets`; raises `ConfigError` where frequencies are unknown.

        strength: of the fitted prior, in place of the run's own.
        """
        priors = self.priors()
        if strength is not None:
            priors = replace(priors, strength=strength)
        found = priors.correction(prior)
        if not class_offsets:
            return found
        names = self.config().study.class_names
        return found + np.array([class_offsets.get(name, 0.0) for name in names], np.float32)

    def network(self, prior: str, class_offsets: Mapping[str, float] | None = None,
                strength: float | None = None) -> TrainedNetwork:
        """The model with the correction of a prior and the offsets of classes, to predict with.

        strength: as `correction` takes it.

        Raises:
            ModelError: there is no model, or it is not of this run.
            ConfigError: the prior's frequencies are unknown, or its strength is not fitted yet.
        """
        if prior == Prior.FITTED and self.kind is not None:
            raise ConfigError(f"{self.name}: prior fitted is fitted to the model that a training "
                              "ends with, not to a checkpoint", hint="give --prior corrected")
        model, file = self._loaded()
        check_fit(Basis(self.file("config.yaml"), self.config()), Basis(self.name, model=model),
                  WEIGHTS)
        if self.kind is None and file is None:
            file = file_digest(self.file("model.keras"))
        return TrainedNetwork(model, self.correction(prior, class_offsets, strength), self.name,
                              file)

    def state(self, kind: str) -> dict[str, Any] | None:
        """Details of the `last` or `best` checkpoint: name, step, and score; None if none."""
        return read_states(self.file("checkpoints")).get(kind)

    def log_rows(self) -> list[dict[str, Any]]:
        """The rows of log.jsonl; a last line that was cut off is left out."""
        return read_json_lines(self.file("log.jsonl"))

    def _start(self) -> _Start:
        path = self.file("start.json")
        if not tf.io.gfile.exists(path):
            return _Start()
        return read_json_as(path, lambda tree: build(_Start, tree), _ADVICE)
