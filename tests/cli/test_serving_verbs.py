"""`export` and `serve`: exit codes and what a failure says."""

import pytest

from pixelnet_tf.cli import main
from pixelnet_tf.cli.options import read_token


def run(capsys, *arguments) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out + captured.err


def test_export_of_what_is_no_run(capsys, tmp_path):
    code, text = run(capsys, "export", "--model", tmp_path, "--out", tmp_path / "out")
    assert code == 4
    assert "not a trained run" in text
    assert not (tmp_path / "out").exists()


def test_export_with_a_bad_option(capsys, tmp_path):
    code, text = run(capsys, "export", "--model", tmp_path, "--out", tmp_path, "--mode",
                     "reference")
    assert code == 2
    assert "'exact', 'adaptive'" in text


def test_serve_without_a_model(capsys, tmp_path):
    pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
    code, text = run(capsys, "serve", "--model", tmp_path, "--port", "0")
    assert code == 4
    assert "give the --out folder of `pixelnet-tf export`" in text


@pytest.mark.parametrize(("option", "value", "words"), [
    ("--queue", "0", "--queue must be positive"),
    ("--seconds", "-1", "--seconds must be positive"),
    ("--seconds", "inf", "--seconds must be positive and finite"),
    ("--stall-seconds", "nan", "--stall-seconds must be positive and finite"),
    ("--token-file", "nowhere", "cannot be read"),
    ("--port", "70000", "70000"),
])
def test_serve_with_a_bad_option(capsys, tmp_path, option, value, words):
    code, text = run(capsys, "serve", "--model", tmp_path, option, value)
    assert code == 2
    assert words in text


@pytest.mark.parametrize("verb", [("serve", "--model", "x"),
                                  ("predict", "--server", "http://127.0.0.1:1", "--data", "x",
                                   "--out", "y")])
@pytest.mark.parametrize("text", ["", "\n", "  ", "\n\nsecret", "two words", "se\u0301cret"])
@pytest.mark.parametrize("by", ["file", "variable"])
def test_what_is_no_token_is_an_error_and_never_no_token(capsys, tmp_path, monkeypatch, verb, text,
                                                         by):
    more = ()
    if by == "file":
        (tmp_path / "token").write_text(text, encoding="utf-8")
        more = ("--token-file", tmp_path / "token")
    else:
        monkeypatch.setenv("PIXELNET_TOKEN", text)
    code, said = run(capsys, *verb, *more)
    assert code == 2
    assert "write a token into it" in said or "is one word of printable ASCII" in said


def test_the_token_is_the_first_line(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("  secret!\r\nremarks\n")
    assert read_token(tmp_path / "token") == "secret!"
    monkeypatch.setenv("PIXELNET_TOKEN", "other\n")
    assert read_token(None) == "other"
    monkeypatch.delenv("PIXELNET_TOKEN")
    assert read_token(None) is None


def test_an_open_address_without_a_token_is_warned_of(capsys, tmp_path):
    pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
    code, text = run(capsys, "serve", "--model", tmp_path, "--host", "0.0.0.0")
    assert code == 4
    assert "warning: listening on 0.0.0.0 without a token" in text


def test_predict_takes_a_model_or_a_server(capsys, tmp_path):
    code, text = run(capsys, "predict", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "one of --model RUN and --server URL" in text
