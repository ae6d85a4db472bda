"""Trained networks as a tool: scans in, segmentations out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

from pixelnet_tf.api.images import Image, like, read_image, to_nibabel, to_sitk
from pixelnet_tf.cases.parts import Part
from pixelnet_tf.config import (
    Config,
    FollowDecisions,
    OutputForm,
    as_config,
    config_from_dict,
    config_to_dict,
)
from pixelnet_tf.dataset.workers import Engine
from pixelnet_tf.errors import ConfigError, DataError, ModelError, nearest_hint, require
from pixelnet_tf.inference.lesion_table import lesion_rows
from pixelnet_tf.inference.outputs import output_of
from pixelnet_tf.inference.predict import (
    CaseSource,
    Elsewhere,
    PredictionSummary,
    Segment,
    write_cases,
)
from pixelnet_tf.inference.volume import SegmentedVolume
from pixelnet_tf.io import remote
from pixelnet_tf.io.disk import is_url
from pixelnet_tf.io.files import read_json_object
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.case_volume import PreparedVolume, prepare_volumes
from pixelnet_tf.volumes.checks import check_volumes
from pixelnet_tf.volumes.geometry import VolumeGeometry
from pixelnet_tf.volumes.lesions import LesionVoxels, list_lesions
from pixelnet_tf.volumes.nifti import write_labels, write_probabilities

if TYPE_CHECKING:
    import SimpleITK as sitk
    from matplotlib.figure import Figure

    from pixelnet_tf.cases.split import Split
    from pixelnet_tf.runs.several import Runs

Path_ = str | os.PathLike[str]
#: Segments a prepared volume, with probabilities or without, with uncertainty or without.
SegmentVolume = Callable[[PreparedVolume, bool, bool], SegmentedVolume]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segmentation of one scan, on the grid of its first modality.

    Attributes
    ----------
    labels
        (x, y, z) uint8, in the label values of the study.
    probabilities
        (x, y, z, class) float32, before any clean-up of the labels, or (x, y, z, region) of a
        network that scores regions (`model.region_based`); None if not asked for.
    class_names
        Label value -> name, the background first; the order is that of the probabilities of
        classes.
    regions
        Name -> label values that it unites, as the challenge scores them; the order is that of the
        probabilities of regions.
    entropy, mutual_information
        How unsure each voxel is, (x, y, z) float32 in nats: the entropy of the mean of the
        networks' probabilities, and, of several networks, what they disagree about (the mutual
        information); None if not asked for.

    Examples
    --------
    >>> import nibabel as nib, pixelnet_tf as px
    >>> images = {name: nib.load(f"study/phantom_001/phantom_001_{name}.nii.gz")
    ...           for name in ("flair", "t1ce", "t2")}
    >>> result = px.Segmenter.from_run("run").predict(images)
    >>> result.class_names
    {0: 'background', 1: 'necrosis', 2: 'edema', 4: 'enhancing'}
    >>> result.probabilities.shape
    (30, 28, 16, 4)
    >>> sorted(result.volumes_ml())
    ['ET', 'TC', 'WT', 'edema', 'enhancing', 'necrosis']
    >>> bool((result.image.affine == images["flair"].affine).all())
    True
    """

    labels: np.ndarray
    probabilities: np.ndarray | None
    class_names: dict[int, str]
    regions: dict[str, tuple[int, ...]]
    _geometry: VolumeGeometry
    _volume: PreparedVolume
    _config: Config
    _form: Image
    entropy: np.ndarray | None = None
    mutual_information: np.ndarray | None = None
    _voxels: LesionVoxels | None = None

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64, from voxels to mm along R, A, S, as in nibabel."""
        return self._geometry.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Sides of a voxel along x, y, z."""
        return self._geometry.spacing_mm

    @property
    def image(self) -> Image:
        """The labels in the form that the first modality came in.

        A nibabel image for a path or a nibabel image, a SimpleITK image for one of those, a pair
        (array, affine) for a pair.
        """
        return like(self._form, self.labels, self._geometry)

    def to_nibabel(self) -> nib.Nifti1Image:
        """The labels as a nibabel image with the input's affine, qform and sform."""
        return to_nibabel(self.labels, self._geometry)

    def to_sitk(self) -> sitk.Image:
        """The labels as a SimpleITK image; raises `DataError` for a sheared affine."""
        return to_sitk(self.labels, self._geometry)

    def volumes_ml(self) -> dict[str, float]:
        """Volume of each class but the background, and of each region, in millilitres."""
        voxel_ml = self._geometry.voxel_mm3 / 1000
        counts = np.bincount(self.labels.ravel(), minlength=256)
        found = {name: counts[value] * voxel_ml
                 for value, name in self.class_names.items() if value}
        found |= {name: counts[list(values)].sum() * voxel_ml
                  for name, values in self.regions.items()}
        return {name: float(volume) for name, volume in found.items()}

    def lesions(self) -> list[dict[str, Any]]:
        """A row for each lesion of each region, the largest first, as `lesions.tsv` has it.

        A lesion is a connected component (26 neighbours). The keys are `case`, `region`, `lesion`
        (its number), `volume_ml`, the centroid `x_mm`, `y_mm`, `z_mm` along R, A, S of the scanner,
        `touches_border`, `mean_probability` and `mean_entropy` (None where an export or a server
        gave labels alone). A region without any has one row, of lesion 0.

        Examples
        --------
        >>> import pixelnet_tf as px
        >>> result = px.Segmenter.from_run("run").predict(
        ...     {name: f"study/phantom_001/phantom_001_{name}.nii.gz"
        ...      for name in ("flair", "t1ce", "t2")})
        >>> {row["region"] for row in result.lesions()} == set(result.regions)
        True
        """
        return lesion_rows(self._volume.name, list_lesions(
            self.labels, self.affine, self._config.study, self._voxels), self.regions)

    def save(self, path: Path_) -> Path:
        """Write the labels as NIfTI (.nii or .nii.gz) with exactly the input's geometry."""
        path = _nifti_name(path)
        write_labels(path, self.labels, self._geometry)
        return path

    def save_probabilities(self, path: Path_) -> Path:
        """Write the probabilities as a four-dimensional NIfTI file, a volume for each class or
        region."""
        if self.probabilities is None:
            raise DataError("no probabilities were computed",
                            hint="predict with probabilities=True")
        path = _nifti_name(path)
        write_probabilities(path, self.probabilities, self._geometry)
        return path

    def plot(self, truth: Image | None = None) -> Figure:
        """Draw the first modality, the segmentation and, where a truth is given, the errors.

        Parameters
        ----------
        truth
            Label values on the same grid, in any form that `Segmenter.predict` takes.

        Raises
        ------
        DataError
            The truth lies on another grid, or holds a label that the study does not name.
        """
        require("plot", "report", "matplotlib")
        from pixelnet_tf.evaluation.case_images import image_of
        from pixelnet_tf.evaluation.label_files import check_same_grid, labels_of
        from pixelnet_tf.evaluation.overlay import overlay_figure

        true = None
        if truth is not None:
            volume = read_image(truth, "truth")
            check_same_grid(self._volume.name, volume.geometry, self._geometry, volume.source,
                            "the segmentation")
            true = labels_of(volume.array, self._config.study, self._volume.name, volume.source,
                             reference=True)
        return overlay_figure(image_of(self._volume), true, self.labels, self._geometry,
                              self._config.study, self._volume.name)


