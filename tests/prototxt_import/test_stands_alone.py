"""The package stands alone: numpy and protobuf, nothing of TensorFlow or pixelnet_tf."""

import ast
import sys
from pathlib import Path

import prototxt_import

ALLOWED = {"numpy", "google", "prototxt_import", "h5py"}


def test_imports_are_numpy_and_protobuf_only():
    files = sorted(Path(prototxt_import.__file__).parent.glob("*.py"))
    assert len(files) > 20
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{file.name}: {name}"


def test_public_names_exist():
    for name in prototxt_import.__all__:
        assert getattr(prototxt_import, name).__doc__, name
