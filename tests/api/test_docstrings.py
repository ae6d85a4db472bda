"""The public docstrings: each name has an example, the examples run, the sections are numpydoc's.

The examples are run by doctest in a folder of their own, in which `study`, `prepared` and `run` of
a small phantom and a network of Caffe (`deploy.prototxt`, `weights.caffemodel`) lie. The standard
library's doctest does what is needed; a plugin would collect every docstring of every module.
"""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pixelnet_tf as px
import prototxt_import
from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.caffe_net import CaffeNet
from pixelnet_tf.caffe.parity import compare_with_golden
from pixelnet_tf.caffe.reading import read_network

NAMES = {f"px.{name}": getattr(px, name) for name in px.__all__ if name != "__version__"}
#: The settings of each type of layer are told by their fields; the base class has the example.
NAMES |= {name: getattr(prototxt_import, name) for name in prototxt_import.__all__
          if name in ("LayerParams", "GenericParams") or not name.endswith("Params")
          if name != "PARAMS_BY_TYPE"}
#: What the document on Caffe names beside them.
NAMES |= {found.__name__: found for found in (CaffeNet, build_model, compare_with_golden,
                                              read_network)}
GOLDEN = Path(__file__).parents[1] / "golden"


def docstrings(name: str) -> dict[str, str]:
    """The docstring of a public name and, of a class, those of its public methods."""
    found = NAMES[name]
    members = {key: value for key, value in vars(found).items()
               if not key.startswith("_")} if inspect.isclass(found) else {}
    each = {name: found, **{f"{name}.{key}": getattr(value, "__func__", value)
                            for key, value in members.items()}}
    return {key: inspect.getdoc(value) or "" for key, value in each.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, main_job) -> Path:
    """Where the examples run."""
    made = tmp_path_factory.mktemp("examples")
    for name in ("study", "prepared", "run"):
        (made / name).symlink_to(main_job / name, target_is_directory=True)
    shutil.copy(GOLDEN / "narrow_deploy.prototxt", made / "deploy.prototxt")
    shutil.copy(GOLDEN / "narrow_init.caffemodel", made / "weights.caffemodel")
    return made


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(
        verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    texts = docstrings(name)
    assert ">>> " in texts[name]
    assert "+SKIP" not in "".join(texts.values())
    for key, text in texts.items():
        said: list[str] = []
        runner.run(parser.get_doctest(text, {}, key, None, None), out=said.append)
        assert not said, "".join(said)


def test_every_name_of_the_importer_says_what_it_is():
    for name in set(prototxt_import.__all__) - {"PARAMS_BY_TYPE"}:
        assert (inspect.getdoc(getattr(prototxt_import, name)) or "").strip(), name


@pytest.mark.parametrize("name", NAMES)
def test_sections_are_numpydocs(name):
    for key, text in docstrings(name).items():
        lines = text.splitlines()
        assert not {"Args:", "Returns:", "Raises:", "Attributes:"} & {line.strip()
                                                                      for line in lines}, key


def test_the_examples_of_the_importer_need_no_tensorflow():
    code = ("import prototxt_import as p, sys; [p.__dict__[name] for name in p.__all__]; "
            "assert not {'tensorflow', 'pixelnet_tf'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
