"""Progress over cases: few plain lines without a terminal, a bar with one."""

import io

from rich.console import Console

from pixelnet_tf.cli.case_progress import CaseProgress


def test_plain_lines_are_few_and_the_last_one_stands():
    text = io.StringIO()
    with CaseProgress({"check": "checking"}, Console(file=text)) as progress:
        for number in range(1, 51):
            progress("check", number, 50, f"case{number}")
    assert text.getvalue().splitlines() == ["checking 1/50 case1", "checking 50/50 case50"]


def test_a_bar_on_a_terminal():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with CaseProgress({"check": "checking", "prepare": "preparing"}, console) as progress:
        progress("check", 2, 2, "b")
        progress("prepare", 1, 2, "a")
    assert "checking" in text.getvalue()
    assert "1/2" in text.getvalue()
