"""The part of MONAI Label's REST API that viewers need to segment with a model of ours.

By its public description: `GET /info/`, `PUT`, `GET` and `DELETE /session/`, `POST /infer/MODEL`.
There is no data store, no training and no active learning.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from typing import Any, BinaryIO

from pixelnet_tf import __version__
from pixelnet_tf.serving.about import RESEARCH_ONLY
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.loaded_model import LoadedModel
from pixelnet_tf.serving.multipart import multipart_answer
from pixelnet_tf.serving.zip_upload import ZIP_ERRORS, zip_entries

_FILE = "segmentation.nii.gz"


def describe_app(models: Sequence[LoadedModel]) -> dict[str, Any]:
    """What `/info/` says: the models that take volumes, their labels, and nothing of the rest."""
    told = {model.name: _describe(model) for model in models if model.config}
    names = dict.fromkeys(name for each in told.values() for name in each["labels"])
    return {"name": "pixelnet-tf", "description": RESEARCH_ONLY, "version": __version__,
            "labels": list(names), "models": told, "trainers": {}, "strategies": {}, "scoring": {},
            "train_stats": {}, "datastore": {}}


def _describe(model: LoadedModel) -> dict[str, Any]:
    assert model.config is not None
    study = model.config.study
    several = "" if len(study.inputs) == 1 else \
        " Takes a file each, whose names tell them: " + ", ".join(study.inputs) + "."
    return {"type": "segmentation", "labels": labels_of(model), "dimension": 3,
            "description": f"PixelNet of {study.name}, version {model.version}.{several}",
            "config": {}}


def labels_of(model: LoadedModel) -> dict[str, int]:
    """Name -> value of every label but the background."""
    assert model.config is not None
    return {name: value for value, name in model.config.study.labels.items() if value}


@contextmanager
def modalities_of(files: Mapping[str, BinaryIO], modalities: Sequence[str]
                  ) -> Iterator[dict[str, BinaryIO]]:
    """Tell which file is which modality, by their names; a zip stands for what it holds.

    Args:
        files: name as the client called it -> content.
        modalities: what the model takes.

    Raises:
        ApiError: 400 where a file is missing, or one is left over.
    """
    with ExitStack() as stack:
        found: dict[str, BinaryIO] = {}
        for name, content in files.items():
            found |= _unzipped(content, stack) if name.lower().endswith(".zip") else {name: content}
        if len(found) == len(modalities) == 1:
            yield {modalities[0]: next(iter(found.values()))}
            return
        told = {name: _modality(name, modalities) for name in found}
        missing = [each for each in modalities if each not in told.values()]
        if missing or len(found) != len(modalities):
            wrong = f"{missing[0]!r} is not there" if missing else "one is left over"
            raise ApiError(400, f"the model takes {list(modalities)}, a NIfTI file each whose name "
                                f"tells it, as in case_{modalities[0]}.nii.gz; got "
                                f"{[name[:60] for name in found]}: {wrong}")
        yield {modality: found[name] for name, modality in told.items() if modality}


def _unzipped(content: BinaryIO, stack: ExitStack) -> dict[str, BinaryIO]:
    """The NIfTI files of a zip, unpacked as they are read."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(content))
        return {entry.filename: stack.enter_context(archive.open(entry))  # type: ignore[misc]
                for entry in zip_entries(archive)[:64]
                if re.search(r"\.nii(\.gz)?$", entry.filename)}
    except ZIP_ERRORS as error:
        raise ApiError(400, f"the zip cannot be read ({str(error)[:200]})") from None


def _modality(name: str, modalities: Sequence[str]) -> str | None:
    """The modality whose words stand in a name, one after the other; of several the longest."""
    words = _words(PurePath(name.replace("\\", "/")).name)
    fitting = [each for each in modalities if _words(each) in words]
    return max(fitting, key=len, default=None)


def _words(name: str) -> str:
    """Letters and digits of a name in lower case, a hyphen between and around its words."""
    return "-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + "-"


def read_params(text: str) -> dict[str, Any]:
    """The field `params` of a request; raises `ApiError` 400."""
    try:
        params = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise ApiError(400, "`params` must be a JSON object") from None
    if not isinstance(params, dict):
        raise ApiError(400, "`params` must be a JSON object")
    return params


def infer_answer(model: LoadedModel, segmentation: bytes, seconds: float, output: str
                 ) -> tuple[bytes, str]:
    """Return an answer's body and media type.

    output: `image`, `json`, or `all` for a form of both.
    """
    params = json.dumps({"label_names": labels_of(model),
                         "latencies": {"total": round(seconds, 2)}}).encode()
    if output == "json":
        return params, "application/json"
    if output == "image":
        return segmentation, "application/gzip"
    return multipart_answer([("params", None, "application/json", params),
                             ("image", _FILE, "application/gzip", segmentation)])
