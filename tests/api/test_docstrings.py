"""The public docstrings: their examples run, and their sections are numpydoc's."""

from __future__ import annotations

import doctest
import inspect

import pytest

import pixelnet_tf as px

NAMES = [name for name in px.__all__ if name != "__version__"]


def docstrings(name: str) -> dict[str, str]:
    """The docstring of a public name and, of a class, those of its public methods."""
    found = getattr(px, name)
    members = {key: value for key, value in vars(found).items()
               if not key.startswith("_")} if inspect.isclass(found) else {}
    each = {name: found, **{f"{name}.{key}": getattr(value, "__func__", value)
                            for key, value in members.items()}}
    return {key: inspect.getdoc(value) or "" for key, value in each.items()}


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(
        verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for key, text in docstrings(name).items():
        said: list[str] = []
        runner.run(parser.get_doctest(text, {}, key, None, None), out=said.append)
        assert not said, "".join(said)


def test_the_parts_that_have_examples():
    with_examples = {name for name in NAMES if ">>> " in docstrings(name)[name]}
    assert with_examples >= {"Segmenter", "sample_pixels", "PixelNet", "Hypercolumn", "CaffeSGD",
                             "load_config"}


@pytest.mark.parametrize("name", NAMES)
def test_sections_are_numpydocs(name):
    for key, text in docstrings(name).items():
        lines = text.splitlines()
        assert not {"Args:", "Returns:", "Raises:", "Attributes:"} & {line.strip()
                                                                      for line in lines}, key
