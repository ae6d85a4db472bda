"""From a trained run to a folder that TensorFlow Serving mounts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

from pixelnet_tf.config import Config, Mode
from pixelnet_tf.errors import ConfigError, RunError
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.inference.slice_segmenter import Ensemble, SliceSegmenter, segmenter_of
from pixelnet_tf.io import manifest
from pixelnet_tf.io.files import (
    begin_folder,
    remove_leftovers,
    replacing_folder,
    write_json,
    write_text,
)
from pixelnet_tf.io.locks import exclusive
from pixelnet_tf.reporting import reporter_or_log
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.several import Runs
from pixelnet_tf.serving.about import check_evaluated, describe_export
from pixelnet_tf.serving.model_card import model_card
from pixelnet_tf.serving.signatures import build_signatures
from pixelnet_tf.serving.warmup import write_warmup

FORMATS = ("savedmodel", "onnx")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
#: Writes the model itself into a folder. It receives what `describe_export` gave, and returns the
#: entries of it that are others in its format.
Writer = Callable[[Path, SliceSegmenter | Ensemble, dict[str, Any]], dict[str, Any]]


def export_model(run: RunFolder | Runs, config: Config, out: Path, name: str | None = None,
                 version: int | None = None, *, model_format: str = "savedmodel",
                 evaluation: Evaluation | None = None, dry_run: bool = False) -> Path:
    """Write OUT/<name>/<version>/ and return that folder.

    It holds the model (`saved_model.pb` or `model.onnx`), `serving.json`, `model_card.md` and,
    for a SavedModel, the warm-up requests. It is written beside and moved into place, so that a
    server that watches OUT/<name> never sees half of it.

    Args:
        run: a trained run, or several whose scores are averaged in the graph as `predict` does.
        config: its own, with the section `prediction` that is to go out with the model; the mode
            `reference` is not exported.
        name: name of the model; None takes the study's.
        version: None takes the one after the highest there.
        evaluation: scores for the card.
        dry_run: check everything, write nothing.

    Raises:
        ConfigError: a bad name or setting, or the version is there already.
        ModelError: the run has no model.
        RunError: the disk is full, another program is exporting the same model there, or what
            `--format onnx` needs is not installed.
    """
    write = _writer(model_format, config)
    if config.prediction.mode == Mode.REFERENCE:
        raise ConfigError("prediction.mode reference is the slow yardstick of speed and is not "
                          "exported", hint="give --mode exact (the same scores) or adaptive")
    name = config.study.name if name is None else name
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a model's name takes letters, digits, `_`, `.` and `-`, got {name!r}",
                          value=name, hint="give one by --name")
    base = Path(out) / name
    version = 1 + max(versions_in(base), default=0) if version is None else version
    if version < 1:
        raise ConfigError(f"--version must be 1 or more, got {version}", value=version)
    target = base / str(version)
    if target.exists():
        raise ConfigError(f"{target} is there already",
                          hint="leave --version out for the next number")
    runs = run if isinstance(run, Runs) else Runs((run,))
    networks = runs.networks(config.prediction)
    weights = [network.digest() for network in networks]
    if evaluation is not None:
        check_evaluated(evaluation, weights)
    about = describe_export(runs, config, name, version, evaluation, weights)
    segmenter = segmenter_of(networks, config.study, config.prediction)
    if dry_run:
        return target
    with exclusive(base, "export", reporter_or_log(None)):
        remove_leftovers(base)
        if target.exists():
            raise ConfigError(f"{target} has been written meanwhile", hint="export again")
        try:
            with replacing_folder(target) as temporary:
                begin_folder(temporary)
                about = about | write(temporary, segmenter, about)
                manifest.record(*manifest.files_in(temporary))
                write_json(temporary / "serving.json", about)
                write_text(temporary / "model_card.md", model_card(about))
        except tf.errors.OpError as error:
            raise RunError(f"cannot be written: {error}", file=target) from None
    return target


def versions_in(base: Path) -> list[int]:
    """Numbers of the version folders under a model's folder, in order."""
    if not base.is_dir():
        return []
    return sorted(int(path.name) for path in base.iterdir()
                  if path.is_dir() and re.fullmatch(r"[1-9][0-9]{0,17}", path.name))


def _writer(model_format: str, config: Config) -> Writer:
    if model_format == "savedmodel":
        return partial(_write_saved_model, config)
    if model_format == "onnx" and len(config.model.planes) > 1:
        raise ConfigError("--format onnx holds the sparse form alone, which sees slices of one "
                          f"plane, and model.planes is {list(config.model.planes)}",
                          value=list(config.model.planes),
                          hint="export a SavedModel, whose segment_raw averages them")
    if model_format == "onnx":
        from pixelnet_tf.serving.onnx import onnx_writer
        return onnx_writer()
    raise ConfigError(f"--format must be one of {list(FORMATS)}, got {model_format!r}",
                      value=model_format)


def _write_saved_model(config: Config, folder: Path, segmenter: SliceSegmenter | Ensemble,
                       about: dict[str, Any]) -> dict[str, Any]:
    module, signatures = build_signatures(segmenter, config)
    # Gradients serve no prediction. TensorFlow registers those of a model that it loads for good,
    # and holds the whole graph by them: a server would grow by it with each version.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=signatures, options=options)
    _settle_fingerprint(folder)
    write_warmup(folder, about["name"], len(about["channels"]))
    return {}


def _settle_fingerprint(folder: Path) -> None:
    """Give the fingerprint an identity that follows from the content, in place of one by chance.

    With it two exports of the same run are the same byte for byte.
    """
    path = folder / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = hashlib.sha256(fingerprint.SerializeToString(deterministic=True)).digest()
    # A number of 128 bits, as TensorFlow has it.
    fingerprint.uuid = str(int.from_bytes(content[:16], "big"))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
