"""Packaging of pixelnet-tf: `pip install .`, with extras for the optional parts."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
#: The version stands in pixelnet_tf/__init__.py alone, which is read, not run.
VERSION = re.search(r'^__version__ = "(.+)"$',
                    (ROOT / "pixelnet_tf" / "__init__.py").read_text(encoding="utf-8"), re.M)[1]

SERVE = ["starlette>=0.37", "uvicorn>=0.29", "python-multipart>=0.0.12"]
REPORT = ["matplotlib>=3.8", "jinja2>=3.1"]
HDF5 = ["h5py>=3.10"]
ONNX = ["tf2onnx>=1.16", "onnxruntime>=1.17"]
TENSORBOARD = ["tensorboard>=2.16"]
# Starlette's test client stands on httpx, its newest releases on httpx2.
TEST = ["pytest>=8", "hypothesis>=6.100", "ruff>=0.5", "httpx>=0.27", "httpx2>=2.0"]

EXTRAS = {
    # Figures and the HTML report.
    "report": REPORT,
    # The REST server (`pixelnet-tf serve`).
    "serve": SERVE,
    # Caffe's .caffemodel.h5 files.
    "hdf5": HDF5,
    # ONNX export and its check against ONNX Runtime.
    "onnx": ONNX,
    # Curves of a training (`tensorboard --logdir RUN/tensorboard`).
    "tensorboard": TENSORBOARD,
    # tensorflow-io 0.37 is the newest release and is built against TensorFlow 2.16: under a later
    # TensorFlow its shared library does not load (undefined symbols). There is no wheel for
    # Python 3.13.
    "io": ["tensorflow-io==0.37.1", "tensorflow>=2.16,<2.17"],
    "test": TEST + REPORT + SERVE + HDF5,
    # TensorFlow Serving's own messages, and requests drawn from the server's description.
    "test-serving": ["tensorflow-serving-api>=2.16", "schemathesis>=4.0"],
    # A second oracle for the Caffe importer; OpenCV 5 removed its Caffe reader.
    "oracle": ["opencv-python-headless>=4.8,<5"],
    # MedPy is the yardstick of the metrics benchmark only.
    "benchmark": ["medpy>=0.5", "psutil>=5.9"],
    # What a user may want; `io` needs an environment of its own.
    "all": REPORT + SERVE + HDF5 + ONNX + TENSORBOARD,
}

setup(
    name="pixelnet-tf",
    version=VERSION,
    description="Class-Balanced PixelNet for neuro-imaging, on TensorFlow and Keras 3",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["pixelnet_tf*", "prototxt_import*"]), "pixelnet_tf.configs"],
    # configs/ stands at the top for its readers; a wheel carries it inside the package.
    package_dir={"pixelnet_tf.configs": "configs"},
    package_data={"pixelnet_tf": ["py.typed", "evaluation/*.j2"],
                  "pixelnet_tf.configs": ["*.yaml"],
                  "prototxt_import": ["py.typed"]},
    install_requires=[
        "tensorflow>=2.16",
        "keras>=3",
        "numpy>=1.26",
        "scipy>=1.11",
        "nibabel>=5.2",
        "SimpleITK>=2.3",
        "click>=8.1",
        "PyYAML>=6.0",
        "rich>=13.0",
        # The schema is built at run time, so every protobuf that TensorFlow accepts will do.
        "protobuf>=4.21,<8",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["pixelnet-tf = pixelnet_tf.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
