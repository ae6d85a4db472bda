"""Flips of a bit, and cuts, in every kind of file that the product writes: none may pass unseen.

    python scripts/flip_bytes.py [--count 1000] [--seed 0] [--folder FOLDER]

Makes a small study, prepares it, trains, predicts, scores, exports and imports in a temporary
folder (or takes one that it has made before). Then it damages a file at a time, COUNT times in all,
and asks twice: does `pixelnet-tf check` name the file, and what does the verb do that reads it? It
must refuse the file, or give what it gave before. Some files no verb reads (overlays, probability
maps, TensorBoard's, CSV): there `check` must find it.

Prints a table by kind. Exit code 1 where a damage passed unseen.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from pixelnet_tf.api.check import check_folder
from pixelnet_tf.cases.predictions import PredictionRecord
from pixelnet_tf.cli import main as command_line
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import PixelNetError
from pixelnet_tf.evaluation.summary import read_evaluation
from pixelnet_tf.io.manifest import MANIFEST
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.volumes.nifti import read_volume

TINY = [f"--set={option}" for option in (
    "prepare.bias_field.enabled=false", "split.test=1", "split.validation=1",
    "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16",
    "sampling.pixels=60", "training.steps=3", "training.batch_slices=2",
    "training.checkpoint_every=1")]
#: What became of a damage, in the order of the table; warned: the state before was taken, and said.
OUTCOMES = ("refused", "warned", "same result", "made anew", "not read", "SILENT")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        folder: of the product, below the folder of all.
        pattern: of the files in it.
        read: receives the folder of all and the file; gives what a verb makes of it. None: no verb
            reads such a file.
        mends: whether it makes the file anew; then the whole folder must be as it was.
    """

    folder: str
    pattern: str
    read: Callable[[Path, Path], Any] | None = None
    mends: bool = False

    def __str__(self) -> str:
        return f"{self.folder}/{self.pattern}" + (" (prepare again)" if self.mends else "")


