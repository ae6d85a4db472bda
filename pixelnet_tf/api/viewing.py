"""Looking at images, references and predictions in a browser."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelnet_tf.api.scoring import scoring_config
from pixelnet_tf.cases.case import Case, Source
from pixelnet_tf.cases.detect import detect_study
from pixelnet_tf.cases.labels import classes_to_values
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.predictions import PREDICTION_FILE, PredictionRecord
from pixelnet_tf.config import Config, Strategy, StudyConfig, as_config, config_from_dict
from pixelnet_tf.config.sections import BRAIN_MASK
from pixelnet_tf.errors import ConfigError, DataError, require
from pixelnet_tf.evaluation.matching import find_references, predictions_in
from pixelnet_tf.evaluation.summary import SUMMARY_FILE, read_evaluation
from pixelnet_tf.planning.rules import name_values, propose_regions
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.images import read_volume
from pixelnet_tf.volumes.nifti import read_probabilities
from pixelnet_tf.volumes.raw_volume import RawVolume

if TYPE_CHECKING:
    from pixelnet_tf.viewer.source import Reader, ShownCase, ViewSource

Path_ = str | os.PathLike[str]

#: The port that `pixelnet-tf view` asks for first.
PORT = 8502

#: The paper's sampling, and what it compares it with.
_SHOWN_SAMPLING = (Strategy.BALANCED, Strategy.UNIFORM)

#: So many segmentations tell what labels a study has that nobody has named.
_TELLING = 3


class View:
    """What a page in the browser shows, found and checked.

    Attributes
    ----------
    cases
        Names of the cases in its list.

    Parameters
    ----------
    folder
        Predictions, a raw study, a prepared one, or what `run`, `experiment` or `train --folds`
        wrote.
    references
        Study with segmentations, or a folder of <case>.nii.gz, for predictions; by default as
        recorded with the scores.
    scores
        Folder that `evaluate` wrote for the predictions; without it Dice is computed while the page
        is open.
    data
        Where the images under predictions come from, a study or a prepared one; by default the
        references, where they are a study.
    config
        Layout, labels and regions; by default what stands beside the predictions or in the
        prepared study, and for a raw study what its names tell.
    overrides
        Settings as `--set` takes them, "section.key=value".

    Raises
    ------
    DataError
        Nothing of that is there, or it cannot be read.
    ConfigError
        The page needs the extra `serve`.

    Examples
    --------
    >>> from pixelnet_tf.api.viewing import View
    >>> View("study", config="phantom").cases
    ('phantom_001', 'phantom_002', 'phantom_003', 'phantom_004')
    """

    def __init__(self, folder: Path_, *, references: Path_ | None = None,
                 scores: Path_ | None = None, data: Path_ | None = None,
                 config: Config | Path_ | None = None, overrides: Sequence[str] = ()):
        require("view", "serve", "starlette", "uvicorn")
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError("no such folder", file=folder,
                            hint="give predictions, a study, or a prepared one")
        truths, scored, images = (None if path is None else Path(path)
                                  for path in (references, scores, data))
        several = () if truths or scored else _scored_in(folder)
        job = folder / "predictions"
        if not (folder / PREDICTION_FILE).is_file() and (job / PREDICTION_FILE).is_file():
            if scored is None and (folder / "scores" / SUMMARY_FILE).is_file():
                scored = folder / "scores"
            if images is None and scored is None and _is_prepared(folder / "prepared"):
                images = folder / "prepared"
            folder = job
        if several:
            self._source = _of_several(folder, several, images, config, overrides)
        elif (folder / PREDICTION_FILE).is_file() or truths or scored or images:
            self._source = _of_predictions(folder, truths, scored, images, config, overrides)
        elif _is_prepared(folder):
            if config is not None or overrides:
                raise ConfigError("a prepared study is shown by its own configuration", file=folder,
                                  hint="leave --config and --set out, or view the raw study")
            self._source = _of_prepared(folder)
        else:
            self._source = _of_study(folder, config, overrides)
        self.cases = tuple(case.name for case in self._source.cases)

    @property
    def source(self) -> ViewSource:
        """What the page asks for, as the application takes it."""
        return self._source

    def show(self, port: int = PORT, *, browser: bool = True, reporter: Reporter | None = None
             ) -> None:
        """Answer on this machine's own address until SIGTERM or SIGINT.

        Parameters
        ----------
        port
            Port of 127.0.0.1; 0 takes a free one.
        browser
            Open the page in the browser of this machine.

        Raises
        ------
        RunError
            The port cannot be had.
        """
        from pixelnet_tf.viewer.app import run_viewer

        def ready(url: str) -> None:
            reporter_or_log(reporter).message(f"{len(self.cases)} cases at {url} (Ctrl-C ends it)")
            if browser:
                webbrowser.open(url)

        run_viewer(self._source, port, ready)


def _is_prepared(folder: Path) -> bool:
    return (folder / "index.json").is_file()


def _of_predictions(folder: Path, references: Path | None, scores: Path | None, data: Path | None,
                    config: Config | Path_ | None, overrides: Sequence[str]) -> ViewSource:
    from pixelnet_tf.viewer.source import ShownCase, ViewSource

    resolved = scoring_config(folder, config, overrides).config
    study, record = resolved.study, PredictionRecord.read(folder)
    evaluation = None if scores is None else read_evaluation(scores)
    if references is None and evaluation is not None:
        recorded = Path(evaluation.about.get("references", ""))
        references = recorded if recorded.is_dir() and str(recorded) != "." else None
    predictions = predictions_in(folder)
    truths: Mapping[str, Path] = {}
    if references is not None:
        truths = find_references(references, study)[0]
        if not set(truths) & set(predictions):
            raise DataError(f"no case in common with the predictions: references are "
                            f"{sorted(truths)[:5]}, predictions {sorted(predictions)[:5]}",
                            file=references, hint="give the references of these predictions")
        if data is None and not _is_prepared(references) and any(
                path.is_dir() for path in references.iterdir()):
            data = references
    known: dict[str, ShownCase] = {}
    if data is not None:
        of = _of_prepared(data) if _is_prepared(data) else _of_cases(
            find_cases(data, study, require_segmentation=False), resolved, data.name)
        known = {case.name: case for case in of.cases}
    left_out = {entry.case: entry.reason for entry in record.left_out}
    learned = set(record.trained_on)
    shown = []
    for name in sorted({*predictions, *left_out}):
        base = known.get(name, ShownCase(name))
        warnings = list(base.warnings)
        if name in left_out:
            warnings.append(f"left out: {left_out[name]}")
        if name in learned:
            warnings.append("a network has learned from this case, or was chosen by it")
        if missing := record.missing.get(name):
            warnings.append(f"segmented without {', '.join(missing)}")
        if references is not None and name not in truths:
            warnings.append("has no reference")
        found = {} if evaluation is None else {
            region: score.values.get("Dice")
            for region, score in evaluation.scores.get(name, {}).items()}
        shown.append(replace(
            base, name=name, warnings=tuple(warnings), scores=found,
            prediction=_label_reader(predictions.get(name)),
            reference=_label_reader(truths.get(name)) if references else base.reference,
            probabilities=_probability_reader(folder, name, predictions.get(name))))
    return ViewSource(folder.resolve().name, study, resolved.evaluation, tuple(shown),
                      record.by_region if record.config else resolved.model.region_based)


def _scored_in(folder: Path) -> tuple[Path, ...]:
    """The parts of an experiment, or of a cross-validation, that hold predictions and scores."""
    return tuple(path.parents[1] for path in sorted(folder.glob(f"*/predictions/{PREDICTION_FILE}"))
                 if (path.parents[1] / SUMMARY_FILE).is_file())


def _of_several(folder: Path, parts: Sequence[Path], data: Path | None,
                config: Config | Path_ | None, overrides: Sequence[str]) -> ViewSource:
    """Every case as each part segmented it; the part is told behind its name."""
    sources = [_of_predictions(part / "predictions", None, part, data, config, overrides)
               for part in parts]
    cases = sorted((replace(case, patient=case.name,
                            name=case.name if len(parts) == 1 else f"{case.name} {part.name}")
                    for part, source in zip(parts, sources, strict=True)
                    for case in source.cases), key=lambda case: case.name)
    return replace(sources[0], title=folder.resolve().name, cases=tuple(cases))


def _of_study(folder: Path, config: Config | Path_ | None, overrides: Sequence[str]) -> ViewSource:
    if config is not None:
        resolved = as_config(config, overrides)
    else:
        found = detect_study(folder)
        settings = found.settings()
        if not found.labels:
            # Those of another study would be wrong names.
            values = _values_of([*found.cases, *found.test_cases])
            labels, _ = name_values(values, {}, found.layout)
            settings |= {"labels": labels, "regions": {
                name: list(held) for name, held in propose_regions(labels).items()}}
        resolved = config_from_dict({"study": settings}, overrides=overrides)
    cases = find_cases(folder, resolved.study, require_segmentation=False)
    return _of_cases(cases, resolved, folder.resolve().name)


def _values_of(cases: Iterable[Case]) -> set[int]:
    """Label values of lesions in the first segmentations; what cannot be read is told later."""
    values: set[int] = set()
    paths = [case.segmentation for case in cases if case.segmentation is not None]
    for path in paths[:_TELLING]:
        with suppress(DataError):
            values |= {int(value) for value in np.unique(read_volume(path)[0])
                       if 0 < value < 256 and value == int(value)}
    return values


def _of_cases(cases: Iterable[Case], config: Config, title: str) -> ViewSource:
    from pixelnet_tf.viewer.source import ShownCase, ViewSource

    return ViewSource(title, config.study, config.evaluation, tuple(
        ShownCase(case.name, _image_readers(case, config.study),
                  _label_reader(case.segmentation),
                  warnings=tuple(str(fault) for fault in (*case.faults,
                                                          *case.segmentation_faults)))
        for case in cases))


def _of_prepared(folder: Path) -> ViewSource:
    # TensorFlow takes seconds to start, and raw images do not need it.
    from pixelnet_tf.dataset.prepared import PreparedStudy
    from pixelnet_tf.viewer.source import ShownCase, ViewSource

    prepared = PreparedStudy.open(folder)
    study = prepared.config.study

    # A shard holds every modality, and one is drawn after the other.
    read = lru_cache(maxsize=1)(prepared.read_volume)

    def image(name: str, channel: int) -> tuple[np.ndarray, VolumeGeometry]:
        volume = read(name)
        return volume.plan.from_slices(volume.images[..., channel]), volume.geometry

    def reference(name: str) -> tuple[np.ndarray, VolumeGeometry]:
        volume = read(name)
        if volume.labels is None:
            raise DataError("has no segmentation", case=name, file=folder)
        return (classes_to_values(volume.plan.from_slices(volume.labels), study),
                volume.geometry)

    def samples(name: str, strategy: Strategy) -> tuple[np.ndarray, VolumeGeometry]:
        from pixelnet_tf.dataset.sampler import sampled_slices

        volume = read(name)
        if volume.labels is None:
            raise DataError("has no segmentation", case=name, file=folder)
        drawn = sampled_slices(volume.labels, volume.brain, len(study.labels),
                               replace(prepared.config.sampling, strategy=strategy))
        return volume.plan.from_slices(drawn), volume.geometry

    labelled = prepared.labelled
    return ViewSource(folder.resolve().name, study, prepared.config.evaluation, tuple(
        ShownCase(name, {modality: partial(image, name, channel)
                         for channel, modality in enumerate(study.modalities)},
                  partial(reference, name) if labelled else None,
                  samples={strategy.value: partial(samples, name, strategy)
                           for strategy in _SHOWN_SAMPLING} if labelled else {})
        for name in prepared.cases))


def _image_readers(case: Case, study: StudyConfig) -> dict[str, Reader]:
    def read(source: Source) -> tuple[np.ndarray, VolumeGeometry]:
        volume = RawVolume.read(source)
        return volume.array, volume.geometry

    return {modality: partial(read, source) for modality, source in case.volumes.items()
            if modality != BRAIN_MASK or not study.has_brain_mask}


def _label_reader(path: Path | None) -> Reader | None:
    return None if path is None else partial(read_volume, path)


def _probability_reader(folder: Path, name: str, prediction: Path | None) -> Reader | None:
    """The maps beside a prediction: of plain folders and of those in the form of BIDS."""
    places = [folder / "probabilities" / f"{name}.nii.gz"]
    if prediction is not None:
        stem = prediction.name.split(".")[0].rpartition("_")[0]
        places.append(prediction.with_name(f"{stem}_probseg.nii.gz"))
    found = next((path for path in places if path.is_file()), None)
    return None if found is None else partial(read_probabilities, found)
