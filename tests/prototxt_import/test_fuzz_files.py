"""Thirty seconds of damaged files: the only error is CaffeFormatError, and memory stays flat.

PIXELNET_FUZZ_SECONDS changes the time; the seed is fixed, so a failure comes again.
"""

import os
import resource
import time

import numpy as np
import pytest

from prototxt_import import (
    CaffeFormatError,
    SolverState,
    load_network,
    load_solver,
    load_solverstate,
    save_solverstate,
)

SECONDS = float(os.environ.get("PIXELNET_FUZZ_SECONDS", "30"))
SOLVER = b'net: "n" base_lr: 0.1 lr_policy: "step" gamma: 0.1 stepsize: 5 momentum: 0.9\n'
MAX_GROWTH_BYTES = 200e6
_NUMBERS = (
    b"\xff" * 9 + b"\x01",
    b"\x80\x80\x80\x80\x80\x20",
    b"\0",
    b"\x7f",
    b"-1",
    b"99999999999",
)


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """Return `data` with a few random changes: flips, cuts, copies, and numbers put in."""
    result = bytearray(data)
    for _ in range(generator.integers(1, 6)):
        size = max(len(result), 1)
        at, to = sorted(int(i) for i in generator.integers(0, size, 2))
        match generator.integers(0, 6):
            case 0:
                result[at : at + 1] = bytes([generator.integers(0, 256)])
            case 1:
                del result[at : min(to, at + 50)]
            case 2:
                result[at:at] = result[at : min(to, at + 200)]
            case 3:
                del result[at:]
            case 4:
                number = _NUMBERS[generator.integers(0, len(_NUMBERS))]
                result[at : at + len(number)] = number
            case 5:
                result[at:at] = generator.bytes(int(generator.integers(1, 20)))
    return bytes(result)


def test_damaged_files_only_ever_raise_our_error(
    tiny_prototxt, tiny_model, write, encode, tmp_path
):
    generator = np.random.default_rng(1989)
    v1 = encode.field(4, "fc") + encode.field(5, 14) + encode.field(17, encode.field(1, 3))
    v1 += encode.field(6, encode.legacy_blob((1, 1, 3, 4), range(12)))
    v1 += encode.field(6, encode.legacy_blob((1, 1, 1, 3), range(3)))
    model, text = tiny_model.read_bytes(), tiny_prototxt.read_bytes()
    state = tmp_path / "state"
    save_solverstate(state, SolverState(5, "net", (np.ones((3, 4), np.float32),) * 3, 1))
    kinds = {
        "model": (model, lambda path: load_network(caffemodel=path)),
        "v1 model": (encode.field(2, v1), lambda path: load_network(caffemodel=path)),
        "both": (model, lambda path: load_network(tiny_prototxt, path)),
        "prototxt": (text, load_network),
        "solver": (SOLVER, load_solver),
        "state": (state.read_bytes(), load_solverstate),
    }
    for name, (data, load) in kinds.items():  # sound as they are
        load(write(data, f"sound {name}"))
    refused = dict.fromkeys(kinds, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    end, rounds, slowest, longest = time.monotonic() + SECONDS, 0, 0.0, 0
    while time.monotonic() < end:
        for name, (data, load) in kinds.items():
            damaged = damage(data, generator)
            path = write(damaged, "fuzzed")
            start = time.monotonic()
            try:
                load(path)
            except CaffeFormatError as error:
                refused[name] += 1
                longest = max(longest, len(str(error)))
            except BaseException as error:
                pytest.fail(f"{name}: {type(error).__name__}: {error} for {damaged!r}")
            slowest = max(slowest, time.monotonic() - start)
        rounds += 1
    assert rounds > 5
    assert all(count > rounds / 10 for count in refused.values()), refused
    assert slowest < 5
    assert longest < 5000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MAX_GROWTH_BYTES
