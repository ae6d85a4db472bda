"""The network of a run: loaded from its file, ready to predict with."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
import warnings
import zipfile
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf.caffe.reading import checked_hdf5
from pixelnet_tf.config import config_from_dict
from pixelnet_tf.errors import ModelError, RunError, is_out_of_memory
from pixelnet_tf.io.files import check_written
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.pixelnet import PixelNet

#: Members of a .keras file.
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
#: How much larger than its file a model may be. Keras packs nothing.
_MAX_INFLATION = 64
#: A description takes some 2 KB.
_MAX_CONFIG_BYTES = 1 << 20
#: What `PixelNet.get_config` writes.
_CONFIG_TYPES = {"config": dict, "channels": int, "classes": int, "name": str}


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network as predictions use it.

    Attributes:
        model: the network.
        correction: (class,) added to its scores (`ClassPriors.correction`).
        name: says in `prediction.json` where it came from.
        file: SHA-256 of the model's file; None where it came from none, or from a checkpoint.
    """

    model: PixelNet
    correction: np.ndarray
    name: str = ""
    file: str | None = None

    def digest(self) -> str:
        """SHA-256 of the weights: a run that was trained anew is another network."""
        found = hashlib.sha256()
        for weights in self.model.weights:
            found.update(np.ascontiguousarray(_values(weights)).data)
        return found.hexdigest()

    def record(self) -> dict[str, Any]:
        """What `prediction.json` says of the network, in JSON values."""
        return {"model": self.name, "weights": self.digest(), "file": self.file,
                "correction": [float(value) for value in self.correction]}


def load_model(path: str) -> PixelNet:
    """Load a .keras file of this project.

    The file need not be trusted. Of its description the class' name is compared and the sizes are
    read, nothing in it is made or called; the network is this project's own, and the file gives it
    arrays alone. What it unpacks to is measured first.

    Raises:
        ModelError: it is broken, of another class, lacks weights, holds weights that are not
            finite, which would make every voxel background, takes far more memory than its size,
            or is not the one that was written into its folder.
        RunError: there is no room to unpack it.
    """
    try:
        check_written(path, "take it from a copy, or let `pixelnet-tf train --resume` make it")
        # Keras' own loader makes the classes that a file names before anybody looks at them.
        with (tf.io.gfile.GFile(path, "rb") as file, zipfile.ZipFile(file) as archive,
              scratch_folder() as folder):
            most_bytes = tf.io.gfile.stat(path).length * _MAX_INFLATION
            config = _own_config(archive)
            _check_member(archive, _WEIGHTS, most_bytes)
            weights = archive.extract(_WEIGHTS, folder)
            held, needed = checked_hdf5(weights, most_bytes), _weights_of(config)
            if held < needed:
                raise ModelError(f"its description asks for {needed:,} weights, it holds {held:,}")
            model = PixelNet(**config, draw=False)
            with warnings.catch_warnings():
                # A layer that the file has no weights for would keep whatever memory held.
                warnings.filterwarnings("error", message="Skipping")
                model.load_weights(weights)
    except RunError:
        raise
    except Exception as error:  # Keras, h5py and zipfile raise almost any class.
        if is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"cannot be loaded as a model of this project: {reason}",
                         file=path) from None
    for weights in model.weights:
        values = _values(weights)
        # Both are NaN where any value is; and no array of the weights' size is made.
        if not np.isfinite([values.min(), values.max()]).all():
            raise ModelError(f"the weights of {weights.path} are not finite; the training went "
                             "astray: train anew at a lower learning rate", file=path)
    return model


def _values(weights: keras.Variable) -> np.ndarray:
    """The values of a variable as they lie in its memory, not a copy: fc6 has 411 MB."""
    return np.asarray(tf.convert_to_tensor(weights.value))


def _own_config(archive: zipfile.ZipFile) -> dict[str, Any]:
    """What `PixelNet` is to be made with, of a description that may say anything."""
    _check_member(archive, _CONFIG, _MAX_CONFIG_BYTES)
    saved = json.loads(archive.read(_CONFIG))
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise ModelError(f"{_CONFIG} describes no model")
    own = keras.saving.get_registered_name(PixelNet)
    if saved.get("registered_name") != own:
        raise ModelError(f"holds a {saved.get('class_name')!r}, not a PixelNet")
    config = saved["config"]
    for name, kind in _CONFIG_TYPES.items():
        if type(config.get(name)) is not kind:
            raise ModelError(f"{_CONFIG}: {name} must be {kind.__name__}, got "
                             f"{reprlib.repr(config.get(name))}",
                             value=config.get(name))
    if unknown := set(config) - set(_CONFIG_TYPES):
        raise ModelError(f"{_CONFIG}: unknown {reprlib.repr(sorted(unknown))}; a PixelNet has "
                         f"{', '.join(_CONFIG_TYPES)}")
    return config


def _check_member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> None:
    """Refuse a member that unpacks to more than `most_bytes`; zipfile reads no more than it says.
    """
    member = archive.getinfo(name)
    if member.file_size > most_bytes:
        raise ModelError(f"{name} unpacks to {member.file_size:,} bytes, more than the "
                         f"{most_bytes:,} that such a file may")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others take memory that the file names.
        raise ModelError(f"{name} is packed by the method {member.compress_type}, which Keras "
                         "does not use")


def _weights_of(config: dict[str, Any]) -> int:
    """How many weights a network of this description has."""
    table = Architecture.of(config_from_dict({"model": config["config"]}).model, config["classes"])
    shapes = table.blob_shapes(config["channels"]).values()
    return sum(math.prod(shape) for of_layer in shapes for shape in of_layer)
