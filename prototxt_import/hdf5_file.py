"""Opening an HDF5 file that nobody vouches for: its own arrays, and no more than it can hold.

The format lets a file name others. External storage, external links and virtual datasets read
whatever the process may read, so that a password file comes back as weights; links and filters of
a user's own load code. A small file can declare arrays of any size, and a chunk of a kilobyte can
unpack to gigabytes. All of this is looked for before the first array is read, and refused.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from prototxt_import.errors import CaffeFormatError

#: How much larger than the file its arrays may be, all together, where they are compressed.
MAX_INFLATION = 64
MAX_OBJECTS, MAX_DEPTH = 100_000, 32
#: What comes with HDF5: gzip, shuffle, fletcher32. Others are loaded as code.
_GZIP, _FILTERS = 1, {1: "gzip", 2: "shuffle", 3: "fletcher32"}
_CHECKSUM_BYTES = 4


def import_h5py(path: str | os.PathLike) -> Any:
    """Return the module h5py; CaffeFormatError says how to install it."""
    try:
        import h5py
    except ImportError:
        raise CaffeFormatError(
            'HDF5 models need h5py; run: pip install h5py', path
        ) from None
    return h5py


@contextmanager
def open_hdf5(
    path: str | os.PathLike, most_bytes: int | None = None, file: BinaryIO | None = None
) -> Iterator[Any]:
    """Open an `h5py.File` for reading, once all that it holds was looked at.

    Parameters
    ----------
    path
        The file.
    most_bytes
        How much memory its arrays may take together; None stands for `MAX_INFLATION` times the size
        of the file.
    file
        Where its bytes are read, if it is a part of the file that `path` names.

    Raises
    ------
    CaffeFormatError
        The file is damaged (also where the block inside finds it so), reads other files, needs code
        of others, holds too much, or h5py is not installed.

    Examples
    --------
    >>> from prototxt_import import count_values, load_network, open_hdf5, save_caffemodel
    >>> network = load_network("deploy.prototxt", "weights.caffemodel")
    >>> save_caffemodel("opened.caffemodel.h5", network)
    >>> with open_hdf5("opened.caffemodel.h5") as file:
    ...     count_values(file) > 0
    True
    """
    h5py, path = import_h5py(path), os.fspath(path)
    if most_bytes is None:
        most_bytes = os.path.getsize(path) * MAX_INFLATION
    try:
        with h5py.File(file or path, "r") as opened:
            _check(h5py, opened, path, most_bytes)
            yield opened
    except CaffeFormatError:
        raise
    except Exception as error:  # h5py raises almost any class for a damaged file
        raise CaffeFormatError(
            f"the HDF5 file is damaged ({error}); copy or download it again", path
        ) from None


def count_values(file: Any) -> int:
    """Return how many numbers there are in all arrays of an open file.

    Examples
    --------
    >>> import h5py, numpy as np
    >>> from prototxt_import import count_values
    >>> with h5py.File("counted.h5", "w") as file:
    ...     file["a"] = np.zeros((2, 3))
    ...     count_values(file)
    6
    """
    found = []
    file.visititems(lambda name, one: found.append(getattr(one, "size", 0) or 0))
    return sum(found)


def _check(h5py: Any, file: Any, path: str, left: int) -> None:
    # By address: a group can lie in itself, and in many others.
    seen, waiting, count = {h5py.h5o.get_info(file.id).addr}, [(file, 1)], 0
    while waiting:
        group, depth = waiting.pop()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            count += 1
            if count > MAX_OBJECTS:
                raise CaffeFormatError(f"it holds more than {MAX_OBJECTS:,} objects", path)
            if not isinstance(_link(h5py, group, name), h5py.HardLink):
                raise CaffeFormatError(
                    f"{where} is a link to another place, which no model needs and which may "
                    "be a file of yours; save the model again with its arrays inside", path)
            one = group[name]
            if isinstance(one, h5py.Group):
                address = h5py.h5o.get_info(one.id).addr
                if address in seen:
                    raise CaffeFormatError(f"{where} is a group that lies in two places", path)
                if depth >= MAX_DEPTH:
                    raise CaffeFormatError(f"its groups lie more than {MAX_DEPTH} deep", path)
                seen.add(address)
                waiting.append((one, depth + 1))
            elif isinstance(one, h5py.Dataset):
                left -= _checked_bytes(h5py, one, where, path)
                if left < 0:
                    raise CaffeFormatError(
                        f"{where} declares the shape {one.shape}, which does not fit the file's "
                        "size: with it the arrays take more memory than a file of this size may; "
                        "the file is damaged", path)


def _link(h5py: Any, group: Any, name: str) -> Any:
    try:
        return group.get(name, getlink=True)
    except TypeError:  # a class of links that somebody made up
        return None


def _checked_bytes(h5py: Any, dataset: Any, where: str, path: str) -> int:
    """Bytes that an array takes in memory, the whole or one of its chunks, whichever is more."""
    made = dataset.id.get_create_plist()
    if made.get_external_count() or made.get_layout() == h5py.h5d.VIRTUAL:
        raise CaffeFormatError(
            f"{where} reads its values from other files, which no model needs and which may be "
            "files of yours; save the model again with its arrays inside", path)
    filters = [made.get_filter(index)[0] for index in range(made.get_nfilters())]
    if len(set(filters)) < len(filters) or not _FILTERS.keys() >= set(filters):
        raise CaffeFormatError(
            f"{where} is packed by filters of the numbers {filters}; a model may have "
            f"{', '.join(_FILTERS.values())}, each once: save it again without others", path)
    item = dataset.id.get_type().get_size()
    size = math.prod(dataset.shape or ()) * item
    if made.get_layout() != h5py.h5d.CHUNKED:
        return size
    chunk = math.prod(dataset.chunks) * item
    if _GZIP in filters and size:
        _check_chunks(dataset, chunk, filters.index(_GZIP), where, path)
    return max(size, chunk)


def _check_chunks(dataset: Any, chunk: int, gzip: int, where: str, path: str) -> None:
    """Refuse chunks that unpack to more than a chunk: HDF5 unpacks them whole, whatever it takes.

    `gzip` is the number of this filter among the dataset's.
    """
    offsets: list[tuple[int, ...]] = []

    def keep(info: Any) -> None:
        if not info.filter_mask >> gzip & 1:
            offsets.append(info.chunk_offset)

    dataset.id.chunk_iter(keep)
    for offset in offsets:
        _, packed = dataset.id.read_direct_chunk(offset)
        unpacking = zlib.decompressobj()
        unpacking.decompress(packed, chunk + _CHECKSUM_BYTES)
        if not unpacking.eof and unpacking.decompress(unpacking.unconsumed_tail, 1):
            raise CaffeFormatError(
                f"{where} unpacks to more than the {chunk:,} bytes of its chunk at {offset}; the "
                "file is damaged", path)
