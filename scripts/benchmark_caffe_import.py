"""Table, time and peak memory of importing a full-size classification VGG-16.

Writes the V1 file as `benchmark_caffemodel.py` does (553 MB of random weights; --file keeps it),
and imports it in a fresh process as the trunk of a full PixelNet. Needs Linux (the peak is read
from /proc).

    python scripts/benchmark_caffe_import.py [--file PATH] [--prototxt PATH] [--channels 4]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmark_caffemodel import write_vgg16

_IMPORT = """
import sys, time

def peak_gb():
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return kilobytes * 1024 / 1e9

from pixelnet_tf.caffe.import_pixelnet import import_pixelnet

before, start = peak_gb(), time.perf_counter()
model, table = import_pixelnet(
    sys.argv[2] or None, sys.argv[1], classes=4, channels=int(sys.argv[3])
)
seconds = time.perf_counter() - start
print(table)
weights = sum(variable.numpy().nbytes for variable in model.variables) / 1e9
print(f"{seconds:.1f} s, peak {peak_gb():.2f} GB of which {before:.2f} GB before the import; "
      f"the model's weights take {weights:.2f} GB")
"""


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, help="a caffemodel; written if it is not there")
    parser.add_argument("--prototxt", type=Path, help="its network, if it does not hold one")
    parser.add_argument("--channels", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "vgg16_v1.caffemodel"
        if not path.exists():
            print(f"writing {path}")
            write_vgg16(path)
        print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
        path.read_bytes()  # into the page cache
        command = [sys.executable, "-c", _IMPORT, str(path), str(options.prototxt or ""),
                   str(options.channels)]
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
