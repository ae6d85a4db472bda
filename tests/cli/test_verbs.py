"""What holds for every verb: options given twice, missing paths, and who has a --dry-run."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pixelnet_tf.cli import VERBS, cli, main
from pixelnet_tf.evaluation.submission import CHALLENGES
from pixelnet_tf.evaluation.tables import FORMATS
from pixelnet_tf.serving.export import FORMATS as EXPORT_FORMATS
from pixelnet_tf.volumes.phantom_study import DEFAULT_SIZES
from tests.main_job import TINY, run_main

README = Path(__file__).parents[2] / "README.md"


#: Loaded once there is something to do.
HEAVY = ("tensorflow", "keras", "matplotlib", "scipy", "nibabel", "SimpleITK", "pandas")
HELP = f"""
import sys
from pixelnet_tf.cli import VERBS, cli, main
for verb in VERBS:
    try:
        cli.main([verb, "--help"], standalone_mode=False)
    except SystemExit:
        pass
    loaded = set(sys.modules) & set({HEAVY})
    assert not loaded, (verb, loaded)
"""


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained_in_a_sentence(verb):
    context = click.Context(cli)
    for option in cli.get_command(context, verb).get_params(context):
        if isinstance(option, click.Option):
            assert option.help, option.name
            assert re.search(r"[.\]]$", option.help.strip()), option.help
            assert option.help[0].isupper() or option.help[0] in "`.", option.help


def test_the_help_of_no_verb_loads_anything_heavy():
    subprocess.run([sys.executable, "-c", HELP], check=True, stdout=subprocess.DEVNULL)


def test_the_choices_of_options_are_those_of_the_library():
    for verb, option, choices in (
            ("compare", "form", FORMATS), ("submit", "challenge", CHALLENGES),
            ("phantom", "layout", DEFAULT_SIZES), ("export", "model_format", EXPORT_FORMATS)):
        (found,) = (each for each in options_of(verb) if each.name == option)
        assert list(found.type.choices) == list(choices)


def options_of(verb: str) -> list[click.Option]:
    context = click.Context(cli)
    return [option for option in cli.get_command(context, verb).params
            if isinstance(option, click.Option)]


def has_dry_run(verb: str) -> bool:
    return any("--dry-run" in option.opts for option in options_of(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_of_one_value_that_is_given_twice_is_refused(verb, capsys, tmp_path,
                                                                  monkeypatch):
    """Not the last one taken without a word, as of `export --out A --out B`."""
    # A file for the log is begun at once.
    monkeypatch.chdir(tmp_path)
    required = [argument for option in options_of(verb) if option.required
                for argument in (option.opts[0], *[_value(option)] * option.nargs)]
    arguments = ["X"] * sum(not isinstance(parameter, click.Option) for parameter in
                            cli.get_command(click.Context(cli), verb).params)
    for option in options_of(verb):
        if option.multiple or option.is_flag or option.opts[0] == "--help":
            continue
        given = [option.opts[0], *[_value(option)] * option.nargs]
        # It stands once among the required ones already.
        again = given if option.required else given * 2
        assert run_main(verb, *arguments, *required, *again) == 2
        message = " ".join(capsys.readouterr().err.split())
        assert f"{option.opts[0]} is given 2 times and takes one value" in message, option.opts


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return option.type.choices[0]
    return "20" if isinstance(option.type, (click.types.IntParamType, click.types.FloatParamType)
                              ) else "x"


def test_options_that_are_meant_to_be_repeated_still_are(tmp_path, capsys):
    assert run_main("phantom", tmp_path / "s", "--set", "split.seed=1", "--set", "split.test=1",
                    "--dry-run", "--dry-run") == 0
    assert "would write" in capsys.readouterr().out


def test_the_readme_names_the_verbs_with_a_dry_run():
    text = " ".join(README.read_text("utf-8").split())
    words = re.search(r"With `--dry-run` the verbs (.*?) check everything", text)[1]
    named = set(re.findall(r"`([\w-]+)`", words))
    assert named == {verb for verb in VERBS if has_dry_run(verb)}


#: Verb and arguments with one path that is missing (NOWHERE) -> exit code.
MISSING = {
    "a configuration": (["prepare", "--config", "NOWHERE", "--data", "S", "--out", "O"], 2),
    "a token": (["predict", "--server", "http://127.0.0.1:9", "--token-file", "NOWHERE", "--data",
                 "S", "--out", "O"], 2),
    "a study": (["prepare", "--data", "NOWHERE", "--out", "O"], 3),
    "a prepared study": (["train", "--data", "NOWHERE", "--out", "O"], 3),
    "a prepared study, experiment": (["experiment", "--data", "NOWHERE", "--references", "S",
                                      "--out", "O"], 3),
    "predictions": (["evaluate", "--predictions", "NOWHERE", "--references", "S", "--out", "O"], 3),
    "predictions, submit": (["submit", "--challenge", "brats2017", "--predictions", "NOWHERE",
                             "--references", "S", "--out", "O"], 3),
    "scores": (["compare", "NOWHERE"], 3),
    "scores, report": (["report", "S", "--predictions", "S", "--scores", "NOWHERE", "--out",
                        "O"], 3),
    "a run": (["predict", "--model", "NOWHERE", "--data", "S", "--out", "O"], 4),
    "a run, postprocess": (["postprocess", "--model", "NOWHERE", "--predictions", "S",
                            "--references", "S"], 4),
    "a run, report": (["report", "NOWHERE", "--predictions", "S", "--scores", "S", "--out",
                       "O"], 4),
    "a run, export": (["export", "--model", "NOWHERE", "--out", "O"], 4),
    "a run, export-caffe": (["export-caffe", "--model", "NOWHERE", "--out", "O"], 4),
    "an export": (["serve", "--model", "NOWHERE"], 4),
    "an export's description": (["predict", "--server", "http://127.0.0.1:9/v1/models/x",
                                 "--serving-json", "NOWHERE", "--data", "S", "--out", "O"], 4),
    "Caffe's weights": (["import-caffe", "--caffemodel", "NOWHERE", "--out", "O"], 4),
    "a Caffe network": (["parity", "--prototxt", "NOWHERE", "--caffemodel", "S", "--golden",
                         "S"], 4),
}


CALLS = [(kind, more) for kind, (arguments, _) in MISSING.items() for more in ([], ["--dry-run"])
         if not more or has_dry_run(arguments[0])]


@pytest.mark.parametrize(("kind", "more"), CALLS, ids=[" ".join([k, *m]) for k, m in CALLS])
def test_what_is_missing_has_the_code_of_what_it_should_hold(kind, more, tmp_path, capsys):
    arguments, code = MISSING[kind]
    (tmp_path / "S").mkdir()
    paths = {"NOWHERE": tmp_path / "nowhere", "S": tmp_path / "S", "O": tmp_path / "out"}
    assert run_main(*(paths.get(word, word) for word in arguments), *more) == code
    assert str(tmp_path / "nowhere") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", [".", "..", "", "folder"])
def test_a_file_cannot_have_the_name_of_a_folder(tmp_path, monkeypatch, capsys, out):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for arguments in (["compare", "a", "b"], ["submit", "--challenge", "brats2017",
                                              "--predictions", "a", "--references", "b"],
                      ["report", "run", "--predictions", "a", "--scores", "b"]):
        assert run_main(*arguments, "--out", out) == 2
        assert "is a folder; give the name of the file to write" in capsys.readouterr().err


#: A call with an option that would take no part in it, what is named, and the next step.
USELESS = [
    ("import-caffe --solver s.prototxt --out imported", "--out", "give --caffemodel"),
    ("import-caffe --solver s --border 100 --set a.b=1", "--border, --set", "give --caffemodel"),
    ("predict --model m --data d --out o --serving-json f", "--serving-json", "give --server URL"),
    ("predict --model m --data d --out o --token-file f", "--token-file", "give --server URL"),
    ("export --model m --out o --format onnx --mode adaptive", "--mode", "leave it out"),
    ("export --model m --out o --format onnx --precision bfloat16", "--precision", "leave it out"),
    ("train --data d --out o --join-seconds 20", "--join-seconds", "--distribute multiworker"),
    ("submit --challenge brats2017 --predictions p --references r --out o.zip --description x",
     "--description", "leave it out"),
    ("plan S --overwrite", "--overwrite", "give --out FILE"),
    ("plan S --minutes 5 --no-trial", "--minutes", "--set training.steps=N"),
    ("plan S --preset laptop --weights w", "--weights", "--preset best"),
]


@pytest.mark.parametrize(("call", "option", "step"), USELESS,
                         ids=[f"{call.split()[0]} {option}" for call, option, _ in USELESS])
def test_an_option_that_would_take_no_part_is_refused(tmp_path, monkeypatch, capsys, call, option,
                                                      step):
    monkeypatch.chdir(tmp_path)
    assert run_main(*call.split()) == 2
    said = capsys.readouterr().err
    assert f"Error: {option}: " in said or f"error: {option} " in said
    assert step in said
    assert not any(tmp_path.iterdir())


class ResourceExhaustedError(Exception):
    """TensorFlow's, by its name."""


