"""Errors: what a person reads and what a program reads are made of the same parts."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import pytest

from pixelnet_tf import errors
from pixelnet_tf.errors import ConfigError, DataError, ModelError

PACKAGE = Path(errors.__file__).parent
#: The classes whose texts are put together from parts.
KINDS = {"DataError", "ConfigError", "ModelError", "RunError", "PlainError"}
#: A next step that stands in the text, where no program finds it.
NEXT_STEP = re.compile(
    r"; (add|another|ask|check|choose|correct|delete|draw|evaluate|export|fetch|give|go|leave|let|"
    r"look|lower|make|name|predict|prepare|put|raise|remove|rename|replace|resample|retry|run|save|"
    r"say|score|see|set|split|start|state|take|tell|train|unpack|upload|use|write)\b")
#: Texts that begin with what is neither a case nor a file: a layer, an address, an option.
OTHER_PLACES = {"place(layer)", "place(source)", "url", "self.url", "place", "folder.name",
                "self.name", "name", "modality", "type(error).__name__", "source", "_CONFIG"}


def calls() -> list[tuple[str, ast.Call, str]]:
    """Every place of the package that makes an error: where, the call, its source."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text("utf-8")
        found += [(f"{path.relative_to(PACKAGE)}:{node.lineno}", node, text)
                  for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)
                  and isinstance(node.func, ast.Name) and node.func.id in KINDS]
    return found


def fault_of(call: ast.Call, source: str) -> str:
    """What a program would have to read out of the text of an error; empty: nothing."""
    given = {keyword.arg for keyword in call.keywords}
    if not call.args or not isinstance(call.args[0], (ast.JoinedStr, ast.Constant)):
        return ""
    first = call.args[0]
    parts = first.values if isinstance(first, ast.JoinedStr) else [first]
    words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
    for before, word, after in zip([None, *parts], words, [*words[1:], None], strict=False):
        if word is not None and NEXT_STEP.search(word):
            return "the next step is to be its hint"
        if word is not None and word.endswith(" got ") and after is None and not {
                "value", "hint"} & given and word is not words[-1]:
            return "what it got is to be its value"
        if word is None and after is not None and after.startswith(": ") and (
                before is None or str(getattr(before, "value", "")) == "case "):
            place = ast.get_source_segment(source, parts[words.index(None)].value)
            if before is not None:
                return "the case is to be its case"
            if place not in OTHER_PLACES:
                return f"{place} is to be its file"
    return ""


def test_every_error_keeps_its_parts_apart():
    found = calls()
    assert len(found) > 250
    faults = [f"{where}: {fault}" for where, call, text in found if (fault := fault_of(call, text))]
    assert faults == []


@pytest.mark.parametrize(("code", "fault"), [
    ('DataError(f"{path}: no such file")', "path is to be its file"),
    ('DataError(f"case {name}: has no image")', "the case is to be its case"),
    ('DataError(f"no image in {path}; give one")', "the next step is to be its hint"),
    ('ConfigError(f"must be one of {kinds}, got {kind!r}")', "what it got is to be its value"),
    ('ModelError(f"{place(layer)}: has no blob")', ""),
    ('DataError("no such file", file=path, hint="give another")', ""),
])
def test_parts_within_a_text_are_found(code, fault):
    assert fault_of(ast.parse(code).body[0].value, code) == fault


def test_the_text_is_made_of_the_parts():
    error = DataError("3 voxels are NaN", case="p1", file=Path("a/t2.nii"), value=3,
                      hint="replace them")
    assert str(error) == "case p1: a/t2.nii: 3 voxels are NaN; replace them"
    assert error.text == "a/t2.nii: 3 voxels are NaN; replace them"
    assert (error.case, error.file, error.value, error.hint) == ("p1", "a/t2.nii", 3,
                                                                 "replace them")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))
    # A file of text is named with its line by whoever read it.
    assert str(ModelError("a.prototxt:3:1: no such key", file="a.prototxt")) == (
        "a.prototxt:3:1: no such key")


def test_a_caller_adds_what_it_knows_and_changes_nothing_that_is_known():
    inner = DataError("has shape (2, 2)", value=(2, 2))
    outer = DataError.of(DataError.of(inner, file="t2.nii", hint="split it"), case="p1", file="b")
    assert str(outer) == "case p1: t2.nii: has shape (2, 2); split it"
    assert outer.value == (2, 2)
    other = ModelError.of(inner, source="flair")
    assert (str(other), other.file, other.exit_code) == ("flair: has shape (2, 2)", None, 4)
    assert ConfigError.of(inner, source=Path("c.yaml")).file == "c.yaml"


def test_a_list_of_errors_has_the_parts_of_its_first():
    faults = [DataError("is empty", case="p1", file="a.nii", hint="fill it"),
              DataError("is missing", case="p2", value="t2")]
    listed = DataError.listing(faults, "2 of 3 cases:", by_case=True, hint="leave them out")
    assert str(listed) == ("2 of 3 cases:\n  p1: a.nii: is empty; fill it\n  p2: is missing\n"
                           "leave them out")
    assert (listed.case, listed.file, listed.hint) == ("p1", "a.nii", "leave them out")
    assert listed.faults == tuple(faults)
    assert str(DataError.listing(faults)) == (
        "case p1: a.nii: is empty; fill it\ncase p2: is missing")
    again = pickle.loads(pickle.dumps(DataError.of(listed, case="other")))
    assert (str(again), again.case) == (str(listed), "p1")
