"""Reading and writing Caffe's files, with this project's errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pixelnet_tf.errors import ModelError, RunError
from prototxt_import import (
    CaffeFormatError,
    Network,
    Solver,
    SolverState,
    attach_weights,
    count_values,
    hdf5_layer_names,
    is_hdf5,
    load_network,
    load_solver,
    load_solverstate,
    open_hdf5,
    save_caffemodel,
    save_prototxt,
    save_solverstate,
)

#: How much larger than its file the arrays of an HDF5 file may be. Keras packs nothing.
_MAX_INFLATION = 64


@contextmanager
def caffe_errors() -> Iterator[None]:
    """Turn `CaffeFormatError` into `ModelError`, whose exit code is 4.

    Where the disk did not take a file it is a `RunError`, whose exit code is 5.
    """
    try:
        yield
    except CaffeFormatError as error:
        kind = RunError if isinstance(error.__cause__, OSError) else ModelError
        raise kind(str(error), file=error.path) from error


def read_network(
    prototxt: str | Path | None = None,
    caffemodel: str | Path | None = None,
    *,
    phase: str | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    allow_nan: bool = False,
) -> Network:
    """Return the network of a prototxt, a caffemodel or both.

    The parameters are those of `prototxt_import.load_network`.

    Raises
    ------
    ModelError
        Something is wrong with the files; its text says what and where.

    Examples
    --------
    >>> from pixelnet_tf.caffe.reading import read_network
    >>> read_network("deploy.prototxt", "weights.caffemodel").layer("conv1_1").blobs[0].shape
    (4, 3, 3, 3)
    """
    with caffe_errors():
        return load_network(
            prototxt, caffemodel, phase=phase, level=level, stages=stages, allow_nan=allow_nan
        )


def read_solver(path: str | Path) -> Solver:
    """Solver of a solver.prototxt; raises `ModelError` for whatever is wrong with the file."""
    with caffe_errors():
        return load_solver(path)


def read_weights(network: Network, caffemodel: str | Path) -> Network:
    """A network with the weights of a caffemodel; raises `ModelError` for whatever is wrong."""
    with caffe_errors():
        return attach_weights(network, caffemodel)


def hdf5_names(caffemodel: str | Path) -> tuple[str, ...] | None:
    """Names of the layers of an HDF5 caffemodel, None for a binary one; raises `ModelError`."""
    with caffe_errors():
        return hdf5_layer_names(caffemodel) if is_hdf5(caffemodel) else None


def checked_hdf5(path: str | Path, most_bytes: int, file: BinaryIO | None = None) -> int:
    """Look through an HDF5 file that weights are read from next; returns how many values it holds.

    file: where its bytes are read, if it is a part of the file that `path` names.

    Raises `ModelError` for a file that is damaged or reads other files, whose arrays take more
    than `most_bytes` (see `prototxt_import.open_hdf5`), or are of something else than real numbers:
    of complex ones a half would be dropped.
    """
    def check(name: str, one: Any) -> None:
        dtype = getattr(one, "dtype", None)
        if dtype is not None and dtype.kind not in "fiub":
            raise CaffeFormatError(f"its array {name} is of {dtype}, not of real numbers", path)

    with caffe_errors(), open_hdf5(path, most_bytes, file) as arrays:
        arrays.visititems(check)
        return count_values(arrays)


def hdf5_groups(path: str | Path, groups: Iterable[str]) -> dict[str, list[np.ndarray]]:
    """The float32 arrays below some groups of an HDF5 file; none for a group that is not there.

    Raises `ModelError` as `checked_hdf5`, for arrays that take far more than the file has.
    """
    checked_hdf5(path, _MAX_INFLATION * Path(path).stat().st_size)
    with caffe_errors(), open_hdf5(path) as file:
        found: dict[str, list[np.ndarray]] = {}
        for group in groups:
            arrays = found.setdefault(group, [])

            def take(_: str, one: Any, arrays: list[np.ndarray] = arrays) -> None:
                if hasattr(one, "dtype"):
                    arrays.append(np.asarray(one, np.float32))

            if group in file:
                file[group].visititems(take)
        return found


def read_solver_state(path: str | Path) -> SolverState:
    """State of a .solverstate or .solverstate.h5; raises `ModelError` for whatever is wrong."""
    with caffe_errors():
        return load_solverstate(path)


def write_solver_state(path: str | Path, state: SolverState) -> None:
    """Write a solver's state.

    Raises `ModelError` where Caffe could not read it, `RunError` where the disk takes nothing.
    """
    with caffe_errors():
        save_solverstate(path, state)


def write_prototxt(path: str | Path, network: Network) -> None:
    """Write a network's description.

    Raises `ModelError` where Caffe's schema has no room, `RunError` where the disk takes nothing.
    """
    with caffe_errors():
        save_prototxt(path, network)


def write_caffemodel(path: str | Path, network: Network) -> None:
    """Write a network with its weights.

    Raises `ModelError` where Caffe could not read it, `RunError` where the disk takes nothing.
    """
    with caffe_errors():
        save_caffemodel(path, network)
