"""Large JSON is read beside: the server's other work goes on, and memory comes back."""

import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.serving import json_process
from pixelnet_tf.serving.api_error import ApiError
from pixelnet_tf.serving.json_process import JsonProcesses, is_large
from pixelnet_tf.serving.limits import ServerLimits
from pixelnet_tf.serving.predict_json import Signature, TensorInfo

SIGNATURES = {"serving_default": Signature(
    {"image": TensorInfo("x", np.dtype("f4"), "", (None, None, None, 3))}, {})}


@pytest.fixture(scope="module")
def processes():
    processes = JsonProcesses(ServerLimits(json_mib=8, seconds=60))
    yield processes
    processes.close()


def bomb(unit: bytes, mib: int = 8) -> bytes:
    many = (mib << 20) // len(unit) - 10
    return b'{"instances":[' + unit * many + unit.rstrip(b",") + b"]}"


#: Texts that become many times as large, or take long.
BOMBS = {"empty lists": b"[],", "lists of one": b"[1],", "objects": b"{},", "keys": b'{"a":0},',
         "zeros": b"0,", "strings": b'"",', "nulls": b"null,", "pixels": b"[0,0,0],"}


def test_few_values_are_read_here_and_many_beside():
    assert not is_large(b'{"instances": [[1, 2]]}')
    assert not is_large(b'{"inputs": {"b64": "' + b"A" * (8 << 20) + b'"}}')
    assert all(is_large(bomb(unit, 1)) for unit in BOMBS.values())
    assert is_large(b"[" * 100_000)
    assert is_large(b" " * (17 << 20))


@pytest.mark.parametrize("unit", [b"7" * 4300 + b",", b'"' + b"\\u0041" * 5000 + b'",', b"9",
                                  b'"",'], ids=["digits", "escapes", "one number", "strings"])
def test_few_values_that_take_long_are_read_beside(unit):
    """A number of 4300 digits takes as long as thousands of pixels, an escape as one."""
    assert is_large(bomb(unit, 8))
    assert not is_large(bomb(unit, 8)[:20_000])


def test_a_process_that_is_not_needed_ends(monkeypatch):
    """It would hold what a large body took for as long as the server lives."""
    begun = []

    class Reader(json_process._Reader):
        def __init__(self, limits):
            super().__init__(limits)
            begun.append(self._process)

    monkeypatch.setattr(json_process, "_Reader", Reader)
    processes = JsonProcesses(ServerLimits(seconds=60), kept_seconds=0.2)
    try:
        for _ in range(2):
            with pytest.raises(ApiError, match="exactly one of"):
                processes.read(b"{}", SIGNATURES)
        # A busy machine may have ended the first before the second body came. Whether a process
        # lives is asked of its sentinel: `is_alive` is wrong while another thread waits for it.
        for process in begun:
            assert wait([process.sentinel], 60)
        deadline = time.monotonic() + 60
        while processes._every:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(ApiError, match="exactly one of"):
            processes.read(b"{}", SIGNATURES)
    finally:
        processes.close()


def test_arrays_come_back(processes):
    image = np.random.default_rng(0).normal(size=(2, 90, 91, 3)).astype(np.float32)
    body = ('{"instances": ' + str(image.tolist()) + "}").encode()
    assert is_large(body)
    call = processes.read(body, SIGNATURES)
    assert (call.signature, call.by_row) == ("serving_default", True)
    np.testing.assert_array_equal(call.inputs["image"], image)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_and_hold_nothing_up(processes, name):
    """Other threads go on meanwhile; neither this process nor one beside stays large."""
    body, before, longest, stop = bomb(BOMBS[name]), used_mib("self"), [0.0], threading.Event()

    def beat():
        while not stop.is_set():
            begun = time.monotonic()
            time.sleep(0.005)
            longest[0] = max(longest[0], time.monotonic() - begun)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(ApiError) as caught:
        processes.read(body, SIGNATURES)
    stop.set()
    thread.join()
    assert caught.value.status in (400, 413)
    assert longest[0] < 1
    assert used_mib("self") < before + 40
    for reader in processes._free:
        assert used_mib(reader._process.pid) < 450


def test_errors_come_back_as_they_are(processes):
    with pytest.raises(ApiError, match="different lengths") as caught:
        processes.read(b'{"instances": [[[[1, 2, 3]], [[1, 2]]]]}', SIGNATURES)
    assert caught.value.status == 400
    with pytest.raises(ApiError, match=r"nested too deeply|not JSON") as caught:
        processes.read(b"[" * 200_000, SIGNATURES)
    assert caught.value.status == 400


def test_memory_has_a_bound():
    processes = JsonProcesses(ServerLimits(json_mib=1, seconds=60))
    try:
        with pytest.raises(ApiError, match="too much memory") as caught:
            processes.read(bomb(b"[1],", 8), SIGNATURES)
        assert caught.value.status == 413
        with pytest.raises(ApiError, match="exactly one of"):
            processes.read(b"{}", SIGNATURES)
    finally:
        processes.close()


def test_time_has_a_bound_and_a_process_that_dies_is_replaced():
    processes = JsonProcesses(ServerLimits(seconds=0.05))
    try:
        with pytest.raises(ApiError, match=r"longer than 0\.05 s") as caught:
            processes.read(bomb(b"[1],", 4), SIGNATURES)
        assert caught.value.status == 504
    finally:
        processes.close()
    processes = JsonProcesses(ServerLimits(seconds=60))
    try:
        with pytest.raises(ApiError, match="exactly one of"):
            processes.read(b"{}", SIGNATURES)
        reader, = processes._free
        reader._process.kill()
        reader._process.join()
        with pytest.raises(ApiError, match="too much memory"):
            processes.read(b"{}", SIGNATURES)
        with pytest.raises(ApiError, match="exactly one of"):
            processes.read(b"{}", SIGNATURES)
        reader, = processes._free
    finally:
        processes.close()
    assert not reader._process.is_alive()


def test_it_loads_no_tensorflow():
    import subprocess
    import sys
    code = (f"import sys, {json_process.__name__}\n"
            "print(sorted({'tensorflow', 'keras', 'SimpleITK'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def used_mib(process) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")
