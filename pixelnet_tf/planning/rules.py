"""The rules from what a study and a machine are to a configuration, each value with its reason."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pixelnet_tf.cases.labels import label_text
from pixelnet_tf.cases.split import group_patients, patient_of
from pixelnet_tf.config import Layout, Preset, Setting, StudyConfig, config_to_dict, preset_settings
from pixelnet_tf.errors import DataError, ModelError
from pixelnet_tf.planning.hardware import Hardware
from pixelnet_tf.planning.trial import TrialResult
from pixelnet_tf.volumes.survey import Survey

#: Below this side a slice has too little for VGG-16's sixteen-pixel steps and ImageNet's kernels.
SMALL_SIDE = 128
#: The paper's ISLES rule: slices of less than this many pixels are scaled up to it.
PAPER_SIDE = 256
#: Processor minutes that the training of a network may take, where nothing else is asked for.
MINUTES = {Preset.BEST: 60.0, Preset.LAPTOP: 4.0}
#: Rounds of validation of a training, and the share of its time that they may take.
_ROUNDS, _VALIDATION_SHARE = 15, 0.1
#: Fewer steps than this teach nothing.
_LEAST_STEPS = 50
#: Of a slice of the study that the preset `best` was found on.
_BEST_PIXELS = 256 * 256
#: Names of maps in physical units, which are no images of a coil's field.
_MAPS = {"adc", "cbf", "cbv", "rcbf", "rcbv", "mtt", "rmtt", "tmax", "ttp", "fa", "md", "trace"}
#: What BraTS called its labels until 2020.
_BRATS = {1: "necrosis", 2: "edema", 4: "enhancing"}
#: Words in the name of a class of a glioma -> the part of the tumour that it is.
_TUMOUR_PARTS = {"edema": "edema", "oedema": "edema", "non-enh": "necrosis", "non_enh": "necrosis",
                 "nonenh": "necrosis", "necro": "necrosis", "enhanc": "enhancing"}
#: Case name -> patient, by words that stand for several scans of one patient alone.
_PATIENTS = (r"^(sub-[0-9A-Za-z]+)", r"^(BraTS-[A-Za-z]+-[0-9]+)-[0-9]+$",
             r"^(TCGA[-_][0-9A-Z]{2}[-_][0-9A-Z]{4})",
             r"^(.+?)[-_](?:ses|visit|time|tp|crop)[-_]?[0-9]+")
#: Case name -> what may be a patient, or as well a centre or a grade: `HGG_001`, `control_sub1`.
_PERHAPS_PATIENTS = (r"^(.+?)[-_]scan[-_]?[0-9]+", r"^(.+?)_[0-9]+$", r"^(.+?)_[A-Za-z]+[0-9]+$")
#: A patient rarely has more scans than this; a centre or a grade mostly has more cases.
_MOST_SCANS = 10


def choose_preset(survey: Survey, weights: str) -> tuple[Preset, str]:
    """The preset where none is asked for, and why.

    weights: where ImageNet's weights are; empty where they are not at hand.
    """
    if survey.longest_side < SMALL_SIDE:
        return Preset.LAPTOP, (f"slices of at most {survey.longest_side} pixels are small for a "
                               "VGG-16 that knows ImageNet's pictures")
    if not weights:
        return Preset.LAPTOP, ("ImageNet's weights are not at hand; --weights FILE would give the "
                               "preset best its start")
    return Preset.BEST, f"start weights are at hand ({weights})"


def study_name(path: Path) -> str:
    """What a study is called: its folder's name, in characters that a model may be called by."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", path.resolve().name).strip("_-") or "study"


def choose_modalities(modalities: tuple[str, ...], preset: Preset) -> tuple[tuple[str, ...], str]:
    """The channels of the network, and why."""
    if len(modalities) <= 3 or preset != Preset.FAITHFUL:
        return modalities, "all that every case has"
    rest = ", ".join(modalities[3:])
    return modalities[:3], f"three, as the paper; {rest} could be added"


