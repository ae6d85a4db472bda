"""What every section checks its values by."""

from __future__ import annotations

from typing import Any

from pixelnet_tf.errors import ConfigError


def one_of(name: str, value: Any, allowed: tuple) -> None:
    """Raise `ConfigError` where a value is not among the allowed ones."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {list(allowed)}, got {value!r}")


def in_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise `ConfigError` where a number does not lie in [low, high]."""
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in [{low}, {high}], got {value!r}")
