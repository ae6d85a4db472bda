"""From a folder of scans to a trained run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import Config, config_from_dict, config_to_dict, load_config
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.checks import Problem, check_cases
from pixelnet_tf.volumes.phantom_study import DEFAULT_SIZES
from pixelnet_tf.volumes.phantom_study import write_phantom as _write_phantom

if TYPE_CHECKING:
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.runs.folder import RunFolder

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
    """

    def __init__(self, path: Path, config: Config, cases: Sequence[Case]):
        self.path, self.config, self.cases = path, config, tuple(cases)

    @classmethod
    def open(cls, path: Path_, config: Config | Path_ = "brats2017",
             overrides: Sequence[str] = ()) -> Study:
        """Find the cases of a study.

        Parameters
        ----------
        path
            Folder of cases.
        config
            A `Config`, a YAML file, or a built-in name: "phantom", "brats2017", "isles2017", "lgg".
        overrides
            Settings as `--set` takes them, "section.key=value".

        Raises
        ------
        DataError
            No such folder, or no case in it.
        """
        resolved = as_config(config, overrides)
        found = find_cases(Path(path), resolved.study, require_segmentation=False)
        return cls(Path(path), resolved, found)

    def __len__(self) -> int:
        return len(self.cases)

    def check(self, reporter: Reporter | None = None) -> list[Problem]:
        """Read every file of every case and list all that is wrong."""
        reporter = reporter_or_log(reporter)
        seen: list[str] = []

        def each(case: Case) -> None:
            seen.append(case.name)
            reporter.progress("checking", len(seen), len(self.cases), case.name)

        return check_cases(self.cases, self.config.study, each, self.config.prepare.slice_size)

    def prepare(self, out: Path_, *, workers: int | None = None, skip_bad_cases: bool = False,
                require_segmentation: bool = True, redraw_split: bool = False,
                reporter: Reporter | None = None) -> PreparedStudy:
        """Check, correct, normalise and slice the cases; a second call does what is missing.

        Parameters
        ----------
        out
            Folder of the prepared study.
        workers
            Cases in work at once; 0 is one per core, None takes `prepare.workers`.
        skip_bad_cases
            Leave bad cases out with a warning instead of refusing the study.
        require_segmentation
            Whether a case without segmentation is a bad one.
        redraw_split
            Draw the split into training, validation and test anew.

        Returns
        -------
        PreparedStudy
            What training and prediction read.
        """
        from pixelnet_tf.dataset.prepare_study import prepare_study
        from pixelnet_tf.dataset.prepared import PreparedStudy

        reporter = reporter_or_log(reporter)
        summary = prepare_study(
            self.config, self.path, out, workers, skip_bad_cases,
            lambda stage, done, total, case: reporter.progress(
                {"check": "checking", "prepare": "preparing"}[stage], done, total, case),
            require_segmentation=require_segmentation, redraw_split=redraw_split)
        for problem in summary.left_out:
            reporter.warning(f"left out {problem.case}: {problem.message}")
        for note in summary.notes:
            reporter.warning(note)
        return PreparedStudy.open(out)


def train(prepared: PreparedStudy | Path_, config: Config | Path_, out: Path_, *,
          overrides: Sequence[str] = (), fold: int | None = None, resume: bool = False,
          reporter: Reporter | None = None) -> RunFolder:
    """Train a class-balanced PixelNet on a prepared study.

    Parameters
    ----------
    prepared
        What `Study.prepare` returned, or its folder.
    config
        Model, sampling and training; the study and its preparation come from the prepared folder.
    out
        Folder of the run; what `Segmenter.from_run` takes.
    fold
        Train for this fold of the split (from 0): its cases are the test cases.
    resume
        Go on from the last checkpoint, to the same weights as a training that was never stopped.

    Returns
    -------
    RunFolder
        The run; `path` is its folder.
    """
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.training.loop import Trainer

    reporter = reporter_or_log(reporter)
    study = prepared if isinstance(prepared, PreparedStudy) else PreparedStudy.open(prepared)
    split = study.split if fold is None else study.split.fold(fold)

    def progress(row, total: int) -> None:
        figures = "  ".join(f"{key.removeprefix('validation/')} {value:.4g}"
                            for key, value in row.items()
                            if key not in ("step", "epoch", "seconds"))
        reporter.progress("training", row["step"], total, figures)

    trainer = Trainer(as_config(config, overrides), study, split, os.fspath(out),
                      progress=progress, say=reporter.message)
    trainer.run(resume)
    return trainer.run_folder


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
    """
    reporter = reporter_or_log(reporter)
    _write_phantom(Path(out), cases, seed, layout, size or DEFAULT_SIZES[layout],
                   lambda done, name: reporter.progress("drawing", done, cases, name))
    return Study.open(out, "phantom" if layout == "brats" else "isles2017")


def as_config(config: Config | Path_, overrides: Sequence[str] = ()) -> Config:
    """A configuration from an object, a YAML file or a built-in name, with overrides on top."""
    if isinstance(config, Config):
        return config_from_dict(config_to_dict(config), overrides=overrides)
    return load_config(config, overrides)
