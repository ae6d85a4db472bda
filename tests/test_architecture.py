"""The order of docs/architecture.md, by walking every import."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Layers from the top; a module imports from its own layer and from layers below. Packages of one
#: layer do not know each other.
LAYERS = (("cli",), ("api",), ("planning", "viewer"), ("serving", "training"), ("evaluation",),
          ("inference",), ("runs",), ("caffe",), ("dataset", "model"), ("volumes",), ("cases",),
          ("config",), ("io", "page"), ("errors", "reporting", "draws"))
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

FILES = sorted([*(ROOT / "pixelnet_tf").rglob("*.py"), *(ROOT / "prototxt_import").rglob("*.py")])


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, at the top or inside a function."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def part_of(name: str) -> str | None:
    """Part of pixelnet_tf that an imported name belongs to."""
    package, _, rest = name.partition(".")
    part = rest.split(".")[0]
    return part if package == "pixelnet_tf" and part in RANK else None


def test_every_part_has_its_layer():
    parts = {path.name.removesuffix(".py") for path in (ROOT / "pixelnet_tf").iterdir()
             if (path.is_dir() and (path / "__init__.py").is_file()) or path.suffix == ".py"}
    assert parts - {"__init__", "__main__"} == set(RANK)


@pytest.mark.parametrize("path", [path for path in FILES if "pixelnet_tf" in path.parts],
                         ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path):
    own = path.relative_to(ROOT / "pixelnet_tf").parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for name in imports_of(path):
        part = part_of(name)
        if part and part != own:
            assert RANK[part] > RANK[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "pixelnet_tf" / "cli").rglob("*.py")),
                         ids=lambda path: path.name)
def test_the_command_line_calls_the_api_and_nothing_deeper(path):
    allowed = {"api", "cli", "config", "errors", "reporting"}
    for name in imports_of(path):
        part = part_of(name)
        assert part is None or part in allowed or name in (
            "pixelnet_tf.io", "pixelnet_tf.io.files", "pixelnet_tf.io.files.write_text",
            "pixelnet_tf.io.files.check_apart", "pixelnet_tf.io.files.check_file_name",
            "pixelnet_tf.io.files.check_writable",
        ), f"{path.name} imports {name}"


def test_the_library_does_not_print():
    """Messages go through a Reporter; `exported` are scripts that stand on their own."""
    for path in FILES:
        if {"cli", "exported"} & set(path.parts):
            continue
        calls = {node.func.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert "print" not in calls, path


#: Where a whole configuration is honest: what plans, records or compares all of it. Elsewhere a
#: function takes the section that it reads, or the values.
WHOLE_CONFIG = {
    "caffe/export.py", "dataset/prepare_study.py", "dataset/prepared.py", "inference/predict.py",
    "planning/plan.py", "planning/trial.py",
    "runs/compatibility.py", "runs/folder.py", "runs/imported.py", "serving/about.py",
    "serving/export.py", "serving/loaded_model.py", "serving/segment_upload.py",
    "serving/signatures.py", "training/cross_validation.py", "training/experiment.py",
    "training/loop.py",
}


def test_sections_of_the_configuration_are_handed_on():
    named = set()
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        types = [node.annotation for node in ast.walk(tree)
                 if isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None]
        if any(isinstance(name, ast.Name) and name.id == "Config"
               for annotation in types for name in ast.walk(annotation)):
            named.add(path.relative_to(ROOT / "pixelnet_tf").as_posix()
                      if path.is_relative_to(ROOT / "pixelnet_tf") else path.name)
    assert {name for name in named if name.split("/")[0] not in ("api", "cli", "config")
            } == WHOLE_CONFIG


def test_only_caffe_and_the_command_line_know_the_importer():
    for path in FILES:
        if path.is_relative_to(ROOT / "pixelnet_tf") and any(
                name.split(".")[0] == "prototxt_import" for name in imports_of(path)):
            assert path.relative_to(ROOT / "pixelnet_tf").parts[0] == "caffe", path


def test_the_importer_stands_alone():
    allowed = {*sys.stdlib_module_names, "numpy", "google", "h5py", "prototxt_import"}
    for path in FILES:
        if path.is_relative_to(ROOT / "prototxt_import"):
            assert {name.split(".")[0] for name in imports_of(path)} <= allowed, path


def test_preparing_and_scoring_load_no_tensorflow():
    for part in ("io", "config", "cases", "volumes", "evaluation"):
        for path in (ROOT / "pixelnet_tf" / part).rglob("*.py"):
            assert not {name.split(".")[0] for name in imports_of(path)} & {"tensorflow", "keras"}


def test_the_document_names_the_same_order():
    text = (ROOT / "docs" / "architecture.md").read_text()
    order = text[text.index("Imports point down"):text.index("`prototxt_import/` stands alone")]
    places = [order.index(f"`{name}/`") for names in LAYERS[:-1] for name in names]
    assert places == sorted(places)
