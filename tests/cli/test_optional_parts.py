"""What an optional part needs is asked for before any work, with the line that installs it."""

import sys

import pytest

from pixelnet_tf.cli import main

PARTS = {
    ("predict", "--model", "m", "--data", "d", "--out", "o", "--overlays"):
        ("matplotlib", "report"),
    ("predict", "--model", "m", "--data", "d", "--out", "o", "--overlays", "--dry-run"):
        ("matplotlib", "report"),
    ("predict", "--model", "m", "--data", "d", "--out", "o", "--output", "dicom-seg"):
        ("highdicom", "dicom"),
    ("report", "run", "--predictions", "p", "--scores", "s", "--out", "o"): ("jinja2", "report"),
    ("serve", "--model", "m"): ("uvicorn", "serve"),
    ("export", "--model", "m", "--out", "o", "--format", "onnx"): ("tf2onnx", "onnx"),
}


@pytest.mark.parametrize("call", PARTS, ids=" ".join)
def test_a_part_that_is_not_installed(call, capsys, monkeypatch):
    module, extra = PARTS[call]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as exit_:
        main(list(call))
    text = capsys.readouterr().err
    assert exit_.value.code == 2, text
    assert module in text
    assert f'pip install ".[{extra}]"' in text