@pytest.mark.parametrize("error", [
    MemoryError("std::bad_alloc"), ResourceExhaustedError("OOM when allocating"),
    ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
    OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_does_not_suffice_is_said(error, monkeypatch, capsys):
    monkeypatch.setattr("pixelnet_tf.cli.cli.main", _raising(error))
    assert run_main("train") == 5
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "memory" in said


@pytest.mark.parametrize("error", [ImportError("no module"), TypeError("a fault of ours")])
def test_a_fault_of_the_program_is_not_hidden(error, monkeypatch):
    monkeypatch.setattr("pixelnet_tf.cli.cli.main", _raising(error))
    with pytest.raises(type(error)):
        main(["train"])


def _raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


#: Verb -> arguments, of which OUT lies where nothing can be written.
UNWRITABLE = {
    "phantom": ["OUT", "--cases", 1, "--size", 30, 28, 16],
    "prepare": ["--config", "phantom", *TINY, "--data", "J/study", "--out", "OUT",
                "--workers", 1],
    "train": ["--config", "phantom", *TINY, "--data", "J/prepared", "--out", "OUT"],
    "predict": ["--model", "J/run", "--data", "J/prepared", "--out", "OUT"],
    "export": ["--model", "J/run", "--out", "OUT"],
    "export-caffe": ["--model", "J/run", "--out", "OUT"],
    "experiment": ["--config", "phantom", *TINY, "--data", "J/prepared", "--references",
                   "J/study", "--out", "OUT"],
}


@pytest.mark.parametrize("verb", UNWRITABLE)
def test_where_nothing_can_be_written_the_path_and_the_code_say_so(verb, main_job, tmp_path,
                                                                   capsys):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    paths = {"OUT": out}
    arguments = [str(main_job) + word[1:] if str(word).startswith("J/") else
                 paths.get(word, word) for word in UNWRITABLE[verb]]
    assert run_main(verb, *arguments) == 5
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"error: {out}" in said
    assert "cannot be written: " in said
    assert (tmp_path / "file").read_text() == "x"


def test_a_name_that_is_no_text_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["export", "--model", os.fsdecode(os.fsencode(tmp_path) + b"/run\xff"),
              "--out", str(tmp_path / "models")])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "run\\xff" in said
    assert "the name is no UTF-8 text; rename it" in said
