"""Parts of the cases: all of them together are all cases, and Slurm's arrays name them."""

import pytest

from pixelnet_tf.cases.parts import Part
from pixelnet_tf.errors import ConfigError


def test_the_parts_are_all_cases_each_once():
    cases = list("abcdefg")
    parts = [Part(number, 3).of(cases) for number in (1, 2, 3)]
    assert parts == [["a", "d", "g"], ["b", "e"], ["c", "f"]]
    assert str(Part.parse(" 2/3 ")) == "2/3"
    # More parts than cases: the last ones have none.
    assert Part(9, 9).of(cases) == []


@pytest.mark.parametrize("text", ["4/3", "0/3", "1/0", "-1/3", "1", "a/b", "1/3/5", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ConfigError, match=r"give I/N with 1 <= I <= N") as refused:
        Part.parse(text)
    assert "\n" not in str(refused.value)


def array(number: str, first: str, count: str, step: str | None = None) -> dict[str, str]:
    names = {"ID": number, "MIN": first, "COUNT": count, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{key}": value for key, value in names.items() if value is not None}


def test_a_task_of_an_array_is_a_part():
    assert Part.of_array({}) is None
    assert Part.of_array({"SLURM_JOB_ID": "7"}) is None
    assert Part.of_array(array("0", "0", "4")) == Part(1, 4)
    assert Part.of_array(array("4", "1", "4")) == Part(4, 4)
    assert Part.of_array(array("9", "1", "3", "4")) == Part(3, 3)


@pytest.mark.parametrize("names", [array("7", "1", "3"), array("2", "1", "3", "2"),
                                   array("x", "1", "3"), array("1", "1", "3", "0")])
def test_an_array_that_is_no_row_is_refused(names):
    with pytest.raises(ConfigError, match="give --part I/N"):
        Part.of_array(names)
