"""A server under all attacks at once, for seconds; scripts/nightly.sh runs each for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
SCRIPT = Path(__file__).parents[2] / "scripts" / "attack_server.py"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="memory is read from /proc")
def test_nothing_is_lost_or_wrong_while_a_server_is_attacked(exported):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(exported), "--only", "all at once", "--seconds", "2"],
        capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    row = next(line for line in done.stdout.splitlines() if line.startswith("all at once"))
    sent, lost, wrong = map(int, row.removeprefix("all at once").split()[:3])
    assert sent > 0
    assert (lost, wrong) == (0, 0)
    # The attacks did take place.
    for answered in ("400", "403", "closed", "versions", "broken off"):
        assert f" {answered} " in row
    assert done.stdout.endswith("the server held\n")
