"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import click


class TrainingProgress:
    """Shows rows of the training log with speed and time left."""

    def __init__(self):
        self._terminal = sys.stderr.isatty()
        self._start: tuple[float, int] | None = None

    def __call__(self, row: dict[str, Any], total: int) -> None:
        step = row["step"]
        now = time.monotonic()
        if self._start is None:
            self._start = (now, step)
        if "loss" not in row:
            scores = "  ".join(f"{key.removeprefix('validation/')} {value:.3f}"
                               for key, value in row.items() if key != "step")
            self._line(f"step {step}/{total}  validation  {scores}", keep=True)
            return
        done = step - self._start[1]
        left = (now - self._start[0]) / done * (total - step) if done else None
        text = (f"step {step}/{total}  epoch {row['epoch']:.2f}  loss {row['loss']:.4f}  "
                f"lr {row['learning_rate']:.2e}  {row['slices_per_second']:.2f} slices/s")
        if left is not None:
            text += f"  {_duration(left)} left"
        self._line(text, keep=step == total)

    def _line(self, text: str, keep: bool) -> None:
        if self._terminal:
            click.echo(f"\r\033[K{text}", nl=keep, err=True)
        else:
            click.echo(text, err=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
