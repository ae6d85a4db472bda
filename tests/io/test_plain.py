"""Plain trees to dataclasses: what fits, and what is said of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import read_json_as, write_json
from pixelnet_tf.io.plain import PlainError, build


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class Outer:
    step: int
    size: tuple[int, int] = (1, 2)
    inner: Inner = Inner()
    by_name: dict[str, tuple[float, ...]] | None = None
    more: Any = None
    rate: float | Literal["auto"] = 0.5


def test_what_fits():
    assert build(Outer, {"step": 3}) == Outer(3)
    tree = {"step": 3, "size": [4, 5], "inner": {"names": ["a"], "score": 1},
            "by_name": {"x": [1, 2.5]}, "more": [None]}
    found = build(Outer, tree)
    assert found == Outer(3, (4, 5), Inner(("a",), 1.0), {"x": (1.0, 2.5)}, [None])
    assert isinstance(found.inner.score, float)
    assert build(Inner, {"score": None}).score is None
    assert build(Outer, {"step": 3, "rate": "auto"}).rate == "auto"
    assert build(Outer, {"step": 3, "rate": "1e-3"}, yaml=True).rate == 0.001


@pytest.mark.parametrize(("tree", "words"), [
    ([], r"the whole must be a section of keys, got \[\]"),
    ({}, "step is missing"),
    ({"step": 3, "sized": 1}, "unknown key 'sized' .did you mean 'size'"),
    ({"step": True}, "step must be of type int, got True"),
    ({"step": 3.0}, "step must be of type int"),
    ({"step": 3, "size": [1]}, "size must be a list of 2"),
    ({"step": 3, "size": "ab"}, "size must be a list"),
    ({"step": 3, "inner": {"names": [1]}}, r"inner.names\[0\] must be of type str, got 1"),
    ({"step": 3, "inner": {"score": 10**400}}, "inner.score is out of all range"),
    ({"step": 3, "inner": {"score": "x"}}, "inner.score must be of type float"),
    ({"step": 3, "rate": "best"}, r"rate must be of type float, .*or one of \['auto'\]"),
    ({"step": 3, "by_name": {"x": {}}}, "by_name.x must be a list"),
])
def test_what_does_not_fit_is_named_by_its_place(tree, words, tmp_path):
    with pytest.raises(PlainError, match=words):
        build(Outer, tree)
    write_json(tmp_path / "x.json", tree)
    with pytest.raises(DataError, match=f"x.json: .*{words}.*make it again"):
        read_json_as(tmp_path / "x.json", lambda stored: build(Outer, stored), "make it again")


def test_what_yaml_reads_otherwise_is_mended_for_yaml_alone():
    """JSON means what it says: true is no text, and text no number."""
    tree = {"step": 3, "inner": {"names": [True, False], "score": "1e-3"}}
    assert build(Outer, tree, yaml=True).inner == Inner(("yes", "no"), 0.001)
    with pytest.raises(PlainError, match=r"inner.names\[0\] must be of type str, got True"):
        build(Outer, tree)
    with pytest.raises(PlainError, match=r"inner.score must be of type float, got '1e-3'"):
        build(Outer, {"step": 3, "inner": {"score": "1e-3"}})
