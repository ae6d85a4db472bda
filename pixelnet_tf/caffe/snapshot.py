"""Snapshots of Caffe's solver: weights and histories, by layer of this project's model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.caffe.blobs import blob_variables, from_blob, to_blob
from pixelnet_tf.caffe.export import caffe_network
from pixelnet_tf.caffe.reading import (
    hdf5_names,
    read_network,
    read_solver_state,
    read_weights,
    write_caffemodel,
    write_solver_state,
)
from pixelnet_tf.caffe.weights import MATCHED, MatchTable, load_caffe_weights, names_in_files
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import Layer, Network, SolverState

#: Endings of a solver's state and of its caffemodel, by Caffe's name of the form.
_ENDINGS = {"binaryproto": (".solverstate", ".caffemodel"),
            "hdf5": (".solverstate.h5", ".caffemodel.h5")}
#: The histories of a solver by the path of their variable, in the variable's axis order.
Histories = Mapping[str, tuple[np.ndarray, ...]]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What was read: the number of steps done, what became of the file's layers, and histories."""

    step: int
    table: MatchTable
    histories: Histories


def is_snapshot(path: str) -> bool:
    """Whether a path ends as a solver's state does."""
    return path.endswith(tuple(state for state, _ in _ENDINGS.values()))


def check_snapshot(path: str | Path) -> int:
    """Return how many steps were done when a solver's state was written.

    Raises `ModelError` for a file that cannot be read, or whose learned net is missing.
    """
    state = read_solver_state(path)
    _learned_net(path, state)
    return state.iter


def load_snapshot(model: PixelNet, path: str | Path) -> Snapshot:
    """Give a model the weights that a solver's state belongs to, and return its histories.

    The caffemodel that the state names is looked for beside the state, then under the path that it
    names. The network must be the model's own, layer by layer, since histories have no meaning for
    another.

    Raises `ModelError` for broken files, and for a network that is not the model's.
    """
    state = read_solver_state(path)
    weights = _learned_net(path, state)
    network = _read_learned(model, weights)
    try:
        table = load_caffe_weights(model, network, required=model.weighted)
        unlike = [row for row in table.rows if row.status != MATCHED]
        if unlike:
            raise ModelError(
                f"layer {unlike[0].source or unlike[0].layer!r} is not the model's "
                f"({unlike[0].status}: {unlike[0].detail}); a snapshot goes on with the network "
                "that it was made with"
            )
        found = _by_layer(network, state)
        sources = {row.layer: row.source for row in table.rows}
        histories = {
            variable.path: tuple(from_blob(layer, array) for array in found[sources[name], index])
            for name, layer in model.parts.items()
            for index, variable in enumerate(blob_variables(layer))
        }
    except ModelError as error:
        raise ModelError.of(error, file=path) from error
    return Snapshot(state.iter, table, histories)


def snapshot_paths(folder: Path, step: int, form: str) -> tuple[Path, Path]:
    """Paths of a snapshot's state and caffemodel, named as Caffe names them."""
    state, weights = (folder / f"snapshot_iter_{step}{ending}" for ending in _ENDINGS[form])
    return state, weights


def save_snapshot(
    model: PixelNet, histories: Histories, step: int, current_step: int, folder: Path, form: str
) -> tuple[Path, Path]:
    """Write a model and its solver's histories as Caffe's snapshot, `binaryproto` or `hdf5`.

    Args:
        histories: of each variable, all with the same number of arrays; a variable that is not in
            it has zeros, as Caffe's solver leaves them for a blob that is not trained.
        step, current_step: steps done, and how often the learning rate has fallen in them.
        folder: for the files that `snapshot_paths` names.

    Returns both paths. Raises `ModelError` where Caffe could not read the result.
    """
    if model.architecture.mixes:
        raise ModelError("a network with model.mix_channels has no snapshot: its mixing layer "
                         "becomes part of conv1_1 in Caffe, and their histories cannot",
                         hint="export the network alone, by `pixelnet-tf export-caffe`")
    path, learned = snapshot_paths(folder, step, form)
    network = caffe_network(model)
    count = max(map(len, histories.values()), default=1)
    variables = dict(_variables(model))
    rows: list[list[np.ndarray]] = [[] for _ in range(count)]
    for layer, index in _learnable(network):
        owner, variable = variables[_own_name(model, layer.name), index]
        arrays = histories.get(variable.path)
        for number, row in enumerate(rows):
            row.append(np.zeros(layer.blobs[index].shape, np.float32) if arrays is None
                       else to_blob(owner, np.asarray(arrays[number], np.float32)))
    history = tuple(array for row in rows for array in row)
    write_caffemodel(learned, network)
    # The state last: with it the snapshot is whole.
    write_solver_state(path, SolverState(step, learned.name, history, current_step))
    return path, learned


def _learned_net(path: str | Path, state: SolverState) -> Path:
    named = Path(state.learned_net)
    # A name such as "", "." or "..", from a damaged file, is that of no file.
    places = (Path(path).parent / named.name, named) if named.name not in ("", "..") else ()
    for place in places:
        if place.is_file():
            return place
    raise ModelError(f"its weights, {state.learned_net!r}, are neither beside it nor under that "
                     "path", file=path, hint="put the caffemodel of the snapshot beside it")


def _read_learned(model: PixelNet, path: Path) -> Network:
    names = hdf5_names(path)
    if names is None:
        return read_network(None, path)
    # An HDF5 model does not say the order of its layers, so the model's own network does, under
    # the names that the file has.
    layers = tuple(
        dataclasses.replace(layer, blobs=(), name=next(
            (name for name in names_in_files(_own_name(model, layer.name)) if name in names),
            layer.name))
        for layer in caffe_network(model).layers
    )
    return read_weights(Network(path.name, layers), path)


def _by_layer(network: Network, state: SolverState) -> dict[tuple[str, int], list[np.ndarray]]:
    """Histories by name of a layer in the file and number of its blob."""
    places = list(_learnable(network))
    count, rest = divmod(len(state.history), len(places))
    if rest or not count:
        raise ModelError(f"it holds {len(state.history)} histories for the {len(places)} weight "
                         "blobs of its caffemodel", hint="check that the two belong together")
    found = {}
    for number, (layer, index) in enumerate(places):
        arrays = state.history[number::len(places)]
        for array in arrays:
            blob = layer.blobs[index]
            # Old states have four axes for a vector.
            if array.size != blob.size or array.shape[-blob.ndim or array.ndim:] != blob.shape:
                raise ModelError(f"history {number} has the shape {array.shape}, blob {index} of "
                                 f"layer {layer.name!r} {blob.shape}",
                                 hint="check that state and caffemodel belong together")
        found[layer.name, index] = [array.reshape(layer.blobs[index].shape) for array in arrays]
    return found


def _learnable(network: Network) -> Iterator[tuple[Layer, int]]:
    """The blobs that Caffe's solver has histories of, in its order: a shared one once."""
    shared = set()
    for layer in network.layers:
        for index in range(len(layer.blobs)):
            name = layer.param_spec(index).name
            if name and name in shared:
                continue
            shared.add(name)
            yield layer, index


def _variables(model: PixelNet) -> Iterator[tuple[tuple[str, int], tuple]]:
    for name, layer in model.parts.items():
        for index, variable in enumerate(blob_variables(layer)):
            yield (name, index), (layer, variable)


def _own_name(model: PixelNet, name: str) -> str:
    """A layer's name in the model, from one in files."""
    return next((own for own in model.parts if name in names_in_files(own)), name)
