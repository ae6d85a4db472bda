"""Damaged files for a minute: one flipped bit, one cut, one foreign field in each kind of file.

Whatever the product reads is damaged in place and read by a verb, or by what a verb calls. Nothing
may come out but the product's own errors, with an exit code that fits the kind; and where a format
has a checksum, nothing that it covers may change unseen. The seed is fixed, so that a failure comes
again; PIXELNET_FUZZ_SECONDS changes the time, which is of all kinds together.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.caffe.export import caffe_network, export_caffe
from pixelnet_tf.caffe.reading import write_caffemodel
from pixelnet_tf.caffe.snapshot import load_snapshot, save_snapshot
from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.cli import main
from pixelnet_tf.config import config_to_json, config_to_yaml, load_config
from pixelnet_tf.dataset.pipeline import in_turn, training_batches
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import PixelNetError
from pixelnet_tf.evaluation.plots import training_curves
from pixelnet_tf.io.files import read_json, read_json_lines, write_json
from pixelnet_tf.io.manifest import MANIFEST
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.checkpoints import Checkpoints
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.serving.about import describe_export, served_config
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.volumes.nifti import read_volume
from pixelnet_tf.volumes.phantom_study import write_phantom
from tests.mutations import Mutation, binary_field, json_field, keras_field, text_field

#: Of all kinds together; what it takes to make the files is not in it.
SECONDS = float(os.environ.get("PIXELNET_FUZZ_SECONDS", "25"))
SEED = 1989
CONFIG = load_config("phantom", [
    "prepare.bias_field.enabled=false", "prepare.workers=1", "split.test=1", "split.validation=1",
    "sampling.pixels=40", "model.widths=[2, 2, 3, 3, 3]", "model.fc7=none", "model.head_widths=[4]",
    "model.border=16", "training.batch_slices=2", "training.steps=4", "prediction.prior=sampled",
    # As a run holds them, which has chosen.
    "training.precision=float32", "prediction.precision=float32"])
CASES = ("phantom_001", "phantom_002", "phantom_003")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: the file, which is damaged in place, below the folder of the files.
        read: reads it through the product.
        codes: exit codes that an error of it may have; without any it is made anew or left out.
        field: puts in a foreign field of its own.
        checksum: whether the format has one; then `read` gives what must not change unseen.
        expensive: seconds of a reading that there is time for a few of only.
    """

    path: str
    read: Callable[[Path], Any]
    codes: tuple[int, ...]
    field: Mutation
    checksum: bool = False
    expensive: bool = False


class _Failed(Exception):
    """A verb ended with an exit code."""

    def __init__(self, code: int, text: str = ""):
        super().__init__(text)
        self.exit_code = code


