"""`export` and `serve`: exit codes and what a failure says."""

import pytest

from pixelnet_tf.cli import main


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
    ("--token-file", "nowhere", "cannot be read"),
    ("--port", "70000", "70000"),
])
def test_serve_with_a_bad_option(capsys, tmp_path, option, value, words):
    code, text = run(capsys, "serve", "--model", tmp_path, option, value)
    assert code == 2
    assert words in text


def test_an_empty_token_file(capsys, tmp_path):
    (tmp_path / "token").write_text("\n")
    code, text = run(capsys, "serve", "--model", tmp_path, "--token-file", tmp_path / "token")
    assert code == 2
    assert "write a token into it" in text


def test_an_open_address_without_a_token_is_warned_of(capsys, tmp_path):
    pytest.importorskip("uvicorn", reason="needs pip install '.[serve]'")
    code, text = run(capsys, "serve", "--model", tmp_path, "--host", "0.0.0.0")
    assert code == 4
    assert "warning: listening on 0.0.0.0 without a token" in text


def test_predict_takes_a_model_or_a_server(capsys, tmp_path):
    code, text = run(capsys, "predict", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "one of --model RUN and --server URL" in text
