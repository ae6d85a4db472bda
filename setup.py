"""Packaging of pixelnet-tf: `pip install .`, with extras for the optional parts."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
#: The version stands in pixelnet_tf/__init__.py alone, which is read, not run.
VERSION = re.search(r'^__version__ = "(.+)"$',
                    (ROOT / "pixelnet_tf" / "__init__.py").read_text(encoding="utf-8"), re.M)[1]

# Floors have no published advisory that reaches this project, and all of them together pass the
# tests (constraints-lowest.txt, scripts/test_lowest.sh).
SERVE = [
    # CVE-2024-47874, CVE-2025-54121, CVE-2026-54283 (forms), CVE-2025-62727 (ranges),
    # CVE-2026-48710, CVE-2026-54282 (Host, path).
    "starlette>=1.3.1",
    "uvicorn>=0.29",
    # Of uvicorn: CVE-2025-43859 (smuggled requests).
    "h11>=0.16",
    # CVE-2024-53981, CVE-2026-24486, -40347, -42561, -53538, -53539, -53540 (files written where
    # they should not be, parsing without end).
    "python-multipart>=0.0.31",
]
# Jinja2: CVE-2024-56201, CVE-2024-56326, CVE-2025-27516 (code from templates).
REPORT = ["matplotlib>=3.8", "jinja2>=3.1.6"]
# Its wheels hold HDF5 itself, from 3.13 on 1.14.6: CVE-2026-26200 (a file that writes past a
# buffer) and older ones. TensorFlow takes none above 3.14.
HDF5 = ["h5py>=3.13"]
# The first tf2onnx that takes the protobuf below.
ONNX = ["tf2onnx>=1.17", "onnxruntime>=1.17"]
# Some 3 GB, and for Linux alone, so `all` leaves it out.
GPU = ["tensorflow[and-cuda]>=2.18"]
TENSORBOARD = ["tensorboard>=2.18"]
# Starlette's test client stands on httpx, its newest releases on httpx2. pytest-xdist runs the
# tests in a process for each core, from 3.6 on in its main thread, which alone takes signals.
TEST = ["pytest>=8", "pytest-cov>=7", "pytest-xdist>=3.6.1", "coverage>=7.10.6",
        "hypothesis>=6.100", "ruff>=0.5", "mypy>=1.15", "types-PyYAML>=6.0.12", "httpx>=0.27",
        "httpx2>=2.0"]

# highdicom lays a segmentation on its source series by the places of both; 0.28 is the release that
# this was tested with. It stands on pydicom, whose 3.0 has the codes that segments are named by.
DICOM = ["highdicom>=0.28", "pydicom>=3.0.1"]
# What reads the files of `predict --output` in the tests, and none of it writes any here: dcmqi's
# programs for DICOM segmentations, the validator of the BIDS project.
READERS = ["dcmqi>=1.5.6", "bids-validator-deno>=3.0.2"]

# Cases on other processes and machines, and Slurm's jobs as workers; the oldest releases that this
# was tested with.
CLUSTER = ["distributed>=2025.1", "dask-jobqueue>=0.9"]

# Folders in object stores; the oldest releases that this was tested with. s3fs takes the fsspec of
# its own date, and without aiobotocore's floor pip looks for minutes for what fits to it and to
# moto. What other stores than S3 need is installed beside it (gcsfs, adlfs).
CLOUD = ["fsspec>=2025.3", "s3fs>=2025.3", "aiobotocore>=2.26"]
IO = ["tensorflow-io==0.37.1"]
# An S3 of the tests' own, over HTTP.
MOTO = ["moto[server]>=5.1"]

DOCS = ["sphinx>=8", "myst-parser>=4", "numpydoc>=1.8", "sphinx-gallery>=0.19", "furo>=2024.8"]

EXTRAS = {
    # TensorFlow with the libraries of CUDA that it was built for, for NVIDIA's GPUs.
    "gpu": GPU,
    # Figures and the HTML report.
    "report": REPORT,
    # The REST server (`pixelnet-tf serve`) and the viewer (`pixelnet-tf view`).
    "serve": SERVE,
    # Caffe's .caffemodel.h5 files; as every .keras file is HDF5 inside, it is always there.
    "hdf5": HDF5,
    # ONNX export and its check against ONNX Runtime.
    "onnx": ONNX,
    # Curves of a training (`tensorboard --logdir RUN/tensorboard`).
    "tensorboard": TENSORBOARD,
    # DICOM segmentations (`predict --output dicom-seg`); series are read without it.
    "dicom": DICOM,
    # Cases on the workers of Dask (`--scheduler`), Slurm's jobs among them.
    "cluster": CLUSTER,
    # Folders in S3 and other object stores (`s3://`), with any TensorFlow.
    "cloud": CLOUD,
    # The same through TensorFlow's own S3, which is built for TensorFlow 2.16 alone:
    # requirements-io.txt has the whole of such an environment.
    "io": IO,
    "test": TEST + CLUSTER + CLOUD + MOTO + REPORT + SERVE + HDF5 + DICOM + READERS,
    # The documentation, with what its examples need.
    "docs": DOCS + REPORT + SERVE,
    # TensorFlow Serving's own messages, and requests drawn from the server's description.
    "test-serving": ["tensorflow-serving-api>=2.18", "schemathesis>=4.0"],
    # A second oracle for the Caffe importer; OpenCV 5 removed its Caffe reader.
    "oracle": ["opencv-python-headless>=4.8,<5"],
    # MedPy is the yardstick of the metrics benchmark only.
    "benchmark": ["medpy>=0.5", "psutil>=5.9"],
    # The other side of scripts/head_to_head.py, nnU-Net's network and augmentation: 5.7 GB with
    # CUDA's libraries, so neither the tests nor `all` take it. The versions that it was tried with.
    "peer": ["torch>=2.14", "dynamic-network-architectures>=0.4.4", "batchgeneratorsv2>=0.3"],
    # What a user may want.
    "all": REPORT + SERVE + HDF5 + ONNX + TENSORBOARD + DICOM + CLUSTER + CLOUD,
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
    package_data={"pixelnet_tf": ["py.typed", "evaluation/*.j2", "page/*"],
                  "pixelnet_tf.configs": ["*.yaml", "presets/*.yaml"],
                  "prototxt_import": ["py.typed"]},
    install_requires=[
        # The first TensorFlow that takes the protobuf below.
        "tensorflow>=2.18",
        # Code or files from a model: CVE-2025-1550, -8747, -9905, -9906, -12058, -49655,
        # CVE-2026-0897, -1462, -1669 and what 3.12.4 and 3.15.1 mend beyond.
        "keras>=3.12.4,!=3.13.*,!=3.14.*,!=3.15.0",
        *HDF5,
        "numpy>=1.26",
        "scipy>=1.11.1",
        "nibabel>=5.2",
        # Its GDCM is the first to refuse a DICOM file that is cut short; older ones fill it with 0.
        "SimpleITK>=2.5.4",
        "click>=8.1",
        "PyYAML>=6.0.1",
        "rich>=13.0",
        # The checksums of TFRecord, which TensorFlow verifies only when it reads a file in order.
        "google-crc32c>=1.5",
        # The schema is built at run time, so every protobuf that TensorFlow accepts will do, but
        # for CVE-2025-4565 and CVE-2026-0994 (recursion without end), mended in 5.29.6 and 6.33.5.
        "protobuf>=5.29.6,!=6.30.*,!=6.31.*,!=6.32.*,!=6.33.0,!=6.33.1,!=6.33.2,!=6.33.3,"
        "!=6.33.4,<8",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["pixelnet-tf = pixelnet_tf.cli:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