def verb(*arguments: object) -> None:
    """Call the command line; an exit code other than 0 is a `_Failed`."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as left:
        if left.code:
            raise _Failed(left.code) from None


def nifti_field(data: bytes, generator: np.random.Generator) -> bytes:
    """Another value in a field of a NIfTI header."""
    zipped = data[:2] == b"\x1f\x8b"
    data = bytearray(gzip.decompress(data) if zipped else data)
    dtype = nib.Nifti1Header.template_dtype
    name = dtype.names[generator.integers(len(dtype.names))]
    field, offset = dtype.fields[name][:2]
    base = field.base
    at = offset + base.itemsize * int(generator.integers(field.itemsize // base.itemsize))
    if base.kind == "S":
        value = generator.bytes(base.itemsize)
    elif base.kind == "f":
        value = np.array([np.nan, np.inf, -1, 0, 1e30][generator.integers(5)], base).tobytes()
    else:
        value = np.array([-1, 0, 3, 1000, 30000][generator.integers(5)]).astype(base).tobytes()
    data[at:at + len(value)] = value
    return gzip.compress(bytes(data), mtime=0) if zipped else bytes(data)


def damaged(data: bytes, how: str, field: Mutation, generator: np.random.Generator) -> bytes:
    if how == "bit":
        # Half of the time in the beginning, where headers are.
        size = len(data) if generator.integers(2) else min(len(data), 400)
        result = bytearray(data)
        result[generator.integers(size)] ^= 1 << int(generator.integers(8))
        return bytes(result)
    if how == "cut":
        return data[:generator.integers(len(data))]
    return field(data, generator)


# Readings.

def check_study(folder: Path) -> None:
    verb("prepare", "--config", folder / "config.yaml", "--data", folder / "study", "--out",
         folder / "new", "--dry-run")


def read_image(name: str) -> Callable[[Path], Any]:
    return lambda folder: read_volume(folder / "study" / CASES[1] / name)[0]


def read_prepared(folder: Path) -> Any:
    study = PreparedStudy.open(folder / "prepared")
    volume = study.read_volume(CASES[1])
    schedule = SliceSchedule(study, (CASES[1],), CONFIG.sampling, 1)
    for row in schedule.rows():
        study.read_record_bytes(row)
    return np.concatenate([volume.images.ravel(), volume.labels.ravel(), volume.brain.ravel()])


def train_on(folder: Path) -> None:
    study = PreparedStudy.open(folder / "prepared")
    schedule = SliceSchedule(study, study.split.train, CONFIG.sampling, 1)
    list(in_turn(training_batches(study, schedule, CONFIG.sampling, batch_slices=4).take(2)))


def plan_training(folder: Path) -> None:
    verb("train", "--config", folder / "config.yaml", "--data", folder / "prepared", "--out",
         folder / "run", "--resume", "--dry-run")


def plan_prediction(folder: Path) -> None:
    verb("predict", "--model", folder / "run", "--data", folder / "study", "--out",
         folder / "new", "--dry-run")


def load_run(folder: Path) -> None:
    RunFolder(str(folder / "run")).network("corrected")


def report(folder: Path) -> None:
    verb("report", folder / "run", "--predictions", folder / "labels", "--scores",
         folder / "scores", "--references", folder / "study", "--out", folder / "new.html",
         "--overlays", 0)


def compare(folder: Path) -> None:
    verb("compare", folder / "scores", folder / "scores", "--names", "a,b", "--single",
         "--per-case")


def evaluate(folder: Path) -> None:
    shutil.rmtree(folder / "new_scores", ignore_errors=True)
    verb("evaluate", "--predictions", folder / "labels", "--references", folder / "study",
         "--out", folder / "new_scores", "--workers", 1, "--allow-missing")


def import_caffe(folder: Path, *more: object) -> None:
    verb("import-caffe", "--dry-run", *more)


def restore(folder: Path) -> list[np.ndarray]:
    variables = [tf.Variable(np.zeros((30, 20), np.float32)), tf.Variable(np.zeros(7, np.float32))]
    Checkpoints(str(folder / "run" / "checkpoints"), variables).restore("last")
    return np.concatenate([v.numpy().ravel() for v in variables])


@cache
def _model() -> PixelNet:
    return PixelNet(CONFIG.model, 3, 4, seed=1)


def log_rows(folder: Path) -> None:
    training_curves(read_json_lines(folder / "run" / "log.jsonl"))


KINDS = {
    "config.yaml": Kind("config.yaml", lambda f: verb(
        "prepare", "--config", f / "config.yaml", "--data", "x", "--out", "y", "--print-config"),
        (2,), text_field),
    "image.nii": Kind(f"study/{CASES[0]}/{CASES[0]}_flair.nii", check_study, (3,), nifti_field),
    "image.nii.gz": Kind(f"study/{CASES[1]}/{CASES[1]}_t2.nii.gz",
                         read_image(f"{CASES[1]}_t2.nii.gz"), (3,), binary_field, checksum=True),
    "image.nii.gz, its header": Kind(f"study/{CASES[1]}/{CASES[1]}_flair.nii.gz", check_study,
                                     (3,), nifti_field),
    "segmentation.nii.gz": Kind(f"study/{CASES[1]}/{CASES[1]}_seg.nii.gz", check_study, (3,),
                                nifti_field),
    "prediction.nii.gz": Kind(f"labels/{CASES[1]}.nii.gz", evaluate, (3,), nifti_field),
    "shard": Kind(f"prepared/cases/{CASES[1]}.tfrecord", read_prepared, (3,), binary_field,
                  checksum=True),
    "shard in training": Kind(f"prepared/cases/{CASES[1]}.tfrecord", train_on, (3,),
                              binary_field, expensive=True),
    "prepared/index.json": Kind("prepared/index.json", plan_training, (2, 3), json_field),
    "prepared/index.json, read": Kind("prepared/index.json", read_prepared, (3,), json_field),
    "prepared/split.json": Kind("prepared/split.json", plan_training, (2, 3), json_field),
    "prepared/config.yaml": Kind("prepared/config.yaml", plan_training, (2, 3, 4), text_field),
    "prepared/cases.json": Kind(f"prepared/cases/{CASES[1]}.json", read_prepared, (3,), json_field),
    "prepared/cases.json, again": Kind(f"prepared/cases/{CASES[1]}.json", check_prepared := (
        lambda f: verb("prepare", "--config", f / "config.yaml", "--data", f / "study", "--out",
                       f / "prepared", "--dry-run")), (), json_field),
    "prepared/split.json, again": Kind("prepared/split.json", check_prepared, (3,), json_field),
    "prepared/left_out.json": Kind("prepared/left_out.json", check_prepared, (3,), json_field),
    "run/config.yaml": Kind("run/config.yaml", plan_prediction, (2, 3, 4), text_field),
    "run/split.json": Kind("run/split.json", plan_training, (2, 3), json_field),
    "run/start.json": Kind("run/start.json", plan_training, (2, 3), json_field),
    "run/priors.json": Kind("run/priors.json", load_run, (2, 3), json_field, expensive=True),
    "run/log.jsonl": Kind("run/log.jsonl", log_rows, (), text_field),
    "run/model.keras": Kind("run/model.keras", load_run, (4,), keras_field, expensive=True),
    "checkpoints/state.json": Kind("run/checkpoints/state.json", plan_training, (2, 3, 5),
                                   json_field),
    "checkpoints/state.json, read": Kind("run/checkpoints/state.json", restore, (3, 5),
                                         json_field),
    "checkpoints/index": Kind("run/checkpoints/last-2.index", restore, (5,), binary_field,
                              checksum=True),
    "checkpoints/data": Kind("run/checkpoints/last-2.data-00000-of-00001", restore, (5,),
                             binary_field, checksum=True),
    "prediction.json": Kind("labels/prediction.json", evaluate, (2, 3), json_field),
    "summary.json": Kind("scores/summary.json", compare, (2, 3), json_field),
    "summary.json in a report": Kind("scores/summary.json", report, (2, 3), json_field,
                                     expensive=True),
    "caffemodel": Kind("caffe/weights.caffemodel", lambda f: import_caffe(
        f, "--caffemodel", f / "caffe/weights.caffemodel"), (4,), binary_field),
    "caffemodel.h5": Kind("caffe/weights.caffemodel.h5", lambda f: import_caffe(
        f, "--prototxt", f / "caffe/deploy.prototxt", "--caffemodel",
        f / "caffe/weights.caffemodel.h5"), (4,), binary_field),
    "prototxt": Kind("caffe/deploy.prototxt", lambda f: import_caffe(
        f, "--prototxt", f / "caffe/deploy.prototxt", "--caffemodel",
        f / "caffe/weights.caffemodel"), (4,), text_field),
    "solver.prototxt": Kind("caffe/solver.prototxt", lambda f: import_caffe(
        f, "--solver", f / "caffe/solver.prototxt"), (2, 4), text_field),
    "solverstate": Kind("caffe/snapshot_iter_2.solverstate", lambda f: load_snapshot(
        _model(), f / "caffe/snapshot_iter_2.solverstate"), (4,), binary_field),
    "solverstate.h5": Kind("caffe/snapshot_iter_2.solverstate.h5", lambda f: load_snapshot(
        _model(), f / "caffe/snapshot_iter_2.solverstate.h5"), (4,), binary_field),
    "golden.npz": Kind("caffe/golden.npz", lambda f: verb(
        "parity", "--prototxt", f / "caffe/deploy.prototxt", "--caffemodel",
        f / "caffe/weights.caffemodel", "--golden", f / "caffe/golden.npz"), (3, 4), binary_field,
        expensive=True),
    "serving.json": Kind("served/serving.json", lambda f: served_config(
        read_json(f / "served/serving.json"), lambda config: config), (2, 3, 4), json_field),
    "serving.json, served": Kind("served/serving.json", lambda f: LoadedModel(
        f / "served", "x", 1), (4,), json_field),
    "saved_model.pb": Kind("served/saved_model.pb", lambda f: LoadedModel(f / "served", "x", 1),
                           (4,), binary_field),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a file of each kind."""
    folder = tmp_path_factory.mktemp("files")
    write_phantom(folder / "study", 3, 0, size=(20, 18, 6))
    first = folder / "study" / CASES[0] / f"{CASES[0]}_flair.nii"
    nib.save(nib.load(f"{first}.gz"), first)
    Path(f"{first}.gz").unlink()
    (folder / "config.yaml").write_text(config_to_yaml(CONFIG))
    prepare_study(CONFIG, folder / "study", folder / "prepared", workers=1)
    study = PreparedStudy.open(folder / "prepared")
    write_json(folder / "prepared" / "left_out.json",
               [{"case": "another", "reason": "t2.nii.gz: no such file", "made_from": None}])

    run = RunFolder(str(folder / "run"))
    names = CONFIG.study.class_names
    run.start(CONFIG, study.split, ClassPriors(names, (0.7, 0.1, 0.1, 0.1), (0.25,) * 4),
              study.digest((*study.split.train, *study.split.validation)))
    model = _model()
    run.save_model(model)
    rng = np.random.default_rng(0)
    Checkpoints(str(folder / "run" / "checkpoints"), [
        tf.Variable(rng.normal(size=(30, 20)).astype(np.float32)),
        tf.Variable(rng.normal(size=7).astype(np.float32))]).save("last", 2, score=0.5)
    rows = [{"step": step, "loss": 1.5, "learning_rate": 0.1, "seconds": 0.5,
             "validation/score": 0.5} for step in (1, 2, 3)]
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    (folder / "labels").mkdir()
    for case in CASES:
        truth = nib.load(folder / "study" / case / f"{case}_seg.nii.gz")
        nib.save(nib.Nifti1Image(np.roll(np.asarray(truth.dataobj), 1, axis=0), truth.affine),
                 folder / "labels" / f"{case}.nii.gz")
    write_json(folder / "labels" / "prediction.json",
               {"config": config_to_json(CONFIG), "cases": list(CASES)})
    verb("evaluate", "--predictions", folder / "labels", "--references", folder / "study",
         "--out", folder / "scores", "--workers", 1)

    export_caffe(model, CONFIG, np.zeros(4), folder / "caffe")
    write_caffemodel(folder / "caffe" / "weights.caffemodel.h5", caffe_network(model))
    histories = {variable.path: (np.ones(variable.shape, np.float32),)
                 for variable in model.trainable_variables}
    for form in ("binaryproto", "hdf5"):
        save_snapshot(model, histories, 2, 0, folder / "caffe", form)
    (folder / "caffe" / "solver.prototxt").write_text(
        'net: "a" base_lr: 0.01 lr_policy: "step" gamma: 0.1 stepsize: 50 momentum: 0.9 '
        "weight_decay: 0.0005 max_iter: 50\n")
    np.savez(folder / "caffe" / "golden.npz", **{
        "data": np.zeros((1, 3, 52, 50), np.float32), "pixels": np.full((5, 3), 20, np.float32)
        * np.float32([0, 1, 1]), "blob/fc8_new": np.zeros((5, 4), np.float32)})

    write_json(folder / "served" / "serving.json", describe_export(run, CONFIG, "x", 1))
    (folder / "served" / "saved_model.pb").write_bytes(b"\x08\x01\x12\x05\x0a\x03\x0a\x01x")
    # As earlier versions left them: with a manifest, damage is seen before anything is parsed.
    for manifest in folder.rglob(MANIFEST):
        manifest.unlink()
    return folder