class Segmenter:
    """Segments scans with one trained network, or with the average of several.

    Made by `from_run`, `from_caffe`, `from_export` or `from_server`; the network itself is loaded
    when the first scan is segmented.

    Attributes
    ----------
    config
        The configuration of the training, with the settings of the prediction.
    follows
        What it follows of the decisions that the training made on its validation cases, in a line;
        empty where there are none.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> model = px.Segmenter.from_run("run")
    >>> result = model.predict({name: f"study/phantom_001/phantom_001_{name}.nii.gz"
    ...                         for name in ("flair", "t1ce", "t2")})
    >>> result.labels.shape
    (30, 28, 16)
    >>> result.save("segmentation.nii.gz").name
    'segmentation.nii.gz'
    """

    def __init__(self, config: Config, load: Callable[[], tuple[SegmentVolume, dict[str, Any]]],
                 trained_on: frozenset[str] = frozenset(), split: Split | None = None,
                 runs: Runs | None = None, follows: str = "",
                 again: Callable[[], Segmenter] | None = None, averaged: bool = False):
        self.config, self.follows = config, follows
        #: Whether several networks answer by the mean of their scores alone.
        self._averaged = averaged
        #: Makes the same on a worker; a function that can be pickled.
        self._again = again
        self._load = load
        self._trained_on = trained_on
        self._split = split
        self._runs = runs

    @classmethod
    def from_run(cls, *runs: Path_, config: Config | Path_ | None = None,
                 overrides: Sequence[str] = (), prior: str | None = None, mode: str | None = None,
                 precision: str | None = None, same_split: bool = False) -> Segmenter:
        """Take what `train` (or `import-caffe`) wrote.

        Parameters
        ----------
        runs
            One run, or several whose scores are averaged; also the path of a .keras file,
            RUN/checkpoints/best of a training that has not ended, a pattern such as "RUN/fold_*",
            the folder of a cross-validation, which stands for all its folds, or a file that `pack`
            wrote; each may be in an object store: "s3://bucket/run".
        config
            Of raw images in another layout than the training's: its `study.layout`, `files`,
            `resample`, `register` and its section `prediction` are taken. By default the run's own.
        overrides
            Settings as `--set` takes them, "section.key=value".
        prior, mode, precision
            As in the section `prediction` of the configuration.
        same_split
            Refuse runs that were trained on other splits.

        Raises
        ------
        ModelError
            No such run. The weights themselves are read at the first prediction.
        ConfigError
            Runs that do not fit each other, or settings outside the allowed set.
        """
        # Before TensorFlow is loaded: what is wrong with a URL is said at once.
        paths = [remote.local(run) for run in runs]
        from pixelnet_tf.inference.slice_segmenter import segmenter_of
        from pixelnet_tf.inference.volume import segment_volume
        from pixelnet_tf.model.precision import auto_precision
        from pixelnet_tf.runs.several import Runs

        found = Runs.find(paths)
        found.check_fit(same_split)
        folders = found.runs
        settings = _settings(overrides, prior, mode, precision)
        resolved, follows = adapted(folders[0].config(), config, settings), ""
        resolved = resolved.with_precision(auto_precision(resolved.model))
        decisions = found.decisions()
        if decisions is not None:
            if resolved.prediction.decisions == FollowDecisions.IGNORE:
                follows = "decisions.json is not followed: prediction.decisions is ignore"
            else:
                resolved = replace(resolved, prediction=decisions.apply(
                    folders[0].config().prediction, resolved.prediction,
                    {setting.partition("=")[0].split(".")[1] for setting in settings
                     if setting.startswith("prediction.")}))
                follows = decisions.followed(resolved.prediction)
        elif len(folders) > 1 and any(run.decisions() for run in folders):
            follows = ("decisions.json of each run is for its network alone: the average takes "
                       "the settings of the configuration")

        def load() -> tuple[SegmentVolume, dict[str, Any]]:
            networks = found.networks(resolved.prediction)
            scorer = segmenter_of(networks, resolved.study, resolved.prediction)
            about = {"networks": [network.record() for network in networks]}
            return lambda volume, *maps: segment_volume(
                scorer, volume, resolved.study, resolved.prediction, *maps), about

        learned = {name for run in folders for part in ("train", "validation")
                   for name in getattr(run.split(), part)}
        again = partial(cls.from_run, *map(_absolute, runs),
                        config=None if config is None else as_config(config),
                        overrides=tuple(overrides), prior=prior, mode=mode, precision=precision,
                        same_split=same_split)
        return cls(resolved, load, frozenset(learned), (found.whole or folders[0]).split(), found,
                   follows, again)

    @classmethod
    def from_caffe(cls, prototxt: Path_ | None, caffemodel: Path_, *,
                   config: Config | Path_ | None = None, overrides: Sequence[str] = ()
                   ) -> Segmenter:
        """Take a trained PixelNet of the original Caffe.

        Parameters
        ----------
        prototxt, caffemodel
            The network and its weights; without a prototxt the description in the weights counts.
        config
            Study (modalities, labels) and preparation; by default channel1, channel2, ... and
            class1, class2, ..., images taken as they are prepared by default.

        Raises
        ------
        ModelError
            The files do not make a PixelNet, or some of its layers have no weights in them.
        """
        from pixelnet_tf.api.caffe import import_caffe
        from pixelnet_tf.inference.slice_segmenter import segmenter_of
        from pixelnet_tf.inference.volume import segment_volume
        from pixelnet_tf.model.precision import auto_precision
        from pixelnet_tf.runs.network import TrainedNetwork

        imported = import_caffe(caffemodel, prototxt, config=config, overrides=overrides)
        model, resolved = imported.model, imported.config
        if resolved is None or imported.note:
            raise ModelError(imported.note, file=caffemodel)
        resolved = resolved.with_precision(auto_precision(resolved.model))
        network = TrainedNetwork(model, np.zeros(model.classes, np.float32), os.fspath(caffemodel))
        scorer = segmenter_of([network], resolved.study, resolved.prediction)
        about = {"networks": [network.record()]}
        return cls(resolved, lambda: (
            lambda volume, *maps: segment_volume(
                scorer, volume, resolved.study, resolved.prediction, *maps), about))

    @classmethod
    def from_export(cls, folder: Path_, *, overrides: Sequence[str] = ()) -> Segmenter:
        """Take a version folder that `export` wrote, such as "models/brats/1".

        Raises
        ------
        ModelError
            No SavedModel of this project.
        """
        from pixelnet_tf.inference.volume import segment_remotely
        from pixelnet_tf.serving.about import is_average, served_config
        from pixelnet_tf.serving.loaded_model import LoadedModel, read_about

        folder = Path(remote.local(folder))
        about = read_about(folder)
        if about is None:
            raise ModelError("holds no serving.json", file=folder,
                             hint="give the version folder that `pixelnet-tf export` wrote, as in "
                                  "models/NAME/1")
        resolved = served_config(about, lambda given: adapted(given, None, overrides))

        several = len(resolved.model.planes) > 1

        def load() -> tuple[SegmentVolume, dict[str, Any]]:
            model = LoadedModel(folder, about["name"], int(about["version"]))
            record = {"networks": [{"model": remote.named(folder), "weights": about.get("weights"),
                                    "correction": about["prior"]["correction"]}]}
            return lambda volume, *maps: segment_remotely(
                lambda images, domain: model.segment_slices(images, domain, any(maps) or several),
                volume, resolved.study, resolved.prediction, *maps, reach=resolved.model.reach,
                planes=resolved.model.planes, by_region=resolved.model.region_based), record

        return cls(resolved, load, again=partial(cls.from_export, _absolute(folder),
                                                 overrides=tuple(overrides)),
                   averaged=is_average(about))

    @classmethod
    def from_server(cls, url: str, *, token: str | None = None,
                    serving_json: Path_ | None = None, config: Config | Path_ | None = None,
                    overrides: Sequence[str] = (), prior: str | None = None,
                    mode: str | None = None, precision: str | None = None,
                    reporter: Reporter | None = None) -> Segmenter:
        """Take a server of an exported model: `pixelnet-tf serve`, or TensorFlow Serving.

        Parameters
        ----------
        url
            http://host:port, or http://host:port/v1/models/NAME.
        token
            Bearer token of the server.
        serving_json
            The export's serving.json, where the server is TensorFlow Serving.
        prior, mode, precision
            Settled by the export; another one is refused.
        """
        from pixelnet_tf.inference.volume import segment_remotely
        from pixelnet_tf.serving.about import is_average, served_config
        from pixelnet_tf.serving.client import ServedModel

        served = ServedModel(url, token, reporter=reporter)
        about = served.about() if serving_json is None else _read_about(serving_json)
        resolved = served_config(about, lambda given: adapted(
            given, config, _settings(overrides, prior, mode, precision)))
        with_domain = "segment_domain" in about["signatures"]
        several = len(resolved.model.planes) > 1
        name = served.url if "weights" in about else f"{served.url} version {about['version']}"
        record = {"networks": [{"model": name, "version": about["version"],
                                "weights": about.get("weights"),
                                "correction": about["prior"]["correction"]}]}
        return cls(resolved, lambda: (lambda volume, *maps: segment_remotely(
            lambda images, domain: served.segment_slices(
                images, resolved.study.label_values, domain if with_domain else None,
                any(maps) or several, len(resolved.score_names)),
            volume, resolved.study, resolved.prediction, *maps, reach=resolved.model.reach,
            planes=resolved.model.planes, by_region=resolved.model.region_based), record),
            again=partial(cls.from_server, url, token=token, serving_json=None if serving_json is
                          None else _absolute(serving_json), config=None if config is None
                          else as_config(config), overrides=tuple(overrides), prior=prior,
                          mode=mode, precision=precision), averaged=is_average(about))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the images that `predict` wants, in the order of the channels; `mask`, the brain
        mask, is the last where the study has such files."""
        return self.config.study.inputs

    def predict(self, images: Mapping[str, Image], name: str = "scan",
                probabilities: bool = True, uncertainty: bool = False) -> Segmentation:
        """Segment one scan.

        It is checked and prepared as in the training: bias field, z-score, axial slices.

        Parameters
        ----------
        images
            Modality -> image: a path, a nibabel or SimpleITK image, or a pair (array, affine), all
            on one grid unless `study.resample` is on.
        name
            Name of the scan, which messages and pictures give.
        probabilities
            Keep the probability of every class at every voxel, four bytes each.
        uncertainty
            Keep how unsure each voxel is, four bytes each.

        Raises
        ------
        DataError
            A modality is missing (and `prediction.allow_missing` is off) or unknown, an image is
            unreadable, empty or not finite, or the
            grids differ.
        ConfigError
            Uncertainty is asked of an export of several networks, which answers by the mean of
            their scores.
        """
        self._check_uncertainty(uncertainty)
        study = self.config.study
        for modality in images:
            if modality not in study.inputs:
                raise DataError(f"{modality!r} is no modality of the "
                                f"model{nearest_hint(modality, study.inputs)}", case=name,
                                value=modality, hint=f"give {list(study.inputs)}")
        missing = [modality for modality in study.inputs if modality not in images]
        allowed = study.modalities if self.config.prediction.allow_missing and images else ()
        if refused := [modality for modality in missing if modality not in allowed]:
            raise DataError(f"modality {refused[0]!r} is missing", case=name, value=refused[0],
                            hint=f"give all of {list(study.inputs)}, or set "
                                 "prediction.allow_missing=true to segment the scan without it")
        try:
            volumes = {modality: read_image(images[modality], modality)
                       for modality in study.inputs if modality in images}
        except DataError as error:
            raise DataError.of(error, case=name) from None
        problems = check_volumes(volumes, study, self.config.prepare.slice_size,
                                 self.config.model.planes)
        if problems:
            raise DataError.of(problems[0], case=name)
        prepared = prepare_volumes(name, {modality: partial(volumes.__getitem__, modality)
                                          for modality in volumes}, study, self.config.prepare,
                                   missing=missing)
        found = self._backend[0](prepared, probabilities, uncertainty)
        unsure = found.uncertainty
        return Segmentation(found.labels, found.probabilities, dict(study.labels),
                            dict(study.regions), prepared.geometry, prepared, self.config,
                            images[next(each for each in study.modalities if each in images)],
                            unsure.entropy if unsure else None,
                            unsure.mutual_information if unsure else None, found.voxels)

    def predict_study(self, data: Path_ | Mapping[str, Path_], out: Path_, *,
                      split: str = "all", cases: Sequence[str] = (), output: str = "nifti",
                      grid: str = "",
                      overlays: bool = False, skip_bad_cases: bool = False, overwrite: bool = False,
                      dry_run: bool = False, part: Part | str | None = None,
                      workers: Engine | None = None, reporter: Reporter | None = None
                      ) -> PredictionSummary:
        """Segment the cases of a study, prepared or raw, by default into `OUT/<case>.nii.gz`.

        A finished case of an earlier call is kept if it was made from the same images, model and
        settings.

        Parameters
        ----------
        data
            A prepared study, a folder of raw images, the folder of a single case, or its files:
            modality -> path. A folder, and `out`, may be in an object store.
        split
            Part of the run's split: "train", "validation" or "test"; "all" takes every case.
        cases
            Only these of them.
        output
            The form of the segmentations: "nifti"; "dicom-seg", a DICOM object for each case of
            DICOM series; "bids", a derivative data set with the names of its sources.
        grid
            Modality on whose own grid segmentations and maps are written (nifti alone); by default
            the first one's.
        overlays
            Also write a picture of each case.
        skip_bad_cases
            Leave cases out that cannot be used, instead of refusing all.
        overwrite
            Replace segmentations that were made from something else.
        dry_run
            Check everything and plan, write nothing.
        part
            Segment this part of the cases alone, "2/8" for the second of eight: calls for all parts
            may run at the same time, on several machines.
        workers
            Of Dask, as `pixelnet_tf.api.cluster.open_workers` gives them: they segment the cases
            instead of this program.
        """
        if part is not None or workers is not None:
            remote.refuse(out, "one program at a time writes to a folder there",
                          "leave parts and schedulers out, or predict into a folder that all see")
        if workers is not None:
            if not isinstance(data, Mapping):
                remote.refuse(data, "workers elsewhere read from folders",
                              "leave the scheduler out")
            if self._again is None:
                raise ConfigError("the workers of a scheduler take a run, an export or a server",
                                  hint="leave the scheduler out, or train a run from the weights")
            # Workers elsewhere have another working directory.
            out = _absolute(out)
            data = ({key: _absolute(path) for key, path in data.items()}
                    if isinstance(data, Mapping) else _absolute(data))
        self._check_uncertainty(self.config.prediction.uncertainty_maps)
        out = remote.local(out, reporter)
        if not isinstance(data, Mapping):
            data = remote.local(data, reporter)
        # What stands against the form is told before the network is loaded.
        form = OutputForm.of(output, "output")
        output_of(form, Path(out), self.config.study, {})
        draw = None
        if overlays:
            require("overlays", "report", "matplotlib")
            from pixelnet_tf.evaluation.overlay import overlay_drawer
            from pixelnet_tf.inference.predict import PICTURES
            draw = overlay_drawer(Path(out) / PICTURES, self.config.study,
                                  self.config.evaluation)
        if isinstance(data, Mapping):
            if split != "all" or len(cases) > 1:
                raise ConfigError("files make one case, which is in no part of a split",
                                  hint="leave split out, and name the case by one name")
            source = CaseSource.of_files({key: Path(path) for key, path in data.items()},
                                         self.config, *cases)
        elif split == "all":
            source = CaseSource.open(os.fspath(data), self.config, None, cases, truth=overlays,
                                     reporter=reporter)
        elif self._split is None:
            raise ConfigError("a part of the split needs a run: an exported model does not say "
                              "which cases it was trained on", hint="name the cases instead")
        else:
            source = CaseSource.open(os.fspath(data), self.config,
                                     self._split.choose(split, cases), truth=overlays,
                                     reporter=reporter)
        segment, about = self._backend
        if self.follows:
            reporter_or_log(reporter).message(self.follows)
        return write_cases(
            lambda volume: segment(volume, self.config.prediction.probability_maps,
                                   self.config.prediction.uncertainty_maps), about, source,
            self.config, Path(out), output=form, grid=grid, draw=draw, trained_on=self._trained_on,
            skip_bad_cases=skip_bad_cases, overwrite=overwrite, dry_run=dry_run,
            part=Part.parse(part) if isinstance(part, str) else part,
            elsewhere=None if workers is None or self._again is None else Elsewhere(
                workers, partial(_made_again, self._again)), reporter=reporter)

    def export(self, out: Path_, *, name: str | None = None, version: int | None = None,
               form: str = "savedmodel", evaluation: Path_ | None = None,
               dry_run: bool = False) -> Path:
        """Write a SavedModel for TensorFlow Serving, with the settings of this prediction.

        Parameters
        ----------
        out
            Receives OUT/<name>/<version>/, as TensorFlow Serving mounts it.
        name
            Name of the model; by default the study's.
        version
            Its number; by default the next one.
        form
            "savedmodel", or "onnx" for the sparse form alone: image and pixels to scores.
        evaluation
            Folder of the scores of this model's predictions; their means go into the model card.
        dry_run
            Check everything, write nothing.

        Returns
        -------
        Path
            The version's folder, which `from_export` takes.

        Raises
        ------
        ConfigError
            A model that is not of runs, a bad name, or a version that is there already.
        """
        from pixelnet_tf.evaluation.summary import read_evaluation
        from pixelnet_tf.serving.export import export_model

        if self._runs is None:
            raise ConfigError("an export is made of runs",
                              hint="make the model by Segmenter.from_run")
        scores = None if evaluation is None else read_evaluation(Path(remote.local(evaluation)))
        return export_model(self._runs, self.config, Path(remote.local(out)), name, version,
                            model_format=form, evaluation=scores, dry_run=dry_run)

    def pack(self, out: Path_, *, name: str | None = None, evaluation: Path_ | None = None) -> Path:
        """Write the runs as one file to hand on, which `from_run` takes.

        It holds the weights, configurations and decisions, the SHA-256 of each file and a model
        card; no name of a case and no path. The same runs give the same bytes.

        Parameters
        ----------
        out
            The file, as "model.zip".
        name
            Name of the model in its card; by default the study's.
        evaluation
            Folder of the scores of this model's predictions; their means go into the card.

        Raises
        ------
        ConfigError
            The model is not of runs, or the file is there already.
        ModelError
            A training has not ended, or the scores are of another network.

        Examples
        --------
        >>> import pixelnet_tf as px
        >>> packed = px.Segmenter.from_run("run").pack("model.zip")
        >>> px.Segmenter.from_run(packed).modalities
        ('flair', 't1ce', 't2')
        """
        from pixelnet_tf.dataset.fingerprint import preparation_of
        from pixelnet_tf.evaluation.summary import read_evaluation
        from pixelnet_tf.runs.pack import write_pack
        from pixelnet_tf.serving.about import check_evaluated, describe_export, told_of
        from pixelnet_tf.serving.model_card import model_card

        out = Path(out)
        if self._runs is None:
            raise ConfigError("what is packed are runs",
                              hint="make the model by Segmenter.from_run")
        if out.exists():
            raise ConfigError("is there already", file=out, hint="give another name")
        scores = None if evaluation is None else read_evaluation(Path(remote.local(evaluation)))
        weights = [network.digest() for network in self._runs.networks(self.config.prediction)]
        if scores is not None:
            check_evaluated(scores, weights)
        about = describe_export(self._runs, self.config, name or self.config.study.name, 1, scores,
                                weights)
        write_pack(self._runs.runs, out, folds=self._runs.whole is not None,
                   decisions=self._runs.decisions(), card=model_card(about, packed=True),
                   told=told_of(about), weights=weights,
                   preparation=preparation_of(self.config.study, self.config.prepare))
        return out

    def _check_uncertainty(self, asked: bool) -> None:
        """Raise `ConfigError` where it is asked for and cannot be had."""
        if asked and self._averaged:
            raise ConfigError("the uncertainty of several networks follows from the probabilities "
                              "of each, and their export answers by the mean of their scores",
                              hint="predict by the runs themselves (--model), or leave "
                                   "--uncertainty out (prediction.uncertainty_maps=false)")

    @cached_property
    def _backend(self) -> tuple[SegmentVolume, dict[str, Any]]:
        return self._load()


def _made_again(again: Callable[[], Segmenter]) -> tuple[Segment, dict[str, Any]]:
    """What a worker segments by."""
    model = again()
    segment, about = model._backend
    prediction = model.config.prediction
    return lambda volume: segment(volume, prediction.probability_maps,
                                  prediction.uncertainty_maps), about


def _absolute(path: Path_) -> str:
    path = os.fspath(path)
    return path if is_url(path) else os.path.abspath(path)


def adapted(config: Config, given: Config | Path_ | None, overrides: Sequence[str]) -> Config:
    """A trained model's configuration for other cases.

    `given` gives what a model may be used with anew: where volumes are (study.layout, files,
    series, codes, resample and register) and the section `prediction`; overrides
    ("section.key=value") come on top.

    Raises
    ------
    ConfigError
        The given modalities or labels are not the model's, or what settles the network is to be
        another: the section `model`, or the regions that it scores.
    """
    settled = config
    if given is not None:
        source = "the configuration" if isinstance(given, Config) else os.fspath(given)
        given = as_config(given)
        for key in ("modalities", "labels"):
            mine, theirs = getattr(config.study, key), getattr(given.study, key)
            if mine != theirs:
                raise ConfigError(f"{source}: study.{key} is {theirs}, but the model was trained "
                                  f"with {mine}", hint="give those, in the same order")
        if given.study.has_brain_mask != config.study.has_brain_mask:
            words = ("with a brain mask for each case", "without brain masks")
            mine, theirs = words if config.study.has_brain_mask else words[::-1]
            raise ConfigError(f"{source}: the study is {theirs}, but the model was trained {mine}",
                              hint="name `mask` in study.files as the model's configuration does")
        place = {key: getattr(given.study, key) for key in (
            "layout", "files", "series", "codes", "resample", "register")}
        config = replace(config, study=replace(config.study, **place),
                         prediction=given.prediction)
    # `precision: auto` is what the training, or the export, settled.
    found = config_from_dict(config_to_dict(config), overrides=overrides).with_precision(
        settled.training.precision, settled.prediction.precision)
    if config.model.region_based and (list(found.study.regions.items())
                                      != list(config.study.regions.items())):
        raise ConfigError(f"study.regions is {found.study.regions}, but the model scores the "
                          f"regions {config.study.regions}", value=found.study.regions,
                          hint="leave study.regions as it is, or `evaluate` with others")
    asked, mine = (config_to_dict(each)["model"] for each in (found, config))
    if changed := [key for key in mine if asked[key] != mine[key]]:
        key = changed[0]
        raise ConfigError(f"model.{key} is {asked[key]}, but the training settled it: {mine[key]}",
                          value=asked[key], hint="leave the section model as it is")
    return found


def _read_about(path: Path_) -> dict[str, Any]:
    try:
        return read_json_object(path, "give the one that `pixelnet-tf export` wrote")
    except DataError as error:
        raise ModelError.of(error) from None


def _settings(overrides: Sequence[str], prior: str | None, mode: str | None,
              precision: str | None) -> tuple[str, ...]:
    chosen = {"prior": prior, "mode": mode, "precision": precision}
    return (*overrides, *(f"prediction.{key}={value}" for key, value in chosen.items() if value))


def _nifti_name(path: Path_) -> Path:
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise DataError("a segmentation is written as .nii or .nii.gz", file=path,
                        hint="give a name that ends with .nii.gz")
    return path
