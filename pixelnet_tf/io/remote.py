"""Where the folders of the product that lie in an object store are known, and what is done there.

A URL becomes a folder of this machine (`local`), its mirror (`io/mirror.py`), which everything else
takes for a folder as any other. The few places that write, remove and read whole files tell this
module, which does nothing where no URL was given: neither fsspec nor the mirror is loaded then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pixelnet_tf.errors import ConfigError
from pixelnet_tf.io.disk import Pathname, is_url, url_of
from pixelnet_tf.reporting import Reporter

if TYPE_CHECKING:
    from pixelnet_tf.io.mirror import Mirror

#: The mirrors of this process, by their folders.
_opened: dict[str, Mirror] = {}


def local(path: Pathname, reporter: Reporter | None = None) -> str:
    """A path of this machine as it is; of a URL the mirror's, brought to what the store holds.

    Raises:
        ConfigError: no such bucket, or it refuses; no package for it is installed.
        RunError: the store does not answer.
    """
    path = os.fspath(path)
    if not is_url(path):
        return path
    from pixelnet_tf.io.mirror import open_mirror

    return open_mirror(url_of(path), _opened, reporter)


def mirror_of(path: Pathname) -> Mirror | None:
    """The mirror that a path lies in; None for whatever else is on this machine."""
    if not _opened:
        return None
    path = os.path.abspath(path)
    # The deepest one: a run may have been opened by itself, and in the folder above.
    return next((_opened[root] for root in sorted(_opened, key=len, reverse=True)
                 if path == root or path.startswith(root + "/")), None)


def named(path: Pathname) -> str:
    """A path as the user knows it: the URL where it lies in a mirror."""
    mirror = mirror_of(path)
    return os.fspath(path) if mirror is None else mirror.url_of(path)


def refuse(path: Pathname, what: str, hint: str) -> None:
    """Raise `ConfigError` where a path is in a store, whether as a URL or as its mirror's."""
    if is_url(os.fspath(path)) or mirror_of(path):
        raise ConfigError(f"lies in an object store, and {what}", file=named(path), hint=hint)


def need(path: Pathname) -> None:
    """Bring a file that is about to be read, where a mirror has it as a name alone."""
    if mirror := mirror_of(path):
        mirror.need(os.path.abspath(path))


@contextmanager
def reading(path: Pathname) -> Iterator[None]:
    """Bring a file, see that it is the one that was written, and keep it while it is read.

    Raises:
        DataError: what the store holds is not what was written.
    """
    if mirror := mirror_of(path):
        with mirror.reading(os.path.abspath(path)):
            yield
    else:
        yield


def sent(path: Pathname, source: Pathname | None = None) -> None:
    """Put a file that is about to be moved to `path`, or stands there, into the store."""
    if mirror := mirror_of(path):
        mirror.put(os.path.abspath(path), os.fspath(source or path))


def removed(path: Pathname) -> None:
    """Remove a file's object, before the file."""
    if mirror := mirror_of(path):
        mirror.delete(os.path.abspath(path))


def folder_sent(folder: Pathname) -> None:
    """Put a folder that took another one's place into the store, what tells of the others last."""
    if mirror := mirror_of(folder):
        mirror.put_folder(os.path.abspath(folder))


def told(manifest: Pathname, settled: bool = False) -> None:
    """Put a folder's manifest into the store, before what it announces.

    settled: it says what was done; that may wait for the next line, or for the end of the work.
    """
    if mirror := mirror_of(manifest):
        mirror.put_manifest(os.path.abspath(manifest), settled)
