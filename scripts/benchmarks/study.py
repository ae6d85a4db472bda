"""What the measurements run on: a prepared study and a briefly trained full-width model."""

from __future__ import annotations

import os
import time
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

    @property
    def every(self) -> int:
        """Only every n-th slice of a volume is segmented."""
        return 16 if self.quick else 1


def shared_data() -> Path | None:
    """The folder of TCIA cases in BraTS layout, if this checkout has one beside it."""
    shared = Path(os.environ.get("PIXELNET_SHARED", ROOT.parent / "shared"))
    folder = shared / "data" / "brats_layout"
    return folder if folder.is_dir() else None


def start_weights() -> str:
    """The ImageNet convolutions of the same folder, or random ones."""
    data = shared_data()
    weights = data and data.parent / "weights" / "vgg16_conv.caffemodel"
    return str(weights) if weights and weights.is_file() else "random"


def configuration(options: Options):
    """configs/brats2017.yaml with what a training of a few minutes needs."""
    from pixelnet_tf.config import load_config
    return load_config(ROOT / "configs" / "brats2017.yaml", [
        "split.test=0", "split.validation=0", "model.head_filler=he",
        "training.balance_taps=true", "training.solver.base_lr=0.0001",
        "training.solver.lr_policy=poly", "training.solver.new_layers_lr=2.0",
        "training.batch_slices=1", "training.precision=bfloat16", "training.deterministic=false",
        "sampling.lesion_free_slices=0.25", "sampling.background_in_brain=true",
        f"training.initial_weights={start_weights()}",
        f"training.steps={options.steps}", f"training.checkpoint_every={options.steps}",
        *options.overrides])


def raw_study(options: Options) -> Path:
    """The TCIA cases, --data, or a phantom of the same size."""
    found = options.data or shared_data()
    if found:
        return found
    from pixelnet_tf.volumes.phantom_study import write_phantom
    folder = options.work / "phantom"
    if not folder.is_dir():
        write_phantom(folder, 2, 0, size=(240, 240, 155))
    return folder


def prepared_study(options: Options):
    """The prepared study in the working folder, prepared there on the first call."""
    from pixelnet_tf.dataset.prepare_study import prepare_study
    from pixelnet_tf.dataset.prepared import PreparedStudy
    folder = options.work / "prepared"
    if not (folder / "index.json").is_file():
        prepare_study(configuration(options), raw_study(options), str(folder))
    return PreparedStudy.open(folder)


def trained_run(options: Options):
    """The run in the working folder, trained there on the first call."""
    from pixelnet_tf.cases.split import Split
    from pixelnet_tf.cli.terminal import TerminalReporter
    from pixelnet_tf.runs.folder import RunFolder
    from pixelnet_tf.training.loop import Trainer
    folder, study = options.work / "run", prepared_study(options)
    if not (folder / "model.keras").is_file():
        trainer = Trainer(configuration(options), study, Split(train=study.cases), str(folder),
                          reporter=TerminalReporter())
        start = time.monotonic()
        # A training that was cut off is taken up where it stood.
        trainer.run(resume=True)
        print(f"trained in {time.monotonic() - start:.0f} s", flush=True)
    return RunFolder(str(folder))


def volume_to_segment(options: Options, case: int = 0):
    """A case of the prepared study; with --quick only every 16th slice has wanted pixels."""
    study = prepared_study(options)
    volume = study.read_volume(study.cases[case])
    if options.every == 1:
        return volume
    brain = np.zeros_like(volume.brain)
    brain[::options.every] = volume.brain[::options.every]
    return replace(volume, brain=brain)


def brain_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """[top, left, bottom, right) of an image's (height, width, channel) non-zero pixels."""
    rows, columns = (np.flatnonzero((image != 0).any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
