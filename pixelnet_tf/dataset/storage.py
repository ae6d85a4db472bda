"""Whole files through `tf.io.gfile`, so that an object store can stand in for a folder."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from pixelnet_tf.errors import DataError, RunError


@contextmanager
def replacing(path: str) -> Iterator[str]:
    """Give a temporary name to write to; on leaving, its file takes the place of `path`.

    On an error the temporary file is removed and `path` stays as it was.

    Raises:
        RunError: writing failed, for instance on a full disk.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        tf.io.gfile.makedirs(folder)
        yield temporary
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        raise RunError(f"{path}: cannot be written: {_reason(error)}") from None
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files that a killed run left in a folder."""
    for path in tf.io.gfile.glob(os.path.join(folder, ".*.tmp")):
        tf.io.gfile.remove(path)


def write_text(path: str, text: str) -> None:
    """Write a text file whole; raises `RunError`."""
    with replacing(path) as temporary, tf.io.gfile.GFile(temporary, "w") as file:
        file.write(text)


def write_json(path: str, tree: Any) -> None:
    """Write a JSON file whole; raises `RunError`."""
    write_text(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def read_text(path: str) -> str:
    """Read a text file.

    Raises:
        DataError: it is missing or cannot be read.
    """
    try:
        with tf.io.gfile.GFile(path, "r") as file:
            return file.read()
    except (OSError, tf.errors.OpError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {_reason(error)}") from None


def read_json(path: str) -> Any:
    """Read a JSON file; raises `DataError`."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: is not JSON ({error}); it was written by another program or cut "
                        "short: delete it and run `pixelnet-tf prepare` again") from None


def _reason(error: Exception) -> str:
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return "no space is left on the device"
    return getattr(error, "message", None) or str(error)