def name_labels(survey: Survey, named: dict[int, str], study: StudyConfig
                ) -> tuple[dict[int, str], str]:
    """`study.labels`: the values that occur or are named, and where their names come from.

    named: what dataset.json or the challenge calls the values; empty where nothing does.

    Raises:
        DataError: a value that dataset.json does not name, or one that is no label.
    """
    for count in survey.labels:
        for value in count.voxels:
            if value != int(value) or not 0 <= value <= 255:
                raise DataError(f"holds {label_text(value)}, and a label is a whole number from 0 "
                                "to 255", case=count.case, file=count.file, value=value,
                                hint="look whether it is the segmentation")
            if named and study.layout in (Layout.NNUNET, Layout.MSD) and value not in named:
                raise DataError(f"holds the label {label_text(value)}, which dataset.json does not "
                                f"name; it names {sorted(named)}", case=count.case,
                                file=count.file, value=value,
                                hint="add it there or correct the file")
    return name_values({int(value) for value in survey.label_values}, named, study.layout)


def name_values(values: set[int], named: dict[int, str], layout: Layout
                ) -> tuple[dict[int, str], str]:
    """Name the label values of lesions that occur, and say where the names come from.

    named: what dataset.json or the challenge calls them; empty where nothing does.
    """
    if named and values <= set(named):
        return dict(named), "as the data set calls them"
    if values and values <= set(_BRATS) and len(values) > 1 and layout == Layout.BRATS:
        return {0: "background", **_BRATS}, "BraTS' names of the values"
    if len(values) <= 1:
        return {0: "background", (values or {1}).pop(): "lesion"}, "the value that occurs"
    return ({0: "background", **{value: f"label_{value}" for value in sorted(values)}},
            "the values that occur; call them what they are")


def make_settings(study: StudyConfig, survey: Survey, hardware: Hardware, preset: Preset,
                  reasons: dict[str, str], names: Sequence[str], weights: str, set_aside: int = 0
                  ) -> list[Setting]:
    """Every setting of a configuration that is not a default, in the order of the sections.

    Args:
        study: how the study is read: layout, files, modalities, labels.
        reasons: key of the section `study` -> why, as the detection says it.
        names: of the cases with a segmentation.
        weights: start weights: a path, or `imagenet`.
        set_aside: how many cases without one the layout itself makes test cases.

    Raises:
        ModelError: the preset starts from ImageNet's weights, and they are not at hand.
    """
    found = {setting.key: setting for setting in
             _study_settings(study, survey, reasons) + _prepare(study, survey, preset)
             + _split(names, survey.cases - survey.with_truth - set_aside)}
    for setting in preset_settings(preset):
        found.setdefault(setting.key, setting)
    for setting in [*_sampling(survey, preset), *_regions(study, preset),
                    *_training(survey, hardware, preset, weights),
                    *_prediction(study, survey, hardware, preset)]:
        found[setting.key] = setting
    order = ("study", "prepare", "split", "sampling", "model", "training", "prediction",
             "evaluation")
    return sorted(found.values(), key=lambda setting: order.index(setting.key.split(".")[0]))


def propose_regions(labels: dict[int, str]) -> dict[str, tuple[int, ...]]:
    """BraTS' regions for BraTS' labels; else each lesion class, and all of them together."""
    parts: dict[str, int] = {}
    for value, name in labels.items():
        # The first word that fits: a "non-enhancing tumour" is no enhancing one.
        part = next((part for word, part in _TUMOUR_PARTS.items() if word in name.lower()), None)
        if value and part:
            parts[part] = value
    if len(labels) == 4 and len(parts) == 3:
        core = tuple(sorted((parts["necrosis"], parts["enhancing"])))
        return {"ET": (parts["enhancing"],), "WT": tuple(sorted(parts.values())), "TC": core}
    regions: dict[str, tuple[int, ...]] = {name: (value,) for value, name in labels.items()
                                           if value}
    if len(regions) > 1:
        union = "lesion" if "lesion" not in regions else "all"
        regions[union] = tuple(value for value in labels if value)
    return regions