def outcome(kind: Kind, folder: Path) -> tuple[int, Any]:
    """Exit code of a reading, and what it gave; what is no error of the product comes out."""
    try:
        return 0, kind.read(folder)
    except (PixelNetError, _Failed) as error:
        return error.exit_code, None


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_told_or_does_no_harm(name, files, capsys):
    kind = KINDS[name]
    path = files / kind.path
    whole = path.read_bytes()
    generator = np.random.default_rng([SEED, *name.encode()])
    sound = outcome(kind, files)
    assert sound[0] in (0, 4) if path.name.startswith(("saved", "serving")) else sound[0] == 0
    end, rounds, refused = time.monotonic() + SECONDS / len(KINDS), 0, 0
    try:
        while rounds < (3 if kind.expensive else 6) or time.monotonic() < end:
            how = ("bit", "cut", "field")[rounds % 3]
            broken = damaged(whole, how, kind.field, generator)
            path.write_bytes(broken)
            rounds += 1
            about = f"round {rounds}, {how}, {broken[:2000]!r}"
            try:
                code, found = outcome(kind, files)
            except BaseException as error:
                raise AssertionError(f"{type(error).__name__}: {error} in {about}") from error
            assert code in (0, *kind.codes), (about, capsys.readouterr().err)
            if kind.checksum and code == 0:
                np.testing.assert_array_equal(found, sound[1], err_msg=about)
            refused += code != 0
            capsys.readouterr()
    finally:
        path.write_bytes(whole)
    assert refused or not kind.codes, f"{rounds} rounds, and nothing was refused"
