"""scripts/fuzz.py: a short run of it, and that it tells what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Every kind comes up twice, however short the time; the nightly run takes half an hour.
SECONDS = 5

PLANTED = """
import os, sys, time
sys.path.insert(0, "scripts")
import fuzz

fuzz.KINDS.clear()
# Of the processor, and of the clock: the neighbours at work may leave little of one for the other.
fuzz.MAX_SECONDS, fuzz._PATIENCE_SECONDS = 0.2, 6.0


class ModelError(Exception):
    exit_code = 4


def sound(folder):
    return (folder / "x").read_bytes() == b"1"


def plant(name, fault, error="ModelError 4"):
    fuzz.KINDS[name] = fuzz.Kind("importer", lambda: [{"x": b"1"}], (lambda data, _: b"2",),
                                 lambda folder: sound(folder) or fault(), error)


def refuse(text="no"):
    raise ModelError(text)


def work():
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass


plant("refused", refuse)
plant("accepted", lambda: None)
plant("traceback", lambda: {}["x"])
plant("another code", lambda: sys.exit(1))
plant("endless text", lambda: refuse("x" * 30_000))
plant("slow", work)
plant("hangs", lambda: time.sleep(60))
plant("dies", lambda: os.kill(os.getpid(), 11))
plant("large", lambda: bytes(1100 << 20) and None)
plant("larger than there is", lambda: bytes(8 << 30) and None)
sys.exit(fuzz.main(["--importer", str(2 * len(fuzz.KINDS)), "--keep", sys.argv[1]]))
"""


def test_mutants_are_read_or_refused():
    done = subprocess.run([sys.executable, "scripts/fuzz.py", "--seconds", str(SECONDS)], cwd=ROOT,
                          capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    rows = re.findall(r"^(\S.*?) {2,}([\d,]+) ", done.stdout, re.M)
    assert len(rows) == 11, done.stdout
    assert all(int(count.replace(",", "")) >= 2 for _, count in rows), done.stdout


def test_whatever_is_wrong_is_told_and_kept(tmp_path):
    done = subprocess.run([sys.executable, "-c", PLANTED, str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, timeout=400)
    assert done.returncode == 1, done.stderr[-3000:]
    failed = dict(re.findall(r"^FAILED (.*?) 1: (.*)$", done.stdout, re.M))
    assert failed == {
        "traceback": "KeyError: 'x'",
        "another code": "SystemExit: 1",
        "endless text": "its error's text has 30,000 characters",
        "slow": failed["slow"],
        "hangs": "it hung",
        "dies": "the process ended: -11",
        "large": failed["large"],
        "larger than there is": "MemoryError",
    }
    assert re.fullmatch(r"it took 0\.\d s of the processor", failed["slow"])
    assert re.fullmatch(r"it took 1,1\d\d MiB", failed["large"])
    assert "16 failed, kept in" in done.stdout
    assert (tmp_path / "dies_1" / "x").read_bytes() == b"2"
    assert "KeyError: 'x'" in (tmp_path / "traceback_1" / "failure.txt").read_text()
