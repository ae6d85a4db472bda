"""From a folder of scans to a configuration that says why."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.detect import detect_study
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.cases.names import SEGMENTATION
from pixelnet_tf.cases.split import Split, draw_split
from pixelnet_tf.config import (
    Config,
    Preset,
    Setting,
    StudyConfig,
    as_config,
    config_from_dict,
)
from pixelnet_tf.errors import ConfigError, ModelError, PixelNetError
from pixelnet_tf.planning.hardware import Hardware
from pixelnet_tf.planning.plan import Plan as Plan
from pixelnet_tf.planning.plan import expected_costs, overridden_keys
from pixelnet_tf.planning.rules import (
    MINUTES,
    choose_modalities,
    choose_preset,
    describe,
    find_patients,
    fit_steps,
    looks_setting,
    make_settings,
    name_labels,
    propose_regions,
    study_name,
)
from pixelnet_tf.planning.trial import TrialResult, try_out
from pixelnet_tf.reporting import Reporter, reporter_or_log
from pixelnet_tf.volumes.bias_field import correct_bias_field
from pixelnet_tf.volumes.normalize import brain_mask
from pixelnet_tf.volumes.raw_volume import RawVolume
from pixelnet_tf.volumes.survey import Survey, survey_study

#: Where Keras keeps ImageNet's weights, and from where it fetches them.
_KEPT = "models/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
_HOST = ("storage.googleapis.com", 443)


def plan(path: str | os.PathLike[str], *, preset: str | None = None, minutes: float | None = None,
         weights: str | os.PathLike[str] | None = None,
         config: Config | str | os.PathLike[str] | None = None, overrides: Sequence[str] = (),
         trial: bool = True, reporter: Reporter | None = None) -> Plan:
    """Look at a study and at this machine, and write down a configuration with its reasons.

    Headers and label volumes of all cases are read, and the images of a few.

    Parameters
    ----------
    path
        Folder of the study.
    preset
        "best", "faithful" (the paper's values) or "laptop"; None takes "best" where ImageNet's
        weights are at hand and slices are not small, else "laptop".
    minutes
        Processor minutes that the training of a network may take; None takes the preset's. Only
        with a trial, and not where an override gives steps or epochs.
    weights
        File of an ImageNet VGG-16 to start from; not for the preset "laptop".
    config
        Its section `study` says how the folder is to be read; None finds it out.
    overrides
        Settings as `--set` takes them, "section.key=value"; they come before the rules.
    trial
        Whether to try a few steps of the network, some 20 seconds, by which steps are fitted into
        the minutes and time and memory of each verb are told.

    Returns
    -------
    Plan
        `config` to go on with, `yaml()` to keep, `lines()` to read.

    Raises
    ------
    DataError
        No case is found, or none can be read. ModelError: the preset's start weights are not at
        hand. ConfigError: arguments of which one takes no part beside the other.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> found = px.plan("study", trial=False)
    >>> found.preset.value, found.config.study.modalities, found.config.study.skull_stripped
    ('laptop', ('flair', 't1ce', 't2', 't1'), True)
    >>> print(found.yaml())
    # A plan of pixelnet-tf...study:...
    """
    _check_arguments(preset, minutes, weights, trial)
    reporter = reporter_or_log(reporter)
    found = _Found.of(Path(path), config, reporter)
    survey = survey_study(found.cases, found.study.ignore_label, reporter)
    hardware = Hardware.here()
    start = _start_weights(weights)
    if preset is None:
        chosen, why = choose_preset(survey, start)
    else:
        chosen, why = Preset.of(preset, "--preset"), "as asked for"
        if not start and chosen != Preset.LAPTOP and _reachable():
            start = "imagenet"
    study, reasons = found.described(survey, chosen)
    names = [case.name for case in found.cases if case.segmentation is not None and not case.test]
    aside = sum(case.segmentation is None and case.test for case in found.cases)
    made = Plan(tuple(make_settings(study, survey, hardware, chosen, reasons, names, start, aside)),
                chosen, why, (*found.told, *describe(survey, study), str(hardware)),
                notes=tuple(_notes(survey, names, found.cases))).overridden(overrides)
    _, doubt = find_patients(names)
    if doubt and not (made.config.split.patient or made.config.split.file):
        made = replace(made, notes=(*made.notes, doubt))
    given = {"training.steps", "training.epochs"}.intersection(overridden_keys(overrides))
    if given and minutes is not None:
        raise ConfigError(f"--minutes fits training.steps, and {' and '.join(sorted(given))} "
                          "are given", value=minutes, hint="leave either out")
    if minutes is None and not given:
        minutes = MINUTES.get(chosen)
    if names:
        work = _Work.of(made.config, survey, names)
        if trial:
            made = _with_trial(made, work, survey, found.cases, minutes, hardware, reporter
                               ).overridden(overrides)
        if "training.validate_every" not in {setting.key for setting in made.settings}:
            made = made.with_settings(work.looks(made.config, survey))
    made.config  # noqa: B018  What does not hold is told here, not by the next verb.
    return made


def _check_arguments(preset: str | None, minutes: float | None,
                     weights: str | os.PathLike[str] | None, trial: bool) -> None:
    """Raise `ConfigError` for an argument that takes no part beside another one."""
    if minutes is not None and not trial:
        raise ConfigError("--minutes takes the trial's times to fit the steps, and --no-trial "
                          "leaves it out", value=minutes,
                          hint="leave either out, or give --set training.steps=N")
    if weights is not None and preset == Preset.LAPTOP:
        raise ConfigError("--weights is ImageNet's start of a VGG-16, and the preset laptop has a "
                          "smaller network", value=os.fspath(weights),
                          hint="leave --weights out, or give --preset best")


@dataclass(frozen=True)
class _Found:
    """How a folder is read: detected, or as a configuration says.

    Attributes:
        study: with every modality.
        cases: all, those that the layout sets aside among them.
        told: sentences about it.
        asked: whether a configuration says so, and nothing of it is to be changed.
    """

    study: StudyConfig
    cases: tuple[Case, ...]
    told: tuple[str, ...]
    asked: bool
    labels: dict[int, str] = field(default_factory=dict)
    regions: dict[str, tuple[int, ...]] = field(default_factory=dict)
    regions_class_order: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, config: Config | str | os.PathLike[str] | None,
           reporter: Reporter) -> _Found:
        if config is not None:
            study = as_config(config).study
            cases = tuple(find_cases(path, study, False, reporter))
            return cls(study, cases, (), True, study.labels, study.regions)
        found = detect_study(path, reporter)
        modalities = found.common_modalities or found.modalities
        settings = {key: value for key, value in found.settings(modalities).items()
                    if key in ("layout", "modalities", "files", "series")}
        study = replace(config_from_dict({"study": settings}).study, name=study_name(path),
                        ignore_label=found.ignore_label)
        missing = [modality for modality in found.modalities if modality not in modalities]
        told = (*found.reasons, *([f"Not every case has {', '.join(missing)}: left out."]
                                  if missing else []))
        # Without what is left out, which may lie on another grid.
        cases = tuple(find_cases(path, study, False, reporter))
        return cls(study, cases, told, False, found.labels, found.regions,
                   found.regions_class_order)

    def described(self, survey: Survey, preset: Preset) -> tuple[StudyConfig, dict[str, str]]:
        """The section `study` by what the files hold, and key -> reason."""
        if self.asked:
            return self.study, dict.fromkeys(("layout", "modalities", "labels", "regions",
                                              "skull_stripped"), "as the configuration says")
        modalities, why = choose_modalities(self.study.modalities, preset)
        labels, label_words = name_labels(survey, self.labels, self.study)
        regions = self.regions or propose_regions(labels)
        study = replace(
            self.study, modalities=modalities, labels=labels, regions=regions,
            regions_class_order=self.regions_class_order,
            files={key: text for key, text in self.study.files.items()
                   if key in (*modalities, SEGMENTATION)},
            series={key: text for key, text in self.study.series.items() if key in modalities},
            resample=bool(survey.grids_differ),
            skull_stripped=True if survey.stripped is None else survey.stripped)
        return study, {"layout": self.told[0] if self.told else "", "modalities": why,
                       "labels": label_words,
                       "regions_class_order": "dataset.json has it",
                       "regions": "as the data set has them" if self.regions else
                       "what is scored; it does not change the training"}


def _start_weights(given: str | os.PathLike[str] | None) -> str:
    """Where ImageNet's weights are: a file, or `imagenet` where Keras has them; else empty."""
    if given is not None:
        if not os.path.isfile(given):
            raise ModelError("no such file", file=given,
                             hint="scripts/get_vgg16.py makes one; or leave --weights out")
        return os.path.abspath(given)
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return "imagenet" if os.path.isfile(os.path.join(home, _KEPT)) else ""


def _reachable() -> bool:
    """Whether ImageNet's weights can be fetched."""
    try:
        with socket.create_connection(_HOST, timeout=3):
            return True
    except OSError:
        return False


def _notes(survey: Survey, names: list[str], cases: Sequence[Case]) -> list[str]:
    notes = []
    faulty = [case for case in cases if case.faults]
    if faulty:
        notes.append(f"{len(faulty)} of {len(cases)} cases cannot be used as they are, and "
                     f"`prepare` refuses them: {faulty[0].name}: {faulty[0].faults[0]}")
    if not names:
        notes.append("no case has a segmentation: nothing can be trained; `pixelnet-tf predict` "
                     "takes the folder as it is")
    elif len(names) < 5:
        notes.append(f"{len(names)} cases with a segmentation are few: scores will say little")
    if survey.unread:
        notes.append(f"{len(survey.unread)} segmentations cannot be read ({survey.unread[0]}, ...):"
                     " `prepare` says why")
    if os.getloadavg()[0] > os.cpu_count() / 2:  # type: ignore[operator]
        notes.append("other programs are at work here: times are longer than on a quiet machine")
    if len(survey.sizes) > 1 and survey.longest_side > 2 * survey.shortest_side:
        notes.append("slices of very different sizes: look whether all cases are of one kind")
    return notes


@dataclass(frozen=True)
class _Work:
    """What a training is of.

    Attributes:
        epoch: solver steps of a pass over the slices.
        validated: slices of the validation cases.
        tested: cases that are set aside.
    """

    epoch: float
    validated: float
    tested: int

    @classmethod
    def of(cls, config: Config, survey: Survey, names: list[str]) -> _Work:
        """Where the split cannot be drawn, which the next verb tells, nothing is set aside."""
        try:
            split = draw_split(names, config.split)
        except ConfigError:
            split = Split(tuple(names), (), ())
        drawn = len(split.train) * survey.slices_per_case * (
            survey.lesion_slice_share
            + config.sampling.lesion_free_slices * (1 - survey.lesion_slice_share))
        return cls(max(drawn / config.training.step_slices, 1),
                   len(split.validation) * survey.slices_per_case, len(split.test))

    def steps(self, config: Config) -> int:
        """Those of the training; the epochs' where nothing says how many."""
        return config.training.steps or max(1, round(config.training.epochs * self.epoch))

    def looks(self, config: Config, survey: Survey, trial: TrialResult | None = None
              ) -> list[Setting]:
        """How often to validate, by the trial, or by the multiplications; nothing without cases.

        A training that is counted in epochs has at most one look an epoch.
        """
        if not self.validated:
            return []
        steps = self.steps(config)
        most = {} if config.training.steps else {"most": config.training.epochs}
        if trial is not None:
            one = self.validated * trial.slice_seconds
            return [looks_setting(steps, steps * trial.step_seconds, one, f"{one:.2g} s each",
                                  **most)]
        from pixelnet_tf.model.architecture import Architecture

        columns, rows, _ = next(iter(survey.sizes))
        side = config.prepare.slice_size
        size = (len(config.study.modalities), side or rows, side or columns)
        network = Architecture.of(config.model, len(config.score_names))
        # A step goes back, too, which takes twice as long as going there.
        step = 3 * config.training.step_slices * network.slice_work(*size, config.sampling.pixels)
        one = self.validated * network.slice_work(*size, size[1] * size[2]) / step
        return [looks_setting(steps, steps, one, f"as dear as {one:.2g} steps by their products",
                              **most)]


def _with_trial(made: Plan, work: _Work, survey: Survey, cases: Sequence[Case],
                minutes: float | None, hardware: Hardware, reporter: Reporter) -> Plan:
    """The plan with steps that fit into the minutes and with what each verb will take.

    minutes: of the cores; None: the steps, or epochs, of the plan stay, and looks and costs are
        theirs.
    """
    config = made.config
    reporter.message("trying a few steps of the network")
    side = config.prepare.slice_size
    columns, rows, _ = next(iter(survey.sizes))
    found = try_out(config, side or rows, side or columns)
    if isinstance(found, str):
        return replace(made, notes=(*made.notes, f"{found}: time and memory are not known"))
    if minutes is None:
        steps = work.steps(config)
        if "training.validate_every" not in {setting.key for setting in made.settings}:
            made = made.with_settings(work.looks(config, survey, found))
        rounds = steps / (made.config.training.validate_every or work.epoch)
        clock = (steps * found.step_seconds + rounds * work.validated * found.slice_seconds) / 60
    else:
        settings, clock = fit_steps(minutes, found, hardware.cores, work.validated)
        steps = settings[0].value
        passes = Setting("training.steps", steps, f"{settings[0].reason}; "
                         f"{steps / work.epoch:.0f} passes over the slices")
        made = made.with_settings([passes, *(settings[1:] if work.validated else [])])
    memory = found.training_bytes / 1e9
    notes = made.notes
    if hardware.memory_gb and memory > 0.8 * hardware.memory_gb:
        notes += (f"the training takes {memory:.0f} of {hardware.memory_gb:.0f} GB of memory: "
                  "lower training.batch_slices, with training.solver.iter_size in its place",)
    costs = expected_costs(config, found, clock, len(cases), work.tested, survey.slices_per_case,
                           _seconds_of_a_case(cases, config))
    return replace(made, costs=costs, notes=notes)


def _seconds_of_a_case(cases: Sequence[Case], config: Config) -> float:
    """Seconds that preparing a case takes all cores, from the first image."""
    images = len(config.study.modalities)
    try:
        begin = time.perf_counter()
        volume = _first_volume(cases)
        reading = time.perf_counter() - begin
        view = np.ascontiguousarray(volume.geometry.to_view(volume.array))
        mask = brain_mask(view[..., None], config.study.skull_stripped)
        field = config.prepare.bias_field
        corrected = len(field.modalities or config.study.modalities) if field.enabled else 0
        begin, cores = time.perf_counter(), time.process_time()
        if corrected:
            correct_bias_field(view, volume.geometry.view_spacing_mm, mask, field)
        # Where other programs are at work, the clock says too much.
        correcting = min(time.perf_counter() - begin, time.process_time() - cores)
    except PixelNetError:
        return 0.0
    return 2 * images * reading + corrected * correcting


def _first_volume(cases: Sequence[Case]) -> RawVolume:
    return RawVolume.read(next(source for case in cases for source in case.volumes.values()))
