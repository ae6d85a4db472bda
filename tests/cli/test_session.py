"""What holds for every call: TensorFlow unheard, --quiet, --verbose, --log-file, completion."""

import io
import os
import re
import subprocess
import sys

import click
import pytest
from rich.console import Console

from pixelnet_tf.cli import VERBS, cli
from pixelnet_tf.cli.session import SESSION
from pixelnet_tf.cli.terminal import TerminalReporter
from pixelnet_tf.reporting import LEVEL, _QuietImport
from tests.main_job import run_main

LOADS = """
import os, sys
from pixelnet_tf.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
import tensorflow as tf
import tensorflow.python  # submodules come as ever
tf.constant(1)
assert tf.__spec__.loader.get_source("tensorflow")
assert not {"matplotlib", "pandas"} & set(sys.modules)
import matplotlib  # whoever wants it
print("said", file=sys.stderr, flush=True)
os.write(2, b"written\\n")
"""


def environment(**values):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP")}
    return kept | values


@pytest.fixture(autouse=True)
def begun_anew(monkeypatch):
    monkeypatch.setenv(LEVEL, os.environ.get(LEVEL, "2"))
    yield
    SESSION.end(0)


def test_tensorflow_is_not_heard_and_all_else_is():
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True,
                          env=environment(), check=True)
    assert done.stderr.splitlines() == ["said", "written"]


def test_verbose_lets_tensorflow_speak(capsys):
    assert _QuietImport().find_spec("tensorflow") is not None
    assert _QuietImport().find_spec("numpy") is None
    with pytest.raises(SystemExit):
        cli.main(["--verbose", "phantom", "--help"])
    assert SESSION.verbose
    assert os.environ[LEVEL] == "0"
    assert _QuietImport().find_spec("tensorflow") is None


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_keeps_messages_off_the_terminal_and_nothing_else(place, tmp_path, capsys):
    call = ["phantom", tmp_path / "s", "--cases", 1, "--size", 16, 16, 16]
    assert run_main(*(["--quiet", *call] if place == "before" else [*call, "--quiet"])) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "1 cases of 16x16x16 voxels" in said.out
    assert run_main("prepare", "--quiet", "--data", tmp_path / "none", "--out", "o") == 3
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
def test_warnings_are_shown_and_a_log_file_keeps_all_of_it(terminal, tmp_path):
    SESSION.quiet, SESSION.arguments = True, ("train", "--data", "a b")
    SESSION.keep_in(tmp_path / "logs" / "all.log")
    text = io.StringIO()
    with TerminalReporter(Console(file=text, force_terminal=terminal)) as reporter:
        reporter.message("[loss] 3")
        reporter.warning("few cases")
        reporter.progress("training", 4, 4, "step")
    SESSION.end(5)
    assert text.getvalue().splitlines() == ["warning: few cases"]
    lines = (tmp_path / "logs" / "all.log").read_text().splitlines()
    assert [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (.*)", line)[1] for line in lines] == [
        "pixelnet-tf train --data 'a b'", "[loss] 3", "warning: few cases", "training 4/4 step",
        "exit code 5"]


def test_progress_of_a_bar_is_in_the_log_file_too(tmp_path):
    SESSION.keep_in(tmp_path / "all.log")
    text = io.StringIO()
    with TerminalReporter(Console(file=text, force_terminal=True, width=100)) as reporter:
        reporter.progress("scoring", 2, 2, "b")
    assert "scoring 2/2 b" in (tmp_path / "all.log").read_text()
    assert "scoring 2/2" not in text.getvalue()


def test_a_log_file_has_the_error_and_the_exit_code_and_is_added_to(tmp_path, capsys):
    log = tmp_path / "all.log"
    for _ in range(2):
        assert run_main("prepare", "--data", tmp_path / "none", "--out", "o",
                        "--log-file", log) == 3
    said = capsys.readouterr().err.splitlines()[0]
    lines = [line[20:] for line in log.read_text().splitlines()]
    assert lines == [f"pixelnet-tf prepare --data {tmp_path / 'none'} --out o --log-file {log}",
                     said, "exit code 3"] * 2
    (tmp_path / "file").write_text("x")
    assert run_main("--log-file", tmp_path / "file" / "log", "phantom", "x", "--dry-run") == 5


def test_each_verb_takes_the_options_of_the_session():
    context = click.Context(cli)
    for verb in VERBS:
        names = {name for option in cli.get_command(context, verb).params for name in option.opts}
        assert {"--quiet", "--verbose", "--log-file"} <= names, verb


def test_the_shell_completes_verbs_and_options():
    for words, wanted in (("pixelnet-tf pr", ["prepare", "predict"]),
                          ("pixelnet-tf prepare --wor", ["--workers"])):
        done = subprocess.run(
            [sys.executable, "-c", "from pixelnet_tf.cli import main; main()"],
            env=environment(_PIXELNET_TF_COMPLETE="bash_complete", COMP_WORDS=words,
                            COMP_CWORD=str(len(words.split()) - 1)),
            capture_output=True, text=True, check=True)
        assert [line.split(",")[1] for line in done.stdout.splitlines()] == wanted
