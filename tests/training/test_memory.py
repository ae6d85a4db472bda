"""Memory of a training stays flat."""

import subprocess
import sys
from pathlib import Path

import pytest

from pixelnet_tf.config import config_to_yaml

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_memory.py"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_five_hundred_steps(tiny_study, tiny_config, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(config_to_yaml(tiny_config))
    result = subprocess.run(
        [sys.executable, SCRIPT, tiny_study.path, "--config", config, "--steps", "500",
         "--set", "training.checkpoint_every=50", "--set", "training.validate_every=100",
         "--limit-mb", "15"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "step    500" in result.stdout
    assert result.stdout.count("MiB") == 11