def find_patients(names: Sequence[str]) -> tuple[str, str]:
    """`split.patient` for case names that say which scans are of one patient, and the reason.

    A pattern is taken where it matches every name and some patients have several cases, but not
    all cases are of one. One that may as well find centres or grades must find what looks like
    patients, too. Where it does not, the pattern is empty and the words say why; both are empty
    where nothing speaks for patients.
    """
    doubt = ""
    for pattern in (*_PATIENTS, *_PERHAPS_PATIENTS):
        if not all(re.search(pattern, name) for name in names):
            continue
        groups = group_patients(names, pattern)
        if not 1 < len(groups) < len(names):
            continue
        if pattern in _PATIENTS or _are_patients(groups, pattern):
            several = sum(len(group) > 1 for group in groups)
            return pattern, (f"{len(names)} cases of {len(groups)} patients by their names, "
                             f"{several} with several")
        called = [patient_of(group[0], pattern) for group in groups[:3]]
        doubt = doubt or (
            f"the names' first parts ({', '.join(called)}{', ...' * (len(groups) > 3)}) look like "
            f"centres or grades, up to {max(map(len, groups))} cases each: every case counts as a "
            f"patient; where they are patients, set split.patient: '{pattern}'")
    return "", doubt


def _are_patients(groups: list[list[str]], pattern: str) -> bool:
    """Whether groups of cases look like patients: numbered, many, and of few scans each."""
    numbered = all(re.search("[0-9]", patient_of(group[0], pattern)) for group in groups)
    cases = sum(map(len, groups))
    return numbered and cases <= len(groups) ** 2 and max(map(len, groups)) <= _MOST_SCANS


def fit_steps(minutes: float, trial: TrialResult, cores: int, validation_slices: float
              ) -> tuple[list[Setting], float]:
    """The steps that fit into processor minutes, and the minutes by the clock that they take.

    A part is kept for the validations, and for the decisions after the last step.
    """
    on_gpu = trial.device == "GPU"
    step = trial.step_seconds if on_gpu else trial.step_cpu_seconds
    one_round = validation_slices * (trial.slice_seconds if on_gpu else trial.slice_cpu_seconds)
    seconds = 60 * minutes
    looks = count_looks(seconds, one_round)
    steps = max(_LEAST_STEPS, rounded(max(seconds - (looks + 2) * one_round,
                                          seconds / 2) / step))
    looks = count_looks(steps * step, one_round)
    clock = (steps * trial.step_seconds
             + (looks + 2) * validation_slices * trial.slice_seconds) / 60
    what = "minutes of the card" if on_gpu else f"processor minutes ({minutes / cores:.3g} on all)"
    return [Setting("training.steps", steps,
                    f"fit into {minutes:g} {what} at {step:.2g} s a step"),
            looks_setting(steps, steps * step, one_round, f"{one_round:.2g} s each")], clock


def count_looks(seconds: float, one_round: float, most: int = _ROUNDS) -> int:
    """How often a training is validated: at most so often that it takes a tenth of its time.

    Args:
        seconds: of all steps, in any unit.
        one_round: of a validation, in the same unit.
    """
    return max(1, min(most, int(_VALIDATION_SHARE * seconds / max(one_round, 1e-9))))


