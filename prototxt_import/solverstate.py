"""Snapshots of a solver (`.solverstate`, `.solverstate.h5`): its step and its histories."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from prototxt_import import wire
from prototxt_import.binary import check_finite
from prototxt_import.blob import BlobError, blob_header, read_blob
from prototxt_import.errors import CaffeFormatError
from prototxt_import.files import HDF5_MAGIC, atomic_path, check_model_file
from prototxt_import.hdf5 import read_arrays
from prototxt_import.hdf5_file import import_h5py, open_hdf5
from prototxt_import.schema import new_message

_LEARNED_NET, _HISTORY = 2, 3
_MAX_BYTES = (1 << 31) - 1  # protobuf's limit, and so Caffe's
_DAMAGED = "the file is damaged or no solverstate; copy it again"


@dataclass(frozen=True, eq=False)
class SolverState:
    """What a solver goes on from.

    Attributes
    ----------
    iter
        How many steps are done.
    learned_net
        The path of the caffemodel, as Caffe wrote it.
    history
        An array for each learnable blob of the network in Caffe's axis order, in the order of the
        layers; a blob that layers share by name stands once, with the first of them. AdaDelta and
        Adam have a second array for each blob, after all the first ones.
    current_step
        How many times the learning rate has fallen so far.

    Examples
    --------
    >>> import numpy as np
    >>> from prototxt_import import SolverState
    >>> SolverState(iter=100, learned_net="net.caffemodel", history=(np.zeros(3, "float32"),)).iter
    100
    """

    iter: int
    learned_net: str
    history: tuple[np.ndarray, ...]
    current_step: int = 0


def load_solverstate(path: str | os.PathLike, *, allow_nan: bool = False) -> SolverState:
    """Return the state in a binary or HDF5 snapshot, histories as read-only float32 arrays.

    Parameters
    ----------
    path
        A `.solverstate` or `.solverstate.h5`.
    allow_nan
        Whether histories may hold numbers that are NaN or infinite.

    Raises
    ------
    CaffeFormatError
        The file is damaged or another program's, or a history is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from prototxt_import import SolverState, load_solverstate, save_solverstate
    >>> state = SolverState(7, "net.caffemodel", (np.ones(3, "float32"),))
    >>> save_solverstate("7.solverstate", state)
    >>> load_solverstate("7.solverstate").history[0].tolist()
    [1.0, 1.0, 1.0]
    """
    head = check_model_file(path, "solverstate")
    path = os.fspath(path)
    state = _read_hdf5(path) if head.startswith(HDF5_MAGIC) else _read_binary(path)
    if state.iter < 0:
        raise CaffeFormatError(f"its iteration is {state.iter}; {_DAMAGED}", path)
    if not allow_nan:
        for index, array in enumerate(state.history):
            check_finite(array, f"history {index}", path)
    return state


def save_solverstate(path: str | os.PathLike, state: SolverState) -> None:
    """Write a state as Caffe does; a path that ends in `.h5` gets the HDF5 form.

    Raises
    ------
    CaffeFormatError
        The state is larger than the 2 GiB that Caffe can read.

    Examples
    --------
    >>> import os
    >>> from prototxt_import import SolverState, save_solverstate
    >>> state = SolverState(iter=9, learned_net="net.caffemodel", history=())
    >>> save_solverstate("9.solverstate", state)
    >>> os.path.exists("9.solverstate")
    True
    """
    if os.fspath(path).endswith(".h5"):
        with atomic_path(path) as temporary:
            _write_hdf5(temporary, state)
        return
    message = new_message("SolverState")
    message.iter, message.current_step = state.iter, state.current_step
    name = os.fsencode(state.learned_net)
    headers = [blob_header(array) for array in state.history]
    sizes = [len(h) + 4 * a.size for h, a in zip(headers, state.history, strict=True)]
    # By hand: protobuf takes no path that is not UTF-8.
    rest = message.SerializeToString() + wire.encode_header(_LEARNED_NET, len(name)) + name
    total = len(rest) + sum(size + 8 for size in sizes)
    if total > _MAX_BYTES:
        raise CaffeFormatError(
            f"the state takes {total:,} bytes, more than the {_MAX_BYTES:,} that Caffe reads; save "
            "it as .solverstate.h5", path,
        )
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(rest)
        for header, size, array in zip(headers, sizes, state.history, strict=True):
            file.write(wire.encode_header(_HISTORY, size) + header)
            file.write(np.ascontiguousarray(array, "<f4").data.cast("B"))


def _read_binary(path: str) -> SolverState:
    rest, name, history = bytearray(), b"", []
    with (
        open(path, "rb", buffering=0) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer,
    ):
        try:
            for field in wire.walk(buffer, 0, len(buffer)):
                if field.number == _HISTORY and field.wire_type == wire.BYTES:
                    blob = read_blob(file, buffer, field.value_start, field.end)
                    history.append(blob.data)
                elif field.number == _LEARNED_NET and field.wire_type == wire.BYTES:
                    name = buffer[field.value_start:field.end]
                elif field.number in (1, 4):
                    rest += buffer[field.start:field.end]
                else:
                    raise CaffeFormatError(f"it holds a field {field.number}; {_DAMAGED}", path)
            message = new_message("SolverState")
            message.ParseFromString(bytes(rest))
        except CaffeFormatError:
            raise
        except (wire.WireError, BlobError) as error:
            where = f"history {len(history)}: " if isinstance(error, BlobError) else ""
            raise CaffeFormatError(f"{where}{error}; {_DAMAGED}", path) from None
        except DecodeError as error:
            raise CaffeFormatError(f"it cannot be read ({error}); {_DAMAGED}", path) from None
    if not message.HasField("iter"):
        raise CaffeFormatError(f"it names no iteration; {_DAMAGED}", path)
    return SolverState(message.iter, os.fsdecode(name), tuple(history), message.current_step)


def _read_hdf5(path: str) -> SolverState:
    with open_hdf5(path) as file:
        if "iter" not in file or "history" not in file:
            raise CaffeFormatError(
                "this HDF5 file has no `iter` and `history`: no solverstate", path)
        numbers = {name: _single(file, name, int, path)
                   for name in ("iter", "current_step") if name in file}
        name = _single(file, "learned_net", (bytes, str), path) if "learned_net" in file else ""
        found = read_arrays(file["history"], "history", path)
    if sorted(found) != list(range(len(found))):
        raise CaffeFormatError(f"histories {sorted(found)} are not all there", path)
    history = tuple(found[index] for index in range(len(found)))
    if isinstance(name, bytes):
        name = name.rstrip(b"\0")
    return SolverState(numbers["iter"], os.fsdecode(name), history, numbers.get("current_step", 0))


def _single(file: Any, name: str, kind: type | tuple[type, ...], path: str) -> Any:
    """The only value of an array, of this kind."""
    if getattr(file[name], "size", None) != 1:
        raise CaffeFormatError(f"its {name} is no single value; {_DAMAGED}", path)
    value = np.asarray(file[name][()]).item()
    if not isinstance(value, kind):
        raise CaffeFormatError(f"its {name} is {value!r:.80}; {_DAMAGED}", path)
    return value


def _write_hdf5(path: str, state: SolverState) -> None:
    h5py = import_h5py(path)
    # Caffe reads the name as a C string, whose end must be in the file.
    name = os.fsencode(state.learned_net)
    with h5py.File(os.fspath(path), "w") as file:
        file.create_dataset("iter", data=np.array([state.iter], "<i4"))
        file.create_dataset("learned_net", data=np.array(name, f"S{len(name) + 1}"))
        file.create_dataset("current_step", data=np.array([state.current_step], "<i4"))
        group = file.create_group("history")
        for index, array in enumerate(state.history):
            group.create_dataset(str(index), data=np.asarray(array, "<f4"))
