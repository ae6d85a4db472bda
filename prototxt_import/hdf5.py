"""Caffe's HDF5 models (`.caffemodel.h5`): `data/<layer>/<index>` holds the blobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from prototxt_import.binary import check_finite
from prototxt_import.blob import Blob
from prototxt_import.errors import CaffeFormatError
from prototxt_import.files import HDF5_MAGIC, check_model_file
from prototxt_import.hdf5_file import import_h5py, open_hdf5
from prototxt_import.layer import Layer
from prototxt_import.network import Network
from prototxt_import.raw_net import RawLayer
from prototxt_import.schema import new_message


def is_hdf5(path: str | os.PathLike) -> bool:
    """Return whether a file begins as HDF5 files do.

    Raises
    ------
    CaffeFormatError
        There is no such file, it cannot be read, or it is clearly no model.

    Examples
    --------
    >>> from prototxt_import import is_hdf5
    >>> is_hdf5("weights.caffemodel")
    False
    """
    return check_model_file(path, "caffemodel").startswith(HDF5_MAGIC)


def read_hdf5_weights(
    path: str | os.PathLike, layers: Mapping[str, Layer], *, allow_nan: bool = False
) -> dict[str, RawLayer]:
    """Return the blobs of every layer in the file, as float32 arrays.

    `layers` are those of the network: a blob that the file lacks is taken from the layer that
    shares it by parameter name, as Caffe writes a shared blob only once. Needs h5py.
    """
    path = os.fspath(path)
    with open_hdf5(path) as file:
        if "data" not in file or not hasattr(file["data"], "items"):
            raise CaffeFormatError("this HDF5 file has no group `data`: no Caffe model", path)
        found = dict(_read_groups(file["data"], "", path))
    _fill_shared(found, layers)
    weights = {}
    for name, blobs in found.items():
        if sorted(blobs) != list(range(len(blobs))):
            raise CaffeFormatError(f"layer {name!r}: blobs {sorted(blobs)} are not all there", path)
        ordered = [blobs[index] for index in range(len(blobs))]
        if not allow_nan:
            for index, array in enumerate(ordered):
                check_finite(array, f"layer {name!r}, blob {index}", path)
        message = new_message("LayerParameter")
        message.name, message.type = name, layers[name].type if name in layers else ""
        if name.endswith("_split") and not ordered:  # put in by Caffe; types are not in the file
            message.type = "Split"
        weights[name] = RawLayer(message, tuple(Blob(array, False) for array in ordered))
    return weights


def hdf5_layer_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Return the names of the layers of an HDF5 model, whose order such a file does not say.

    The names of groups are among them, too: a layer called `a/b` lies in the group `a`.

    Raises
    ------
    CaffeFormatError
        The file is damaged or refused (see `open_hdf5`).

    Examples
    --------
    >>> from prototxt_import import hdf5_layer_names, load_network, save_caffemodel
    >>> network = load_network("deploy.prototxt", "weights.caffemodel")
    >>> save_caffemodel("weights.caffemodel.h5", network)
    >>> "conv1_1" in hdf5_layer_names("weights.caffemodel.h5")
    True
    """
    names: list[str] = []
    with open_hdf5(path) as file:
        file["data"].visit(names.append)
    return tuple(names)


def write_hdf5(path: str | os.PathLike, network: Network) -> None:
    """Write the blobs of `network` as Caffe's `ToHDF5` does, a shared one in its first layer."""
    h5py = import_h5py(path)
    owned: set[str] = set()
    with h5py.File(os.fspath(path), "w") as file:
        data = file.create_group("data")
        for layer in network.layers:
            group = data.require_group(layer.name)
            for index, blob in enumerate(layer.blobs):
                shared_name = layer.param_spec(index).name
                if shared_name in owned:
                    continue
                if shared_name:
                    owned.add(shared_name)
                group.create_dataset(str(index), data=np.asarray(blob, "<f4"))


def _read_groups(
    parent: Any, prefix: str, path: str
) -> Iterator[tuple[str, dict[int, np.ndarray]]]:
    """Yield each layer's name and blobs: a layer called `a/b` is a group in the group `a`."""
    for key, member in parent.items():
        if not hasattr(member, "items"):
            if not prefix:
                raise CaffeFormatError(f"data/{key} is no layer: no Caffe model", path)
            continue
        arrays = {name: one for name, one in member.items() if not hasattr(one, "items")}
        if arrays or not len(member):
            yield prefix + key, read_arrays(arrays, member.name, path)
        yield from _read_groups(member, f"{prefix}{key}/", path)


def read_arrays(arrays: Mapping[str, Any], group: str, path: str) -> dict[int, np.ndarray]:
    """Return the numbered arrays of a group, read-only float32, by their numbers."""
    blobs = {}
    for key, dataset in arrays.items():
        where = f"blob {group}/{key}"
        if not key.isdecimal() or not hasattr(dataset, "dtype") or dataset.dtype.kind != "f":
            raise CaffeFormatError(f"{where} is no array of floats: no Caffe model", path)
        if not dataset.size:
            raise CaffeFormatError(
                f"{where} declares the shape {dataset.shape}, without any weight; the file is "
                "damaged", path)
        with np.errstate(over="ignore"):  # to infinity, which `check_finite` tells of
            array = np.asarray(dataset[()], dtype="<f4")
        array.flags.writeable = False
        blobs[int(key)] = array
    return blobs


def _fill_shared(found: dict[str, dict[int, np.ndarray]], layers: Mapping[str, Layer]) -> None:
    owners: dict[str, np.ndarray] = {}
    for layer in layers.values():
        blobs = found.get(layer.name, {})
        for index, spec in enumerate(layer.param_specs):
            if spec.name and index in blobs:
                owners.setdefault(spec.name, blobs[index])
            elif spec.name in owners and layer.name in found:
                blobs[index] = owners[spec.name]
