"""What the measurements run on: prepared studies and a full-width model of each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Options:
    """Command line of scripts/benchmark.py."""

    work: Path
    data: Path | None
    quick: bool
    steps: int
    overrides: tuple[str, ...]
    study: str = "brats"

    @property
    def folder(self) -> Path:
        """Where the study's own files lie in the working folder."""
        return self.work if self.study == "brats" else self.work / self.study

    @property
    def every(self) -> int:
        """Only every n-th slice of a volume is segmented."""
        return 16 if self.quick else 1


def shared_data() -> Path | None:
    """The folder of TCIA cases in BraTS layout, if this checkout has one beside it."""
    shared = Path(os.environ.get("PIXELNET_SHARED", ROOT.parent / "shared"))
    folder = shared / "data" / "brats_layout"
    return folder if folder.is_dir() else None


def stroke_cases(data: Path | None) -> Path | None:
    """The stroke cases beside the others, where there are any."""
    found = data or shared_data()
    folder = found and found.parent / "isles2022"
    return folder if folder and folder.is_dir() else None


def start_weights() -> str:
    """The ImageNet convolutions of the same folder, or random ones."""
    data = shared_data()
    weights = data and data.parent / "weights" / "vgg16_conv.caffemodel"
    return str(weights) if weights and weights.is_file() else "random"


def configuration(options: Options):
    """The study's configuration with what a benchmark's model needs."""
    from pixelnet_tf.config import load_config
    name, own = ("brats2017.yaml", []) if options.study == "brats" else (
        "isles2017.yaml", ["study.modalities=[dwi,adc]", "prepare.slice_size=0"])
    return load_config(ROOT / "configs" / name, [
        *own, "split.test=0", "split.validation=0", "model.head_filler=he",
        "training.solver.base_lr=0.0001", "training.solver.lr_policy=poly",
        "training.batch_slices=1", "training.deterministic=false",
        "sampling.lesion_free_slices=0.25", "sampling.background_in_brain=true",
        f"training.initial_weights={start_weights()}", f"training.steps={options.steps}",
        *options.overrides])


def best_configuration(options: Options, *overrides: str):
    """The study's configuration with the network and the training of the preset `best`.

    overrides: "section.key=value", on top of the preset.
    """
    from pixelnet_tf.config.presets import Preset, config_of, preset_settings
    best = config_of(preset_settings(Preset.BEST), overrides=[
        "training.initial_weights=random", *overrides])
    return replace(configuration(options), sampling=best.sampling, model=best.model,
                   training=best.training)


def raw_study(options: Options) -> Path:
    """The public cases, --data, or a phantom of the same size."""
    found = options.data or shared_data()
    if options.study == "stroke":
        folder = stroke_cases(options.data)
        if folder is None:
            raise SystemExit("no stroke cases: a folder isles2022 beside those of --data is asked "
                             "for")
        return folder
    if options.data:
        return options.data
    if found:
        # The crops of other patients are what the model learns from beside the second case.
        folder = options.work / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        for case in (*found.iterdir(), *(found.parent / "msd_crops").glob("BRATS_*")):
            # Crops come after the whole cases; a case's files have its name.
            name = f"crop_{case.name}" if "_crop" in case.name else case.name
            for file in case.glob("*.nii*"):
                link = folder / name / file.name.replace(case.name, name)
                link.parent.mkdir(exist_ok=True)
                if not link.exists():
                    link.symlink_to(file.resolve())
        return folder
    from pixelnet_tf.volumes.phantom_study import write_phantom
    folder = options.work / "phantom"
    if not folder.is_dir():
        write_phantom(folder, 3, 0, size=(240, 240, 155))
    return folder


def prepared_study(options: Options):
    """The prepared study in the working folder, prepared there on the first call."""
    from pixelnet_tf.dataset.prepare_study import prepare_study
    from pixelnet_tf.dataset.prepared import PreparedStudy
    folder = options.folder / "prepared"
    if not (folder / "index.json").is_file():
        prepare_study(configuration(options), raw_study(options), str(folder))
    return PreparedStudy.open(folder)


def segmented_cases(options: Options) -> tuple[str, ...]:
    """The whole cases: the first one is unseen, the model learns from the others."""
    return tuple(case for case in prepared_study(options).cases if "_crop" not in case)


def split(options: Options):
    """What the model learns from, what its prediction is decided on, and the unseen case.

    The crops of the last patient decide; without crops the last case does, which the model may
    have learned from.
    """
    from pixelnet_tf.cases.split import Split
    whole, crops = segmented_cases(options), [
        case for case in prepared_study(options).cases if "_crop" in case]
    own = [case for case in crops if case.split("_crop")[0] == crops[-1].split("_crop")[0]]
    validation = tuple(own) or whole[-1:]
    learned = tuple(case for case in (*whole[1:], *crops) if case not in own)
    if not own and len(whole) > 2:
        learned = learned[:-1]
    return Split(learned, validation, whole[:1])


def trained_run(options: Options):
    """The run in the working folder, trained there on the first call (`head.train`)."""
    from benchmarks import head
    from pixelnet_tf.runs.folder import RunFolder
    folder = options.folder / "run"
    if not (folder / "model.keras").is_file():
        head.train(options, folder)
    return RunFolder(str(folder))


def volume_to_segment(options: Options, case: int = 0):
    """A case of the prepared study; with --quick only every 16th slice has wanted pixels."""
    study = prepared_study(options)
    volume = study.read_volume(segmented_cases(options)[case])
    if options.every == 1:
        return volume
    brain = np.zeros_like(volume.brain)
    brain[::options.every] = volume.brain[::options.every]
    return replace(volume, brain=brain)


def brain_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """[top, left, bottom, right) of an image's (height, width, channel) non-zero pixels."""
    rows, columns = (np.flatnonzero((image != 0).any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
