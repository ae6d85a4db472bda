import pytest

from prototxt_import.text_tree import TextTreeError, parse_tree, to_mapping

TEXT = """# a comment with { and "
name: "a # b" 'c'
layer {  # first
  type: "X"
  my_param: < rate: [1, 2.5] mode: FAST on: true nested { k: -3; j: 'q' } >
}
layer { type: "Y" }
"""


def test_lines_spans_and_values():
    name, first, second = parse_tree(TEXT)
    assert name.values == ["\"a # bc'"]
    assert (first.line, second.line) == (3, 7)
    assert TEXT[second.start : second.end] == 'layer { type: "Y" }'
    assert first.child_value("type") == "X"
    assert to_mapping(first.children)["my_param"] == {
        "rate": (1, 2.5),
        "mode": "FAST",
        "on": True,
        "nested": {"k": -3, "j": "q"},
    }


def test_repeated_fields_become_a_tuple():
    assert to_mapping(parse_tree("a: 1 a: 2 b { c: 1 } b { c: 2 }")) == {
        "a": (1, 2),
        "b": ({"c": 1}, {"c": 2}),
    }


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: 1\nlayer {\n b: 2", 3, 6),
        ("a: 1\n }", 2, 2),
        ("layer {\n  > }", 2, 3),
        ('a: "open\n', 1, 4),
        ("a:\n", 2, 1),
        ("a: }", 1, 4),
        ("x { " * 100, 1, 253),
    ],
)
def test_broken_text_has_a_place(text, line, column):
    with pytest.raises(TextTreeError) as caught:
        parse_tree(text)
    assert (caught.value.line, caught.value.column) == (line, column)
