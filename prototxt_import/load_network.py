"""Loading a network from a prototxt, a caffemodel or both."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from prototxt_import.binary import read_caffemodel
from prototxt_import.build_network import build_network
from prototxt_import.errors import CaffeFormatError
from prototxt_import.hdf5 import is_hdf5, read_hdf5_weights
from prototxt_import.layer import Layer, blob_mismatch, expected_blobs, fold_legacy_shape
from prototxt_import.network import Network
from prototxt_import.raw_net import RawLayer
from prototxt_import.text import read_prototxt

Path = str | os.PathLike


def load_network(
    prototxt: Path | None = None,
    caffemodel: Path | None = None,
    *,
    phase: str | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    allow_nan: bool = False,
) -> Network:
    """Return the network that a prototxt describes, with the weights of a caffemodel.

    Either file may be left out: a caffemodel alone gives the description it carries itself.
    Together, weights are attached by layer name as Caffe's `CopyTrainedLayersFrom` does: layers
    that only the model file has are listed in `network.unmatched`, and layers that only the
    prototxt has keep no blobs. Where layers share a name, at most one of them may have weights.

    Parameters
    ----------
    prototxt
        The description of the network.
    caffemodel
        The weights: a binary model in the current format, V1 or V0, or an HDF5 model.
    phase
        "TRAIN" or "TEST" leaves out the layers of the other phase; None keeps all layers.
    level, stages
        What the include and exclude rules of layers are asked beside the phase.
    allow_nan
        Whether weights may be NaN or infinite.

    Returns
    -------
    Network
        The layers in the order of the file, brought to Caffe's current form.

    Raises
    ------
    CaffeFormatError
        Something is wrong with the files; its text says what and where.

    Examples
    --------
    >>> from prototxt_import import load_network
    >>> network = load_network("deploy.prototxt", "weights.caffemodel", phase="TEST")
    >>> network.layer("conv1_1").params.kernel
    (3, 3)
    >>> network.layer("conv1_1").blobs[0].shape                   # (out, in, height, width)
    (4, 3, 3, 3)
    """
    if prototxt is not None:
        network = build_network(read_prototxt(prototxt), phase, level, tuple(stages))
        if caffemodel is None:
            return network
        return attach_weights(network, caffemodel, allow_nan=allow_nan)
    if caffemodel is None:
        raise CaffeFormatError("give a prototxt, a caffemodel or both")
    if is_hdf5(caffemodel):
        raise CaffeFormatError(
            "an HDF5 model holds weights without a description; give its prototxt too", caffemodel
        )
    raw = read_caffemodel(caffemodel, allow_nan=allow_nan)
    network = build_network(raw, phase, level, tuple(stages))
    for layer in network.layers:
        _check_blobs(layer, caffemodel)
    return network


def attach_weights(network: Network, caffemodel: Path, *, allow_nan: bool = False) -> Network:
    """Return a network with the weights of a caffemodel, by layer name, as `load_network` does.

    Parameters
    ----------
    network
        The network, whose own weights, if it has any, give way to those of the file.
    caffemodel
        A binary or an HDF5 model.
    allow_nan
        Whether weights may be NaN or infinite.

    Returns
    -------
    Network
        The same layers with the blobs of the file.

    Raises
    ------
    CaffeFormatError
        The file cannot be read, or its weights do not fit the network.

    Examples
    --------
    >>> from prototxt_import import attach_weights, load_network
    >>> network = attach_weights(load_network("deploy.prototxt"), "weights.caffemodel")
    >>> len(network.layer("conv1_1").blobs), network.unmatched
    (2, ('loss_cls',))
    """
    if is_hdf5(caffemodel):
        weighted = [layer for layer in network.layers if expected_blobs(layer) != ()]
        wanted = {layer.name: layer for layer in (*network.layers, *weighted)}
        weights = read_hdf5_weights(caffemodel, wanted, allow_nan=allow_nan)
    else:
        raw = read_caffemodel(caffemodel, allow_nan=allow_nan)
        weights = _by_name(raw.layers, caffemodel)
    return _attach(network, weights, caffemodel)


def _by_name(layers: list[RawLayer], path: Path) -> dict[str, RawLayer]:
    found: dict[str, RawLayer] = {}
    for layer in layers:
        message = layer.message
        is_v0 = message.DESCRIPTOR.name == "V1LayerParameter" and message.HasField("layer")
        name = message.layer.name if is_v0 else message.name
        if found.get(name, layer).blobs and name in found and layer.blobs:
            raise CaffeFormatError(
                f"two layers with weights are called {name!r}, so that their names do not tell "
                "whose weights are whose; the file is damaged, or its network must be trained with "
                "a name for each",
                path,
            )
        if name not in found or layer.blobs:
            found[name] = layer
    return found


def _attach(network: Network, weights: dict[str, RawLayer], path: Path) -> Network:
    layers = []
    weighted = {layer.name for layer in network.layers if expected_blobs(layer) != ()}
    for layer in network.layers:
        source = weights.get(layer.name)
        is_namesake = expected_blobs(layer) == () and layer.name in weighted
        if source is not None and not is_namesake:
            layer = _with_blobs(layer, source, path)
        layers.append(layer)
    names = {layer.name for layer in layers}
    unmatched = tuple(n for n, s in weights.items() if n not in names and not _is_split(s))
    return dataclasses.replace(network, layers=tuple(layers), unmatched=unmatched)


def _with_blobs(layer: Layer, source: RawLayer, path: Path) -> Layer:
    expected = expected_blobs(layer)
    if expected and not source.blobs:
        raise CaffeFormatError(
            f"layer {layer.name!r} ({layer.type}): it needs {len(expected)} weight blobs, but the "
            "file holds none under this name; rename the layer in the prototxt to start it anew",
            path,
        )
    if expected == () and source.blobs:
        raise CaffeFormatError(
            f"layer {layer.name!r} ({layer.type}) has no weights, but the file holds "
            f"{len(source.blobs)} blobs under this name; {_FIT}",
            path,
        )
    blobs = tuple(
        fold_legacy_shape(layer, i, blob.data) if blob.is_legacy_shape else blob.data
        for i, blob in enumerate(source.blobs)
    )
    layer = dataclasses.replace(layer, blobs=blobs)
    _check_blobs(layer, path)
    return layer


_FIT = "check that model and prototxt belong together"


def _check_blobs(layer: Layer, path: Path) -> None:
    problem = blob_mismatch(layer)
    if problem:
        advice = "" if "supported" in problem else f"; {_FIT}"
        raise CaffeFormatError(f"layer {layer.name!r} ({layer.type}): {problem}{advice}", path)


def _is_split(source: RawLayer) -> bool:
    """Whether Caffe itself put the layer in, to hand one blob to several readers."""
    message = source.message
    return message.DESCRIPTOR.name == "LayerParameter" and message.type == "Split"
