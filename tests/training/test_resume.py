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
from tests.main_job import run_main

STEPS = 60
#: Some twenty slices an epoch, one a step: a state every seven steps is a state in mid-epoch.
OPTIONS = ("training.batch_slices=1", "sampling.lesion_free_slices=1.0",
           f"training.steps={STEPS}", "training.checkpoint_every=7", "training.validate_every=25")


@pytest.fixture
def train(tiny_study, tiny_config, tmp_path) -> list[str]:
    """The arguments of `pixelnet-tf` for a training, up to the folder."""
    config = tmp_path / "tiny.yaml"
    config.write_text(config_to_yaml(tiny_config))

    return ["train", "--config", str(config), "--data", tiny_study.path,
            *(f"--set={option}" for option in OPTIONS), "--out"]


def last_step(run) -> int:
    try:
        return json.loads((run / "checkpoints" / "state.json").read_text())["last"]["step"]
    except (OSError, KeyError, ValueError):
        return 0


def weights(run, kind: str) -> dict[str, np.ndarray]:
    name = json.loads((run / "checkpoints" / "state.json").read_text())[kind]["name"]
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / name))
    return {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()
            if "OBJECT_GRAPH" not in key}


def test_killed_and_resumed_it_ends_with_the_same_bits(train, tmp_path, capsys):
    """Killed as a process of its own, resumed in another: this one."""
    killed = subprocess.Popen([sys.executable, "-m", "pixelnet_tf", *train, tmp_path / "killed"])
    while last_step(tmp_path / "killed") < 14 and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    stopped = last_step(tmp_path / "killed")
    assert 14 <= stopped < STEPS
    assert not (tmp_path / "killed" / "model.keras").exists()

    assert run_main(*train, tmp_path / "killed", "--resume") == 0
    assert "model written" in capsys.readouterr().out
    assert run_main(*train, tmp_path / "whole") == 0
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