def verb(*arguments: object) -> int:
    """Call the command line, without its words; returns its exit code."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            command_line([str(argument) for argument in arguments])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def make(folder: Path) -> None:
    """Write a folder of each kind, by the verbs; those that are there already are kept."""
    for command in (
            ("phantom", folder / "study", "--cases", 4, "--seed", 1, "--size", 30, 28, 16),
            ("prepare", "--config", "phantom", *TINY, "--data", folder / "study", "--out",
             folder / "prepared", "--workers", 1),
            ("train", "--config", "phantom", *TINY, "--data", folder / "prepared", "--out",
             folder / "run"),
            ("predict", "--model", folder / "run", "--data", folder / "prepared", "--out",
             folder / "labels", "--prior", "corrected", "--overlays", "--set",
             "prediction.probability_maps=true"),
            ("evaluate", "--predictions", folder / "labels", "--references", folder / "study",
             "--out", folder / "scores", "--workers", 1),
            ("export", "--model", folder / "run", "--prior", "corrected", "--out",
             folder / "models"),
            ("export-caffe", "--model", folder / "run", "--out", folder / "to_caffe"),
            ("import-caffe", "--prototxt", folder / "to_caffe" / "deploy.prototxt", "--caffemodel",
             folder / "to_caffe" / "weights.caffemodel", "--config", "phantom", "--out",
             folder / "caffe" / "net.keras")):
        out = command[1] if command[0] == "phantom" else command[command.index("--out") + 1]
        if not Path(str(out)).exists() and verb(*command):
            raise SystemExit(f"pixelnet-tf {' '.join(map(str, command))} failed")


def prepared(top: Path, file: Path) -> Any:
    """What train and predict take of a prepared study."""
    study = PreparedStudy.open(top / "prepared")
    volumes = [study.read_volume(case) for case in study.cases]
    return digest([study.split, study.config, study.index.to_json(), study.digest(study.cases),
                   *(array for volume in volumes for array in (
                       volume.images, volume.labels, volume.brain, volume.geometry.header))])


def prepare_plan(top: Path, file: Path) -> Any:
    """What a second `prepare` would do."""
    code = verb("prepare", "--config", "phantom", *TINY, "--data", top / "study", "--out",
                top / "prepared", "--workers", 1, "--dry-run")
    if code:
        raise PixelNetError(f"exit code {code}")
    return code


def prepare_again(top: Path, file: Path) -> Any:
    """Every file, after a second `prepare`."""
    code = verb("prepare", "--config", "phantom", *TINY, "--data", top / "study", "--out",
                top / "prepared", "--workers", 1)
    if code:
        raise PixelNetError(f"exit code {code}")
    return {path.name: path.read_bytes() for path in sorted((top / "prepared").rglob("*"))
            if path.is_file() and path.name != MANIFEST}


def run(top: Path, file: Path) -> Any:
    """What predict and resume take of a run."""
    folder = RunFolder(str(top / "run"))
    basis = folder.basis()
    network = folder.network("corrected")
    return digest([basis.config, basis.split, basis.slices, folder.new_layers(), network.digest(),
                   network.correction])


def log(top: Path, file: Path) -> Any:
    """What report and export take of a log."""
    return RunFolder(str(top / "run")).log_rows()


def checkpoint(top: Path, file: Path) -> Any:
    """What resume, or predict from RUN/checkpoints/best, takes."""
    return digest([np.concatenate([weights.ravel() for weights in RunFolder(
        str(top / "run" / "checkpoints" / kind)).model().get_weights()])
        for kind in ("last", "best")])


def imported(top: Path, file: Path) -> Any:
    """What predict takes of an imported model."""
    network = RunFolder(str(top / "caffe" / "net.keras")).network("sampled")
    return network.digest(), network.correction.tolist()


def served(top: Path, file: Path) -> Any:
    """What the server answers."""
    model = LoadedModel(top / "models" / "phantom" / "1", "phantom", 1)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
    return digest([model.about, *model.run("serving_default", {"image": image}).values()])


def labels(top: Path, file: Path) -> Any:
    """What evaluate, report and submit take of a segmentation."""
    array, geometry = read_volume(file)
    return digest([array, geometry.header])


def digest(values: list[Any]) -> str:
    """One text for many values."""
    found = hashlib.sha256()
    for value in values:
        found.update(value if isinstance(value, bytes) else
                     np.ascontiguousarray(value) if isinstance(value, np.ndarray) else
                     repr(value).encode())
    return found.hexdigest()


EXPORT = "models/phantom/1"
KINDS = (
    *(Kind("prepared", name, prepared) for name in (
        "config.yaml", "split.json", "index.json", "cases/*.json", "cases/*.tfrecord", MANIFEST)),
    Kind("prepared", "left_out.json", prepare_plan),
    *(Kind("prepared", name, prepare_again, mends=True) for name in (
        "cases/*.json", "cases/*.tfrecord", "index.json", "config.yaml")),
    *(Kind("run", name, run) for name in (
        "config.yaml", "split.json", "priors.json", "start.json", "model.keras", MANIFEST)),
    *(Kind("run", name, checkpoint) for name in (
        "checkpoints/state.json", "checkpoints/*.index", "checkpoints/*.data*")),
    Kind("run", "log.jsonl", log),
    *(Kind("run", name) for name in ("log.csv", "tensorboard/*")),
    Kind("labels", "*.nii.gz", labels),
    Kind("labels", "prediction.json", lambda top, file: PredictionRecord.read(top / "labels")),
    *(Kind("labels", name) for name in ("probabilities/*.nii.gz", "overlays/*.png", MANIFEST)),
    Kind("scores", "summary.json", lambda top, file: read_evaluation(top / "scores").to_json()),
    Kind("scores", "cases.csv"),
    *(Kind(EXPORT, name, served) for name in (
        "saved_model.pb", "variables/*", "serving.json", "fingerprint.pb", "assets.extra/*",
        "model_card.md", MANIFEST)),
    *(Kind("caffe", name, imported) for name in ("net.keras", "net.config.yaml", MANIFEST)),
)


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """A bit flipped, or the file cut anywhere, or at the end of a line."""
    how = generator.integers(4)
    if how < 2:
        result = bytearray(data)
        result[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        return bytes(result)
    ends = [at + 1 for at, byte in enumerate(data[:-1]) if byte == ord("\n")]
    if how == 2 and ends and data.isascii():
        return data[:ends[generator.integers(len(ends))]]
    return data[:generator.integers(len(data))]


def outcome(kind: Kind, top: Path, path: Path) -> tuple[str, Any]:
    """`refused` or `read`, and what a verb makes of a file."""
    if kind.read is None:
        return "not read", None
    try:
        return "read", kind.read(top, path)
    except PixelNetError:
        return "refused", None


def check_kinds(top: Path, kinds: tuple[Kind, ...], count: int, seed: int
                ) -> dict[str, Counter[str]]:
    """Damage files, `count` times, kind by kind in turn; returns what became of it by kind.

    Keys are `OUTCOMES`, `damages`, and `missed`, for what `check` did not name.
    """
    generator = np.random.default_rng(seed)
    files = {kind: sorted(path for path in (top / kind.folder).glob(kind.pattern)
                          if path.is_file() and path.stat().st_size) for kind in kinds}
    if none := [str(kind) for kind, paths in files.items() if not paths]:
        raise SystemExit(f"{top}: no file of {', '.join(none)}")
    sound: dict[Any, Any] = {}
    table: dict[str, Counter[str]] = {str(kind): Counter() for kind in kinds}
    with tempfile.TemporaryDirectory() as beside:
        for number in range(count):
            kind = kinds[number % len(kinds)]
            path = files[kind][generator.integers(len(files[kind]))]
            backup = Path(beside) / "folder"
            if kind.mends:
                shutil.copytree(top / kind.folder, backup)
            key = path if kind.read is labels else kind.read
            if key not in sound:
                sound[key] = outcome(kind, top, path)
                if sound[key][0] == "refused":
                    raise SystemExit(f"{path}: is refused while it is sound")
            whole = path.read_bytes()
            path.write_bytes(damaged(whole, generator))
            row = table[str(kind)]
            row["damages"] += 1
            row["missed"] += not names(top / kind.folder, path)
            with warnings_said() as said:
                how, result = outcome(kind, top, path)
            if how == "read":
                same = result == sound[key][1]
                told = any(str(path).startswith(text.partition(": ")[0]) for text in said)
                how = ("made anew" if kind.mends else "same result") if same else (
                    "warned" if told else "SILENT")
            row[how] += 1
            if how == "SILENT":
                print(f"passed unseen: {kind}, {path.relative_to(top)}, damage {number}")
            if kind.mends:
                shutil.rmtree(top / kind.folder)
                backup.rename(top / kind.folder)
            path.write_bytes(whole)
    return table


@contextmanager
def warnings_said() -> Iterator[list[str]]:
    """The texts of the warnings that are given meanwhile."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pixelnet_tf").addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger("pixelnet_tf").removeHandler(handler)


def names(folder: Path, path: Path) -> bool:
    """Whether `check` names a file; a manifest's cut line is named in a note."""
    found = check_folder(folder)
    if path.name == MANIFEST:
        return bool(found.findings) or any(MANIFEST in note or "manifest" in note
                                           for note in found.notes)
    return any(Path(finding.path) == path for finding in found.findings)


def show(table: dict[str, Counter[str]]) -> str:
    """The table as text."""
    head = f"{'file':46}{'damages':>8}{'named by check':>16}" + "".join(
        f"{name:>13}" for name in OUTCOMES)
    lines = [head]
    total: Counter[str] = Counter()
    for row in table.values():
        total += row
    for name, row in (*table.items(), ("all", total)):
        lines.append(f"{name:46}{row['damages']:8}{row['damages'] - row['missed']:16}" + "".join(
            f"{row[key]:13}" for key in OUTCOMES))
    return "\n".join(lines)


def main() -> int:
    """Make, damage, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = options.folder or Path(folder)
        make(top)
        table = check_kinds(top, KINDS, options.count, options.seed)
    print(show(table))
    bad = sum(row["SILENT"] + row["missed"] for row in table.values())
    print(f"{options.count} damages, {bad} unseen")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
