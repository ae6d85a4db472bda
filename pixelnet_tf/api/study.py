"""From a folder of scans to a trained run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.parts import Part
from pixelnet_tf.config import JOIN_SECONDS, Config, Distribute, as_config, check_network_named
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.io import remote
from pixelnet_tf.reporting import Reporter
from pixelnet_tf.runs.cluster import Cluster
from pixelnet_tf.volumes.checks import Problem, check_cases
from pixelnet_tf.volumes.phantom_study import DEFAULT_SIZES
from pixelnet_tf.volumes.phantom_study import write_phantom as _write_phantom

if TYPE_CHECKING:
    from pixelnet_tf.dataset.prepare_study import PrepareSummary as PrepareSummary
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.dataset.workers import Engine
    from pixelnet_tf.runs.folder import RunFolder
    from pixelnet_tf.training.cross_validation import CrossValidation
    from pixelnet_tf.training.experiment import Experiment
    from pixelnet_tf.training.loop import Trainer

Path_ = str | os.PathLike[str]


class Study:
    """A folder of cases, and the configuration that says how to read it.

    Attributes
    ----------
    path
        The folder.
    config
        Layout, modalities, labels, preparation, split.
    cases
        The cases found, ordered by name, with what is wrong with their folders.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> study = px.Study.open("study", "phantom", ["prepare.bias_field.enabled=false"])
    >>> [case.name for case in study.cases]
    ['phantom_001', 'phantom_002', 'phantom_003', 'phantom_004']
    >>> study.check()
    []
    >>> prepared = study.prepare("prepared_again", workers=1)
    >>> len(prepared.split.train)
    2
    """

    def __init__(self, path: Path, config: Config, cases: Sequence[Case]):
        self.path, self.config, self.cases = path, config, tuple(cases)

    @classmethod
    def open(cls, path: Path_, config: Config | Path_ = "brats2017",
             overrides: Sequence[str] = (), *, reporter: Reporter | None = None) -> Study:
        """Find the cases of a study.

        Parameters
        ----------
        path
            Folder of cases.
        config
            A `Config`, a YAML file, or a built-in name: "phantom", "brats2017", "isles2017", "lgg".
        overrides
            Settings as `--set` takes them, "section.key=value".
        reporter
            Hears how many folders of DICOM have been read.

        Raises
        ------
        DataError
            No such folder, or no case in it.
        """
        resolved = as_config(config, overrides)
        found = find_cases(Path(path), resolved.study, require_segmentation=False,
                           reporter=reporter)
        return cls(Path(path), resolved, found)

    def __len__(self) -> int:
        return len(self.cases)

    def check(self, reporter: Reporter | None = None) -> list[Problem]:
        """Read every file of every case and list all that is wrong."""
        return check_cases(self.cases, self.config.study, self.config.prepare.slice_size, reporter,
                           self.config.model.planes)

    def prepare(self, out: Path_, *, workers: int | Engine | None = None,
                skip_bad_cases: bool = False,
                require_segmentation: bool = True, redraw_split: bool = False,
                reporter: Reporter | None = None) -> PreparedStudy:
        """Check, correct, normalise and slice the cases; a second call does what is missing.

        Parameters
        ----------
        out
            Folder of the prepared study, or its URL in an object store (docs/scale.md).
        workers
            Cases in work at once; 0 is one per core, None takes `prepare.workers`. Or the workers
            of Dask, as `pixelnet_tf.api.cluster.open_workers` gives them.
        skip_bad_cases
            Leave bad cases out with a warning instead of refusing the study.
        require_segmentation
            Whether a case without segmentation is a bad one. If not, the study is prepared for
            prediction alone: no segmentation is looked for, not even where there is one.
        redraw_split
            Draw the split into training, validation and test anew.

        Returns
        -------
        PreparedStudy
            What training and prediction read; its `summary` says what was done.
        """
        from pixelnet_tf.dataset.prepared import PreparedStudy

        return PreparedStudy.open(out, self.update(
            out, workers=workers, skip_bad_cases=skip_bad_cases,
            require_segmentation=require_segmentation, redraw_split=redraw_split,
            reporter=reporter))

    def update(self, out: Path_, *, workers: int | Engine | None = None,
               skip_bad_cases: bool = False, require_segmentation: bool = True,
               redraw_split: bool = False, part: Part | str | None = None, finish: bool = False,
               dry_run: bool = False, reporter: Reporter | None = None) -> PrepareSummary:
        """Do what `prepare` does, and say what was done; on a dry run check everything, write
        nothing, and say what would be done.

        Parameters
        ----------
        part
            Prepare this part of the cases alone, "2/8" for the second of eight: calls for all parts
            may run at the same time, on several machines.
        finish
            Prepare none; join the parts, and refuse where a case is missing.
        """
        if part is not None or not isinstance(workers, int | None):
            remote.refuse(out, "one program at a time writes to a folder there",
                          "leave parts and schedulers out, or prepare into a folder that all see")
        out = remote.local(out, reporter)
        from pixelnet_tf.dataset.prepare_study import prepare_study

        return prepare_study(self.config, self.path, out, workers, skip_bad_cases,
                             require_segmentation=require_segmentation, redraw_split=redraw_split,
                             part=Part.parse(part) if isinstance(part, str) else part,
                             finish=finish, dry_run=dry_run, reporter=reporter)


def train(prepared: PreparedStudy | Path_, config: Config | Path_, out: Path_, *,
          overrides: Sequence[str] = (), fold: int | None = None, resume: bool = False,
          distribute: str = "auto", join_seconds: int = JOIN_SECONDS,
          reporter: Reporter | None = None) -> RunFolder:
    """Train a class-balanced PixelNet on a prepared study.

    Parameters
    ----------
    prepared
        What `Study.prepare` returned, or its folder.
    config
        Model, sampling and training; the study and its preparation come from the prepared folder.
    out
        Folder of the run, or its URL in an object store; what `Segmenter.from_run` takes.
    fold
        Train for this fold of the split (from 0): its cases are the test cases.
    resume
        Go on from the last checkpoint, to the same weights as a training that was never stopped.
    distribute
        The devices that share each mini-batch: "none" for one, "mirrored" for all GPUs of this
        machine, "multiworker" for several machines (docs/scale.md), "auto" for mirrored where there
        are several GPUs. It is asked before TensorFlow has done anything else.
    join_seconds
        How long the workers of several machines wait for each other at the start.

    Returns
    -------
    RunFolder
        The run; `path` is its folder.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> run = px.train("prepared", "phantom", "another_run", overrides=[
    ...     "training.steps=2", "training.batch_slices=2", "sampling.pixels=60",
    ...     "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16"])
    >>> run.model().classes
    4
    """
    trainer = make_trainer(prepared, config, out, overrides=overrides, fold=fold,
                           distribute=distribute, join_seconds=join_seconds,
                           reporter=reporter)
    trainer.run(resume)
    return trainer.run_folder


def make_trainer(prepared: PreparedStudy | Path_, config: Config | Path_, out: Path_, *,
                 overrides: Sequence[str] = (), fold: int | None = None,
                 distribute: str = "none", join_seconds: int = JOIN_SECONDS,
                 reporter: Reporter | None = None) -> Trainer:
    """What `train` runs, for a look at it before: `describe()`, `check()`, `measure_priors()`."""
    if distribute == Distribute.MULTIWORKER:
        remote.refuse(out, "the workers of a training read what the chief writes",
                      "give --out a folder that all workers see")
        # What is wrong with it is said before TensorFlow is loaded.
        Cluster.here()
    out, prepared = remote.local(out, reporter), _brought(prepared, reporter)
    from pixelnet_tf.training.loop import Trainer
    from pixelnet_tf.training.replicas import Replicas

    study = _opened(prepared)
    split = study.split if fold is None else study.split.fold(fold)
    resolved = with_network(config, overrides)
    return Trainer(resolved, study, split, out, reporter=reporter,
                   replicas=Replicas.of(distribute, join_seconds, reporter))


def make_cross_validation(prepared: PreparedStudy | Path_, config: Config | Path_, out: Path_, *,
                          folds: Sequence[int] | None = None, overrides: Sequence[str] = (),
                          reporter: Reporter | None = None) -> CrossValidation:
    """A training for each fold of a prepared study, with scores out of fold.

    Parameters
    ----------
    prepared
        What `Study.prepare` returned, or its folder; prepared with `split.folds`.
    config
        Model, sampling and training of every fold.
    out
        Folder of the cross-validation, which `Segmenter.from_run` takes as the average of its
        networks.
    folds
        Numbers of the folds to train; by default all.

    Returns
    -------
    CrossValidation
        `run()` does what is missing and returns the scores of all cases out of fold.
    """
    out, prepared = remote.local(out, reporter), _brought(prepared, reporter)
    from pixelnet_tf.training.cross_validation import CrossValidation

    return CrossValidation(with_network(config, overrides), _opened(prepared), Path(out), folds,
                           reporter=reporter)


def make_experiment(prepared: PreparedStudy | Path_, references: Path_, config: Config | Path_,
                    out: Path_, *, overrides: Sequence[str] = (),
                    reporter: Reporter | None = None) -> Experiment:
    """Class-balanced against uniform sampling on a study: the paper's Tables 2 and 4.

    Parameters
    ----------
    prepared
        What `Study.prepare` returned, or its folder; where its split has folds, they are used.
    references
        The study with its segmentations.
    config
        Configuration of both trainings; the study and its preparation come from the prepared
        folder.
    out
        Receives runs, predictions, scores and tables.

    Returns
    -------
    Experiment
        `run()` does what is missing and returns the scores, `tables()` the tables.
    """
    prepared = _brought(prepared, reporter)
    from pixelnet_tf.training.experiment import Experiment

    study = _opened(prepared)
    resolved = replace(with_network(config, overrides), study=study.config.study,
                       prepare=study.config.prepare)
    return Experiment(resolved, study, Path(references), Path(out), reporter=reporter)


def with_network(config: Config | Path_, overrides: Sequence[str]) -> Config:
    """A configuration to train by; a file must name a network or its training.

    Raises
    ------
    ConfigError
        It does not.
    """
    if not isinstance(config, Config):
        check_network_named(os.fspath(config), overrides)
    return as_config(config, overrides)


def _brought(prepared: PreparedStudy | Path_, reporter: Reporter | None) -> PreparedStudy | Path_:
    """A folder on this machine, also where a URL was given: asked before TensorFlow is loaded, so
    that what is wrong with it is said at once."""
    return (remote.local(prepared, reporter) if isinstance(prepared, (str, os.PathLike))
            else prepared)


def _opened(prepared: PreparedStudy | Path_) -> PreparedStudy:
    from pixelnet_tf.dataset.prepared import PreparedStudy

    return prepared if isinstance(prepared, PreparedStudy) else PreparedStudy.open(prepared)


def phantom_size(layout: str, size: tuple[int, int, int] | None = None) -> tuple[int, int, int]:
    """Voxels of a phantom's volumes: those given, else the layout's own.

    Raises
    ------
    ConfigError
        A phantom has no such layout.
    """
    if layout not in DEFAULT_SIZES:
        raise ConfigError(f"study.layout is {layout}: a phantom has one of the layouts "
                          f"{', '.join(DEFAULT_SIZES)}", hint="give --layout")
    return size or DEFAULT_SIZES[layout]


def write_phantom(out: Path_, cases: int = 16, *, seed: int = 0, layout: str = "brats",
                  size: tuple[int, int, int] | None = None, reporter: Reporter | None = None
                  ) -> Study:
    """Write a synthetic study with known truth, to try everything else without any data.

    Parameters
    ----------
    out
        Folder of the study.
    layout
        "brats" (tumours in flair, t1, t1ce, t2) or "isles" (strokes in dwi, adc, cbf).
    size
        Voxels left-right, front-back and bottom-top; by default the layout's own.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> study = px.write_phantom("heads", cases=1, size=(32, 32, 16))
    >>> list(study.cases[0].volumes), study.cases[0].segmentation.name
    (['flair', 't1ce', 't2'], 'phantom_001_seg.nii.gz')
    """
    _write_phantom(Path(out), cases, seed, layout, phantom_size(layout, size), reporter)
    return Study.open(out, "phantom" if layout == "brats" else "isles2017")
