"""A run that is killed in the middle of an epoch and resumed, against one that was left alone."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from pixelnet_tf.config import config_to_yaml
from pixelnet_tf.runs.folder import RunFolder

STEPS = 60
#: Some twenty slices an epoch, one a step: a state every seven steps is a state in mid-epoch.
OPTIONS = ("training.batch_slices=1", "sampling.lesion_free_slices=1.0",
           f"training.steps={STEPS}", "training.checkpoint_every=7", "training.validate_every=25")


@pytest.fixture
def start(tiny_study, tiny_config, tmp_path):
    """A function that starts `pixelnet-tf train` as a process of its own."""
    config = tmp_path / "tiny.yaml"
    config.write_text(config_to_yaml(tiny_config))

    def run(out: str, *more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "pixelnet_tf", "train", "--config", str(config), "--data",
                   tiny_study.path, "--out", str(tmp_path / out), *more]
        for option in OPTIONS:
            command += ["--set", option]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    return run


def last_step(run) -> int:
    try:
        return json.loads((run / "checkpoints" / "state.json").read_text())["last"]["step"]
    except (OSError, KeyError, ValueError):
        return 0


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def weights(run, kind: str) -> dict[str, np.ndarray]:
    name = json.loads((run / "checkpoints" / "state.json").read_text())[kind]["name"]
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / name))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()
            if "OBJECT_GRAPH" not in key}


def test_killed_and_resumed_it_ends_with_the_same_bits(start, tmp_path):
    whole, killed = start("whole"), start("killed")
    while last_step(tmp_path / "killed") < 14 and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    stopped = last_step(tmp_path / "killed")
    assert 14 <= stopped < STEPS
    assert not (tmp_path / "killed" / "model.keras").exists()

    output = finished(start("killed", "--resume"))
    assert "model written" in output
    finished(whole)
    for kind in ("last", "best"):
        one, other = (weights(tmp_path / run, kind) for run in ("whole", "killed"))
        # Weights, momentum and the solver's count of steps.
        assert len(one) > 60
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=f"{kind} {key}")
    for run in ("whole", "killed"):
        rows = RunFolder(str(tmp_path / run)).log_rows()
        losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
        assert len(losses) == len([row for row in rows if "loss" in row])
        if run == "whole":
            expected = losses
    assert losses == expected