def looks_setting(steps: int, seconds: float, one_round: float, cost: str, most: int = _ROUNDS
                  ) -> Setting:
    """`training.validate_every` of a training of so many steps, by `count_looks`.

    cost: words on what a validation takes.
    """
    looks = count_looks(seconds, one_round, most)
    share = looks * one_round / max(seconds, 1e-9)
    return Setting("training.validate_every", max(1, -(-steps // looks)),
                   f"{looks} look{'s' * (looks > 1)} at the validation cases, {cost}: {share:.0%} "
                   "of the training's time"
                   + (", a tenth at most" if share <= _VALIDATION_SHARE else ""))


def rounded(number: float) -> int:
    """A number by its first two figures, rounded down."""
    if number < 10:
        return max(1, int(number))
    scale = 10 ** (int(np.log10(number)) - 1)
    return int(number // scale) * scale


def _study_settings(study: StudyConfig, survey: Survey, reasons: dict[str, str]) -> list[Setting]:
    tree = config_to_dict(study)
    default = config_to_dict(StudyConfig(name=study.name))
    own = {"skull_stripped": _skull_words(survey),
           "ignore_label": "dataset.json calls it so",
           "resample": f"the files of {len(survey.grids_differ)} cases lie on several grids"}
    always = ("name", "layout", "modalities", "labels", "regions", "skull_stripped")
    return [Setting(f"study.{key}", value, reasons.get(key, own.get(key, "")))
            for key, value in tree.items() if key in always or value != default[key]]


def _skull_words(survey: Survey) -> str:
    if survey.stripped is None:
        return "no image could be read: look yourself"
    return (f"{survey.air:.0%} of the voxels are exactly 0 in every image, and the outline's inner "
            f"side has {survey.rim:.0%} of the bright tissue's intensity")


def _prepare(study: StudyConfig, survey: Survey, preset: Preset) -> list[Setting]:
    found = []
    maps = [modality for modality in study.modalities if modality.lower() in _MAPS]
    if preset != Preset.FAITHFUL and maps:
        others = [modality for modality in study.modalities if modality not in maps]
        words = f"{', '.join(maps)}: maps in physical units, which no coil's field shades"
        found.append(Setting("prepare.bias_field",
                             {"modalities": others} if others else {"enabled": False}, words))
    if preset != Preset.FAITHFUL and not study.skull_stripped and survey.shortest_side >= 100:
        found.append(Setting("prepare.region", "core", "skin and fat are the brightest of a head, "
                             "and each scanner's own: they stay out of mean and deviation"))
    if _scaled_up(survey, preset):
        found.append(Setting("prepare.slice_size", PAPER_SIDE,
                             f"paper 3.3.2: slices of {survey.longest_side} pixels scaled up, as "
                             "VGG-16's kernels know things of a picture's size"))
    else:
        kinds = len({size[:2] for size in survey.sizes})
        found.append(Setting("prepare.slice_size", 0, "the volumes' own grid"
                             + (f"; slices of {kinds} sizes are padded in a step" if kinds > 1
                                else "")))
    return found


def _scaled_up(survey: Survey, preset: Preset) -> bool:
    """Whether slices are scaled to the paper's size."""
    return preset != Preset.LAPTOP and survey.longest_side < 200


def _slice_pixels(survey: Survey, preset: Preset) -> int:
    """Pixels of the median slice, as the network sees it."""
    scaled = _scaled_up(survey, preset)
    return int(np.median([
        columns * rows * (PAPER_SIDE / max(columns, rows) if scaled else 1) ** 2
        for columns, rows, _ in survey.sizes]))


def _split(names: Sequence[str], unlabelled: int) -> list[Setting]:
    found = []
    if names and unlabelled:
        found.append(Setting("split.unlabelled", "test", f"{unlabelled} cases without a "
                             "segmentation are segmented, not learned from and not scored"))
    pattern, words = find_patients(names)
    patients = len(group_patients(names, pattern))
    if patients < 2:
        found += [Setting("split.test", 0, "one patient: nothing can be set aside"),
                  Setting("split.validation", 0, "one patient")]
    else:
        found += [Setting("split.test", 0.2, f"a fifth of {patients} patients is set aside"),
                  Setting("split.validation", 0.15,
                          "they choose the checkpoint and decide about the prediction")]
    if pattern:
        found.append(Setting("split.patient", pattern, words))
    return found


def _sampling(survey: Survey, preset: Preset) -> list[Setting]:
    if preset == Preset.FAITHFUL:
        return []
    found = []
    pixels = _slice_pixels(survey, preset)
    if preset == Preset.BEST and pixels < _BEST_PIXELS:
        found.append(Setting("sampling.pixels", max(100, round(pixels / 800) * 100),
                             f"an eighth of a slice's {pixels} pixels, as where the preset was "
                             "measured"))
    elif preset == Preset.LAPTOP and pixels < 20_000:
        found.append(Setting("sampling.pixels", max(100, round(pixels / 1000) * 100),
                             f"a tenth of a slice's {pixels} pixels: a small class has no more"))
    elif preset == Preset.LAPTOP:
        found.append(Setting("sampling.pixels", 2000, "the paper's N"))
    share = survey.lesion_slice_share
    free = 1.0 if share >= 0.5 else max(0.05, round(20 * share / (1 - share)) / 20)
    found.append(Setting("sampling.lesion_free_slices", free,
                         f"{share:.0%} of the slices have a lesion: as many are drawn without"
                         if share < 0.5 else f"{share:.0%} of the slices have a lesion: all are "
                         "drawn"))
    return found


def _regions(study: StudyConfig, preset: Preset) -> list[Setting]:
    if not study.regions_class_order:
        return []
    if preset == Preset.FAITHFUL:
        return [Setting("model.region_based", False, "the paper's softmax over the classes, though "
                        "the data set is meant for region-based training")]
    return [Setting("model.region_based", True, "study.regions_class_order is given: overlapping "
                    "regions with a sigmoid each, as nnU-Net trains on them")]


def _training(survey: Survey, hardware: Hardware, preset: Preset, weights: str) -> list[Setting]:
    found = []
    if preset != Preset.LAPTOP:
        if not weights:
            raise ModelError(
                f"the preset {preset} starts from an ImageNet VGG-16, which is neither here nor to "
                "be fetched", value=preset.value,
                hint="give --weights FILE (scripts/get_vgg16.py makes one), or --preset laptop")
        found.append(Setting("training.initial_weights", weights,
                             "a VGG-16 that has seen a million pictures"))
    if preset == Preset.FAITHFUL:
        # The preset itself says that it computes as Caffe.
        return found
    precision = "float32"
    if preset == Preset.LAPTOP:
        words = "products this small gain nothing from bfloat16"
    else:
        # Chosen where the training begins, which may be another machine than this one.
        precision = "auto"
        words = ("bfloat16 on a graphics card that multiplies it" if hardware.gpu else
                 f"here bfloat16: this processor multiplies it ({hardware.bfloat16}), about twice "
                 "as fast" if hardware.bfloat16 else
                 "here float32: this processor does not multiply bfloat16")
    found.append(Setting("training.precision", precision, words))
    return found


def _prediction(study: StudyConfig, survey: Survey, hardware: Hardware, preset: Preset
                ) -> list[Setting]:
    found = []
    if preset != Preset.FAITHFUL and not study.skull_stripped:
        found.append(Setting("prediction.brain_only", "yes", "outside the head is background"))
    stroke = any(modality.lower() in _MAPS | {"dwi"} for modality in study.modalities)
    found.append(Setting("evaluation.protocol", "isles" if stroke else "brats",
                         "the measures of the stroke challenges" if stroke else
                         "Dice, sensitivity, specificity, Hausdorff95"))
    return found


def describe(survey: Survey, study: StudyConfig) -> list[str]:
    """What was found, a line each."""
    sizes = list(survey.sizes.items())
    words = ", ".join("x".join(map(str, size)) + (f" ({count})" if len(sizes) > 1 else "")
                      for size, count in sizes[:4]) + (" ..." if len(sizes) > 4 else "")
    across, down, along = survey.spacing_mm
    masses = [count.masses_ml for count in survey.labels if count.masses_ml is not None]
    lines = [
        f"{survey.cases} cases, {survey.with_truth} with a segmentation",
        f"layout {study.layout.value}, modalities {', '.join(study.modalities)}",
        f"sizes (columns, rows, slices) {words}",
        f"voxels of {across:.3g} x {down:.3g} x {along:.3g} mm"
        + (f": slices {survey.anisotropy:.2g} times as far apart as pixels"
           if survey.anisotropy > 1.5 else "") + f"; stored as {', '.join(survey.orientations)}",
        ("skull removed" if survey.stripped else "skull not removed") + f": {_skull_words(survey)}",
    ]
    if survey.label_values:
        lines.append("of all voxels: " + ", ".join(
            f"{study.labels.get(int(value), f'label {value:g}')} {survey.share(value):.3%}"
            for value in survey.label_values)
            + f"; {survey.lesion_slice_share:.0%} of the slices have a lesion")
    if held := [each for each in masses if each]:
        largest = float(np.median([each[0] / sum(each) for each in held]))
        lines.append(
            f"lesions: median {np.median([len(each) for each in held]):.0f} a case, "
            f"{np.median([sum(each) for each in held]):.3g} ml together; the largest holds "
            f"{largest:.0%} of it" + (f"; {len(masses) - len(held)} of {len(masses)} cases have "
                                      "none" if len(held) < len(masses) else ""))
    return lines
