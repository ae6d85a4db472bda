"""Time and peak memory of loading a full-size classification VGG-16 caffemodel.

Writes the model itself: V1 layers as in VGG_ILSVRC_16_layers.caffemodel, 553 MB of random
weights. Each load runs in a fresh process, with the file in the page cache. Needs Linux (the
peak is read from /proc).

    python scripts/benchmark_caffemodel.py [--runs 3] [--file PATH] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prototxt_import import wire
from prototxt_import.schema import new_message

GOAL_SECONDS, GOAL_RATIO = 3.0, 1.3
_CONVOLUTION, _INNER_PRODUCT, _POOLING, _RELU, _DROPOUT, _SOFTMAX = 4, 14, 17, 18, 6, 20
_V1_LAYERS, _V1_BLOBS, _BLOB_DATA = 2, 6, 5
_LOAD = """
import json, sys, time
from prototxt_import import load_network

def peak_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

before = peak_bytes()
start = time.perf_counter()
network = load_network(caffemodel=sys.argv[1])
seconds = time.perf_counter() - start
layers = [(l.name, l.type, [list(b.shape) for b in l.blobs]) for l in network.layers]
print(json.dumps({"seconds": seconds, "before": before, "peak": peak_bytes(), "layers": layers}))
"""


def vgg16_layers() -> Iterator[tuple[str, int, tuple[int, ...], dict]]:
    """Yield name, V1 type, weight shape (num, channels, height, width) and settings."""
    channels = 3
    for block, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for index in range(1, depth + 1):
            settings = {"num_output": width, "pad": [1], "kernel_size": [3]}
            yield f"conv{block}_{index}", _CONVOLUTION, (width, channels, 3, 3), settings
            yield f"relu{block}_{index}", _RELU, (), {}
            channels = width
        yield f"pool{block}", _POOLING, (), {"kernel_size": 2, "stride": 2}
    for name, inputs, outputs in (("6", 25088, 4096), ("7", 4096, 4096), ("8", 4096, 1000)):
        yield f"fc{name}", _INNER_PRODUCT, (1, 1, outputs, inputs), {"num_output": outputs}
        if name != "8":
            yield f"relu{name}", _RELU, (), {}
            yield f"drop{name}", _DROPOUT, (), {}
    yield "prob", _SOFTMAX, (), {}


def write_vgg16(path: Path, seed: int = 1989) -> None:
    """Write the model with random weights, layer by layer."""
    generator = np.random.default_rng(seed)
    params = {
        _CONVOLUTION: "convolution_param",
        _INNER_PRODUCT: "inner_product_param",
        _POOLING: "pooling_param",
    }
    net = new_message("NetParameter")
    net.name = "VGG_ILSVRC_16_layers"
    net.input.append("data")
    net.input_dim.extend((1, 3, 224, 224))
    bottom = "data"
    with path.open("wb") as file:
        file.write(net.SerializeToString())
        for name, kind, shape, settings in vgg16_layers():
            in_place = kind in (_RELU, _DROPOUT)
            layer = new_message("V1LayerParameter")
            layer.name, layer.type = name, kind
            layer.bottom.append(bottom)
            bottom = bottom if in_place else name
            layer.top.append(bottom)
            for key, value in settings.items():
                target = getattr(layer, params[kind])
                if isinstance(value, list):
                    getattr(target, key).extend(value)
                else:
                    setattr(target, key, value)
            parts = [layer.SerializeToString()]
            if shape:
                outputs = shape[2] if kind == _INNER_PRODUCT else shape[0]
                for size in (shape, (1, 1, 1, outputs)):
                    parts += _blob_field(generator, size)
            file.write(wire.encode_header(_V1_LAYERS, sum(map(len, parts))))
            file.writelines(parts)


def _blob_field(generator: np.random.Generator, shape: tuple[int, ...]) -> list[bytes]:
    data = generator.standard_normal(shape, np.float32).astype("<f4").tobytes()
    dims = b"".join(
        wire.encode_varint(n << 3) + wire.encode_varint(s) for n, s in enumerate(shape, 1)
    )
    header = dims + wire.encode_header(_BLOB_DATA, len(data))
    return [wire.encode_header(_V1_BLOBS, len(header) + len(data)) + header, data]


def measure(path: Path) -> dict:
    """Load `path` in a fresh process; return seconds, bytes before and at the peak, layers."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", _LOAD, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout)


def main() -> int:
    """Run the benchmark; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="loads, each in a fresh process")
    parser.add_argument("--file", type=Path, help="keep the model here, or use the one there")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder, "vgg16_v1.caffemodel")
        if not path.exists():
            print("writing the model ...", flush=True)
            write_vgg16(path)
        size = path.stat().st_size
        with path.open("rb") as file:  # into the page cache
            while file.read(1 << 24):
                pass
        results = [measure(path) for _ in range(options.runs)]
    print(f"{'layer':10} {'type':14} weights")
    for name, kind, shapes in results[0]["layers"]:
        print(f"{name:10} {kind:14} {', '.join('x'.join(map(str, s)) for s in shapes)}")
    seconds = sorted(result["seconds"] for result in results)
    peak = max(result["peak"] for result in results)
    rows = [
        ("file", f"{size / 1e6:.1f} MB"),
        ("load, fastest / median / slowest", " / ".join(
            f"{s:.2f}" for s in (seconds[0], seconds[len(seconds) // 2], seconds[-1])) + " s"),
        ("memory before the load", f"{results[0]['before'] / 1e6:.1f} MB"),
        ("peak of the process", f"{peak / 1e6:.1f} MB"),
        ("peak / file", f"{peak / size:.3f}"),
    ]  # fmt: skip
    print()
    for name, value in rows:
        print(f"{name:34} {value}")
    figures = {"bytes": size, "seconds": seconds, "peak_bytes": peak, "ratio": peak / size}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    met = seconds[-1] <= GOAL_SECONDS and peak / size <= GOAL_RATIO
    print(f"goals (<= {GOAL_SECONDS} s, <= {GOAL_RATIO} x): {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
