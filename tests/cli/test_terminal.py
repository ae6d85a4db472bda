"""The command line's reporter: few plain lines without a terminal, a bar with one."""

import io

from rich.console import Console

from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.reporting import LogReporter, Reporter


def test_plain_lines_are_few_and_the_last_one_stands():
    text = io.StringIO()
    with TerminalReporter(Console(file=text)) as reporter:
        for number in range(1, 51):
            reporter.progress("checking", number, 50, f"case{number}")
        reporter.message("[done] 3/4")
        reporter.warning("left out B")
    assert text.getvalue().splitlines() == ["checking 1/50 case1", "checking 50/50 case50",
                                            "[done] 3/4", "warning: left out B"]


def test_a_task_that_begins_anew_has_a_new_time_left(monkeypatch):
    text, clock = io.StringIO(), iter([0.0, 10.0, 100.0, 110.0])
    monkeypatch.setattr("pixelnet_tf.cli.terminal.time.monotonic", lambda: next(clock))
    with TerminalReporter(Console(file=text)) as reporter:
        for done in (1, 2, 1, 2):
            reporter.progress("training", done, 4, "x")
    assert text.getvalue().splitlines() == ["training 1/4 x", "training 2/4 x  0:20 left"] * 2


def test_a_bar_on_a_terminal():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with TerminalReporter(console) as reporter:
        reporter.progress("checking", 2, 2, "b")
        reporter.progress("checking", 1, 2, "a")
        reporter.progress("preparing", 1, 2, "a")
    assert "checking" in text.getvalue()
    assert "1/2" in text.getvalue()


def test_the_library_speaks_to_the_logger(caplog):
    reporter = LogReporter()
    assert isinstance(reporter, Reporter)
    with caplog.at_level("DEBUG", logger="pixelnet_tf"):
        reporter.message("one")
        reporter.warning("two")
        reporter.progress("preparing", 1, 2, "A")
    assert caplog.record_tuples == [("pixelnet_tf", 20, "one"), ("pixelnet_tf", 30, "two"),
                                    ("pixelnet_tf", 10, "preparing 1/2 A")]
