"""The same bytes however many programs and workers do the cases, by the commands themselves.

As each program loads TensorFlow, which takes minutes together, PIXELNET_SCALE=1 asks for them
(scripts/nightly.sh does). What becomes of a killed worker's case is tested in
tests/dataset/test_cluster.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.api.viewing import View
from pixelnet_tf.runs.folder import RunFolder
from tests.main_job import TINY, run_main

pytestmark = pytest.mark.skipif("PIXELNET_SCALE" not in os.environ,
                                reason="takes minutes; set PIXELNET_SCALE=1")
#: Ways to do the cases: the options of calls that run at the same time, and of one that follows.
WAYS = {"by Dask": ([["--scheduler", "local:2"]], []),
        "by parts": ([["--part", f"{number}/3"] for number in (1, 2, 3)], ["--finish"]),
        "twice": ([[], []], [])}


def at_once(calls: Sequence[Sequence[object]]) -> None:
    """Run commands at the same time, each to its end."""
    programs = [subprocess.Popen([sys.executable, "-m", "pixelnet_tf", *map(str, call)],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for call in calls]
    for program in programs:
        told, _ = program.communicate(timeout=900)
        assert program.returncode == 0, told


def files(folder: Path, without: Sequence[str] = ("manifest.jsonl",)) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in without}


@pytest.mark.parametrize("way", WAYS)
def test_prepare_writes_the_same_bytes(main_job, tmp_path, way):
    several, last = WAYS[way]
    call = ["prepare", "--config", "phantom", *TINY, "--data", main_job / "study", "--out",
            tmp_path / "out"]
    at_once([[*call, *options] for options in several])
    if last:
        assert run_main(*call, *last) == 0
    assert files(tmp_path / "out") == files(main_job / "prepared")
    assert run_main("check", tmp_path / "out") == 0


@pytest.mark.parametrize("way", WAYS)
def test_predict_writes_the_same_bytes(main_job, tmp_path, way):
    several, _ = WAYS[way]
    call = ["predict", "--model", main_job / "run", "--data", main_job / "prepared", "--split",
            "all", "--out"]
    at_once([[*call, tmp_path / "out", *options] for options in several])
    assert run_main(*call, tmp_path / "plain") == 0
    assert files(tmp_path / "out") == files(tmp_path / "plain")
    assert run_main("check", tmp_path / "out") == 0


def test_an_experiment_on_workers_is_the_plain_one_and_can_be_looked_at(main_job, tmp_path):
    call = ["experiment", "--config", "phantom", *TINY, "--data", main_job / "prepared",
            "--references", main_job / "study", "--out"]
    at_once([[*call, tmp_path / "out", "--scheduler", "local:2"]])
    assert run_main(*call, tmp_path / "plain") == 0
    for sampling in ("balanced", "uniform"):
        mine, theirs = (RunFolder(str(tmp_path / name / sampling / "fold0")).model().get_weights()
                        for name in ("out", "plain"))
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    # The others name folders and times.
    for pattern in ("tables.*", "*/predictions/*.nii.gz", "*/cases.csv"):
        found = sorted((tmp_path / "out").glob(pattern))
        assert found
        for path in found:
            plain = tmp_path / "plain" / path.relative_to(tmp_path / "out")
            assert path.read_bytes() == plain.read_bytes(), path
    source = View(tmp_path / "out").source
    assert {case.name.split()[1] for case in source.cases} == {
        f"{sampling}-{prior}" for sampling in ("balanced", "uniform")
        for prior in ("sampled", "corrected")}
    for number, case in enumerate(source.cases):
        assert {"prediction", "reference", "errors"} <= {each["key"] for each in case.layers()}
        assert case.scores
        for each in case.layers():
            assert source.layer(number, each["key"])
