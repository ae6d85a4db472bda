"""The main job on a tiny phantom, verb by verb; the fixture `main_job` of tests/conftest.py."""

from __future__ import annotations

from pathlib import Path

import pytest

#: Narrow, short, without bias field correction.
TINY = [f"--set={option}" for option in (
    "prepare.bias_field.enabled=false", "split.test=1", "split.validation=1",
    "model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]", "model.border=16",
    "sampling.pixels=60", "training.steps=3", "training.batch_slices=2")]


def run_main(*arguments: object) -> int:
    """Call the command line as a shell would; return the exit code."""
    from pixelnet_tf.cli import main

    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def do_main_job(folder: Path) -> Path:
    """Make `study`, `prepared` and `run` in a folder, by the verbs."""
    assert run_main("phantom", folder / "study", "--cases", 4, "--seed", 1,
                    "--size", 30, 28, 16) == 0
    assert run_main("prepare", "--config", "phantom", *TINY, "--data", folder / "study",
                    "--out", folder / "prepared", "--workers", 1) == 0
    assert run_main("train", "--config", "phantom", *TINY, "--data", folder / "prepared",
                    "--out", folder / "run") == 0
    return folder
