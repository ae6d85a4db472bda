"""Networks and weights from and to the original Caffe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelnet_tf.caffe import export as _export
from pixelnet_tf.caffe.import_pixelnet import import_pixelnet
from pixelnet_tf.caffe.parity import compare_with_golden as compare_with_golden
from pixelnet_tf.caffe.solver_config import training_section, training_yaml
from pixelnet_tf.caffe.weights import MatchTable
from pixelnet_tf.config import Config, as_config
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.imported import imported_config, write_imported
from pixelnet_tf.training.state import TrainingState

Path_ = str | os.PathLike[str]
#: Endings of files that somebody may take for what an import writes.
_OTHER_FILES = (".h5", ".hdf5", ".pb", ".caffemodel", ".prototxt")


@dataclass(frozen=True, eq=False)
class ImportedNetwork:
    """A model of this project with weights of Caffe.

    Attributes
    ----------
    model
        The network.
    table
        What became of each layer; `print(table)` shows it.
    config
        What train, predict and export take; None for a network of a single score, which makes no
        segmentation.
    """

    model: PixelNet
    table: MatchTable
    config: Config | None

    @property
    def note(self) -> str:
        """What the model cannot do as it is, in a sentence; empty where it can do everything."""
        if self.config is None:
            return ("one score makes no segmentation; predict and export do not take this model, "
                    "export-caffe does")
        if self.table.new_layers:
            return (f"{', '.join(sorted(self.table.new_layers))} hold random start weights; train "
                    "before you predict")
        return ""

    def save(self, out: Path_) -> list[str]:
        """Write a run folder, or a .keras file with its configuration beside.

        Raises
        ------
        ConfigError
            A name with another ending. RunError: the folder holds a training.
        """
        check_target(out)
        return write_imported(Path(out), self.model, self.config)


def check_target(out: Path_) -> None:
    """Raise `ConfigError` where `ImportedNetwork.save` could not write."""
    out = Path(out)
    if out.suffix in _OTHER_FILES or (out.suffix != ".keras" and out.is_file()):
        raise ConfigError("a model is not written under this name", file=out,
                          hint="give a folder, or a name that ends with .keras")


def import_caffe(caffemodel: Path_, prototxt: Path_ | None = None, *, out: Path_ = "imported",
                 solver: Path_ | None = None, config: Config | Path_ | None = None,
                 overrides: Sequence[str] = (), classes: int | None = None,
                 channels: int | None = None, channel_rule: str = "average", border: int = 100,
                 allow_nan: bool = False) -> ImportedNetwork:
    """Turn Caffe weights into a model of this project.

    A PixelNet becomes the same network, in the form that is read off the file; a VGG-16 becomes the
    trunk of a new one, in the form of the configuration, whose classes must be known.

    Parameters
    ----------
    caffemodel, prototxt
        The weights and the network; without a prototxt the description in the weights counts.
    out
        Where the model will be saved; its configuration starts a training from there.
    solver
        A solver.prototxt, from which the section `training` is taken.
    config
        Study, channels and labels; by default channel1, channel2, ... and class1, class2, ...
    overrides
        Settings as `--set` takes them, such as "model.fc7=aligned".
    classes, channels
        Numbers of the model's classes and channels; by default those of the configuration, else
        of the file.
    channel_rule
        How the first kernel is fitted to another number of channels: "average", "repeat" or
        "keep", as in `training.extra_channels`.
    border
        Zero pixels around the image, which no Caffe file states.
    allow_nan
        Take weights that are not finite.

    Raises
    ------
    ModelError
        The files make no network of this project.
    """
    given = None if config is None else as_config(config, overrides)
    if given is not None:
        classes = classes or len(given.study.labels)
        channels = channels or len(given.study.modalities)
    model, table = import_pixelnet(
        None if prototxt is None else Path(prototxt), Path(caffemodel),
        config=None if given is None else given.model,
        overrides=[setting for setting in overrides if setting.startswith("model.")],
        classes=classes, channels=channels, border=border, channel_rule=channel_rule,
        allow_nan=allow_nan)
    section = None if solver is None else solver_section(solver)
    complete = imported_config(model, table.new_layers, Path(caffemodel), Path(out), given,
                               training=section, overrides=overrides)
    return ImportedNetwork(model, table, complete)


def solver_section(solver: Path_) -> dict[str, Any]:
    """The section `training` that a solver.prototxt amounts to."""
    return training_section(Path(solver))


def solver_yaml(solver: Path_) -> str:
    """`solver_section` as YAML, to be pasted into a configuration."""
    return training_yaml(Path(solver))


class CaffeExport:
    """A trained model as the original Caffe loads it.

    Attributes
    ----------
    prototxt
        The network, without the comments that the file has on top.

    Parameters
    ----------
    run
        A run of `train` or `import-caffe`, or a .keras model.
    snapshot
        "binaryproto" or "hdf5": also the last state of the run's training, from which Caffe's
        solver goes on.

    Raises
    ------
    ModelError
        No such run, or, with a snapshot, one without a state of its training.
    """

    def __init__(self, run: Path_, snapshot: str | None = None):
        folder = RunFolder(os.fspath(run))
        self._model, self._config = folder.model(), folder.config()
        if self._model.config.region_based:
            raise ModelError("Caffe's network has a softmax over classes, and this one scores "
                             "overlapping regions (model.region_based)", file=folder.path,
                             hint="export it by `pixelnet-tf export`, or train with "
                                  "model.region_based=false")
        if self._config.prediction.region_thresholds:
            raise ConfigError("prediction.region_thresholds cut out regions, and Caffe's network "
                              "gives the probabilities of classes alone", file=folder.path,
                              hint="export it by `pixelnet-tf export`")
        self._model.check_study(self._config.study)
        self._correction = folder.correction(self._config.prediction.prior,
                                             self._config.prediction.class_offsets)
        self._form = snapshot or ""
        self._state = TrainingState.of_run(folder) if snapshot else None
        self.prototxt = str(_export.caffe_network(self._model))

    def files(self, out: Path_) -> list[str]:
        """Names of the files that `save` writes."""
        if self._state is None:
            return list(_export.FILES)
        return [*_export.FILES,
                *(path.name for path in self._state.snapshot_paths(Path(out), self._form))]

    def save(self, out: Path_) -> list[Path]:
        """Write the network, its description, two scripts, and the snapshot; return the paths."""
        written = _export.export_caffe(self._model, self._config, self._correction, Path(out))
        if self._state is not None:
            written += self._state.save_snapshot(Path(out), self._form)
        return written


def export_caffe(run: Path_, out: Path_, snapshot: str | None = None) -> list[Path]:
    """Write a trained model as the original Caffe loads it; see `CaffeExport`."""
    return CaffeExport(run, snapshot).save(out)
