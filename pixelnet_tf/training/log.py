"""What a run says of itself: JSON lines, CSV, TensorBoard and a line on the terminal."""

from __future__ import annotations

import json
import math
import posixpath
import time
from typing import Any

import tensorflow as tf

from pixelnet_tf.io import manifest
from pixelnet_tf.io.csv_text import csv_text
from pixelnet_tf.io.files import sync, write_text
from pixelnet_tf.runs.folder import RunFolder

COLUMNS = ("step", "epoch", "loss", "learning_rate", "slices_per_second", "seconds")


class TrainingLog:
    """Rows of training and validation, in RUN/log.jsonl, RUN/log.csv and RUN/tensorboard.

    A resumed run cuts the files back to its first step, so that no step stands there twice.

    Args:
        folder: the run's folder.
        first_step: step that the run begins with.
        columns: further columns (validation scores), known from the start.
    """

    def __init__(self, folder: str, first_step: int = 0, columns: tuple[str, ...] = ()):
        self.folder = folder
        self.columns = (*COLUMNS, *columns)
        self.rows = [row for row in RunFolder(folder).log_rows() if row["step"] <= first_step]
        self._seconds_before = self.rows[-1]["seconds"] if self.rows else 0.0
        self._start = time.monotonic()
        self._write_all()
        self._board = tf.summary.create_file_writer(posixpath.join(folder, "tensorboard"))

    def seconds(self) -> float:
        """Seconds of training, those before a resume counted in."""
        return self._seconds_before + time.monotonic() - self._start

    def write(self, **row: Any) -> None:
        """Add one row; numbers that are not finite are left out (JSON knows no NaN)."""
        row = {key: value for key, value in {**row, "seconds": round(self.seconds(), 2)}.items()
               if not (isinstance(value, float) and not math.isfinite(value))}
        self.rows.append(row)
        with tf.io.gfile.GFile(posixpath.join(self.folder, "log.jsonl"), "a") as file:
            file.write(json.dumps(row) + "\n")
        with tf.io.gfile.GFile(posixpath.join(self.folder, "log.csv"), "a") as file:
            file.write(csv_text([[row.get(name, "") for name in self.columns]]))
        # Written as protocol buffers: `tf.summary.scalar` needs the package tensorboard, which
        # TensorFlow no longer brings along.
        values = [tf.compat.v1.Summary.Value(tag=key, simple_value=value)
                  for key, value in row.items() if key not in ("step", "seconds")]
        with self._board.as_default():
            tf.summary.experimental.write_raw_pb(
                tf.compat.v1.Summary(value=values).SerializeToString(), step=row["step"])

    def keep(self) -> None:
        """Make the disk hold all rows, and tell the folder's manifest of them."""
        self._board.flush()
        files = [posixpath.join(self.folder, name) for name in ("log.jsonl", "log.csv")]
        files += tf.io.gfile.glob(posixpath.join(self.folder, "tensorboard", "*"))
        # Names too: TensorFlow makes TensorBoard's folder and files.
        for path in (*files, posixpath.join(self.folder, "tensorboard"), self.folder):
            sync(path)
        manifest.record(*files, grows=True)

    def close(self) -> None:
        """Flush what TensorBoard still holds; the files are complete."""
        self._board.close()
        self.keep()

    def _write_all(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self.rows)
        table = csv_text([self.columns, *([row.get(name, "") for name in self.columns]
                                          for row in self.rows)])
        for name, text in (("log.jsonl", lines), ("log.csv", table)):
            write_text(posixpath.join(self.folder, name), text, grows=True)
