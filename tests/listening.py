"""A reporter for tests."""

from __future__ import annotations

from collections.abc import Callable


class Listening:
    """Keeps what it hears, and calls `on_progress` with task and steps done of each report.

    Attributes:
        said: messages, and warnings with `warning: ` before.
        events: (task, done, total, detail) of every report of progress.
    """

    def __init__(self, on_progress: Callable[[str, int], object] = lambda task, done: None):
        self.said: list[str] = []
        self.events: list[tuple[str, int, int, str]] = []
        self._on_progress = on_progress

    @property
    def tasks(self) -> dict[str, tuple[int, int]]:
        """Task -> how far it came: (done, total)."""
        return {task: (done, total) for task, done, total, _ in self.events}

    def message(self, text: str) -> None:
        self.said.append(text)

    def warning(self, text: str) -> None:
        self.said.append(f"warning: {text}")

    def progress(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.events.append((task, done, total, detail))
        self._on_progress(task, done)
