"""`parity`, `import-caffe` and `export-caffe`: output, files, exit codes, and broken input."""

import dataclasses
import json
from pathlib import Path

import keras
import nibabel as nib
import numpy as np
import pytest
import yaml

from pixelnet_tf.caffe.reading import read_network, write_caffemodel
from pixelnet_tf.cli import main
from pixelnet_tf.config import load_config

GOLDEN = Path(__file__).parents[1] / "golden"
PROTOTXT, CAFFEMODEL = GOLDEN / "narrow_deploy.prototxt", GOLDEN / "narrow_init.caffemodel"
SOLVER = 'net: "a" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 50\n'


def run(capsys, *arguments) -> tuple[int, str]:
    """Call the command line as a shell would; return the exit code and everything printed."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert "Traceback" not in output.out + output.err
    return exit_.value.code or 0, output.out + output.err


@pytest.fixture
def golden(tmp_path) -> Path:
    with np.load(GOLDEN / "narrow.npz") as file:
        image = file["even/image_rgb_uint8"][..., ::-1].astype(np.float32) - file["mean_bgr"]
        data = np.pad(image.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (100, 100), (100, 100)))
        blobs = {f"blob/{name}": file[f"even/blob/{name}"] for name in ("fc8_new", "pool5")}
        np.savez(tmp_path / "golden.npz", data=data, pixels=file["even/pixels"], **blobs)
    return tmp_path / "golden.npz"


def parity(*more, prototxt=PROTOTXT, caffemodel=CAFFEMODEL):
    return ("parity", "--prototxt", prototxt, "--caffemodel", caffemodel, *more)


def test_parity(capsys, golden, tmp_path):
    report = tmp_path / "report.json"
    code, text = run(capsys, *parity("--golden", golden, "--json", report))
    assert code == 0
    assert "within the tolerance 2e-05" in text
    found = json.loads(report.read_text())
    assert found["passed"] is True
    assert [row["name"] for row in found["blobs"]] == ["fc8_new", "pool5"]
    assert 0 < found["worst"] == max(row["relative"] for row in found["blobs"]) < 2e-5


def test_parity_past_the_tolerance(capsys, golden, tmp_path):
    code, text = run(capsys, *parity("--golden", golden, "--tolerance", "1e-9"))
    assert code == 4
    assert "PAST the tolerance 1e-09" in text
    with np.load(golden) as file:
        arrays = dict(file)
    arrays["blob/pool5"] = arrays["blob/pool5"][:, :-1]
    arrays["blob/fc8_new"][3, 1] = np.nan
    np.savez(golden, **arrays)
    report = tmp_path / "report.json"
    code, text = run(capsys, *parity("--golden", golden, "--json", report))
    assert code == 4
    assert [row["relative"] for row in json.loads(report.read_text())["blobs"]] == [None, None]


def test_parity_names_blobs_that_the_network_lacks(capsys, golden):
    with np.load(golden) as file:
        arrays = dict(file)
    np.savez(golden, **arrays, **{"blob/fc9": np.zeros(3)})
    code, text = run(capsys, *parity("--golden", golden))
    assert code == 0
    assert "not in the network, not compared: fc9" in text
    np.savez(golden, data=arrays["data"], **{"blob/fc9": np.zeros(3)})
    code, text = run(capsys, *parity("--golden", golden))
    assert code == 3
    assert "none of its blobs (fc9)" in text


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"<html></html>"])
def test_parity_with_a_broken_golden_file(content, capsys, tmp_path):
    path = tmp_path / "golden.npz"
    if content is not None:
        path.write_bytes(content)
    code, text = run(capsys, *parity("--golden", path))
    assert code == 3
    assert str(path) in text


def test_parity_with_a_missing_input(capsys, golden):
    with np.load(golden) as file:
        arrays = {name: file[name] for name in file if name != "pixels"}
    np.savez(golden, **arrays)
    code, text = run(capsys, *parity("--golden", golden))
    assert code == 4
    assert "needs the input 'pixels'" in text


def test_parity_of_a_pixel_past_the_map(capsys, golden):
    with np.load(golden) as file:
        arrays = dict(file)
    arrays["pixels"][5] = (0, 263, 20)
    np.savez(golden, **arrays)
    code, text = run(capsys, *parity("--golden", golden))
    assert code == 4
    assert "past the last row of the map of rate 2" in text


def test_import_then_export(capsys, tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER)
    out = tmp_path / "new" / "model.keras"
    code, text = run(capsys, "import-caffe", "--prototxt", PROTOTXT, "--caffemodel", CAFFEMODEL,
                     "--out", out, "--solver", solver)
    assert code == 0
    assert "18 matched, 0 converted" in text
    config = load_config(tmp_path / "new" / "model.config.yaml")
    assert (config.training.steps, config.training.solver.base_lr) == (50, 0.01)
    assert config.training.initial_weights == str(out)
    assert config.model.widths == (4, 8, 16, 32, 32)
    assert config.prediction.prior == "sampled"
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "manifest.jsonl", "model.config.yaml", "model.keras"]
    model = keras.models.load_model(out, compile=False)
    assert model.classes == 4
    code, text = run(capsys, "export-caffe", "--model", out, "--out", tmp_path / "back")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "deploy.prototxt", "preparation.py", "segment_nifti.py", "serving.json",
        "weights.caffemodel"]
    about = json.loads((tmp_path / "back" / "serving.json").read_text())
    assert about["channels"] == ["channel1", "channel2", "channel3"]
    assert about["not_in_the_network"]["prior_correction"] == [0, 0, 0, 0]
    code, text = run(capsys, "import-caffe", "--caffemodel",
                     tmp_path / "back" / "weights.caffemodel", "--dry-run")
    assert code == 0
    assert "nothing was written" in text


@pytest.mark.parametrize("out", ["imported", "imported.keras"])
def test_import_then_predict_and_export(out, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "import-caffe", "--prototxt", PROTOTXT, "--caffemodel", CAFFEMODEL,
               "--out", out, "--config", "phantom")[0] == 0
    run(capsys, "phantom", "study", "--cases", 1, "--size", 32, 32, 16)
    predict = ("predict", "--model", out, "--data", "study", "--set",
               "prepare.bias_field.enabled=false")
    code, text = run(capsys, *predict, "--out", "predictions")
    assert code == 0, text
    case = next(path.name for path in Path("study").iterdir())
    labels = np.asarray(nib.load(Path("predictions") / f"{case}.nii.gz").dataobj)
    truth = nib.load(Path("study") / case / f"{case}_seg.nii.gz")
    assert labels.shape == truth.shape
    assert set(np.unique(labels)) <= {0, 1, 2, 4}
    code, text = run(capsys, *predict, "--out", "corrected", "--prior", "corrected")
    assert (code, "frequencies of an imported model are unknown" in text) == (2, True), text
    code, text = run(capsys, *predict, "--out", "test", "--split", "test")
    assert (code, "no case" in text) == (3, True), text
    code, text = run(capsys, *predict, "--out", "two", "--set", "study.modalities=[flair, t2]")
    assert (code, "the model has 3 channels, but study.modalities names 2" in text) == (4, True)
    code, text = run(capsys, "export", "--model", out, "--out", "served")
    assert code == 0, text
    about = json.loads(Path("served/phantom/1/serving.json").read_text())
    assert about["training"]["class_frequency"] == {}
    assert about["prior"]["correction"] == [0.0] * 4
    assert "imported from Caffe" in Path("served/phantom/1/model_card.md").read_text()


def test_imported_vgg_says_that_its_head_is_new(capsys, tmp_path):
    network = read_network(PROTOTXT, CAFFEMODEL)
    vgg = dataclasses.replace(network, layers=tuple(
        layer for layer in network.layers if layer.name[:4] in ("data", "conv", "pool", "relu")))
    write_caffemodel(tmp_path / "vgg.caffemodel", vgg)
    call = ("import-caffe", "--caffemodel", tmp_path / "vgg.caffemodel", "--out", tmp_path / "run",
            "--set", "model.head_widths=[8]")
    code, text = run(capsys, *call)
    assert (code, "say how many classes" in text) == (4, True), text
    code, text = run(capsys, *call, "--classes", 2)
    assert code == 0, text
    assert "cls_score_new, fc6_new hold random start weights" in text
    config = load_config(tmp_path / "run" / "config.yaml")
    # Its kernels are to be adapted to normalised images when the training starts.
    assert config.training.initial_weights == str(tmp_path / "vgg.caffemodel")
    assert config.study.class_names == ("background", "class1")
    code, text = run(capsys, *call, "--config", "isles2017", "--set",
                     "model.widths=[4, 8, 16, 32, 32]", "--channels", 2)
    assert (code, "the model has 2 channels, but study.modalities names 3" in text) == (4, True)


def test_import_into_a_training_is_refused(capsys, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    code, text = run(capsys, "import-caffe", "--caffemodel", CAFFEMODEL, "--out", tmp_path / "run")
    assert (code, "holds a training" in text) == (5, True), text


def test_form_changed_by_set(capsys, tmp_path):
    out = tmp_path / "model.keras"
    code, _ = run(capsys, "import-caffe", "--prototxt", PROTOTXT, "--caffemodel", CAFFEMODEL,
                  "--out", out, "--set", "model.fc7=aligned")
    assert code == 0
    model = keras.models.load_model(out, compile=False)
    assert (model.config.fc7, model.config.widths) == ("aligned", (4, 8, 16, 32, 32))
    assert model.rates[-1] == 32


def test_solver_alone(capsys, tmp_path):
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER)
    code, text = run(capsys, "import-caffe", "--solver", solver)
    assert code == 0
    assert yaml.safe_load(text)["training"]["solver"]["lr_policy"] == "fixed"


def test_export_dry_run_writes_nothing(capsys, tmp_path):
    out = tmp_path / "model.keras"
    run(capsys, "import-caffe", "--caffemodel", CAFFEMODEL, "--out", out)
    code, text = run(capsys, "export-caffe", "--model", out, "--out", tmp_path / "x", "--dry-run")
    assert code == 0
    assert "rand_concat" in text
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "needs --caffemodel"),
        (("--caffemodel", CAFFEMODEL), 2, "needs --out"),
        (("--caffemodel", CAFFEMODEL, "--out", "model.h5"), 2, "ends with .keras"),
        (("--caffemodel", "no_such_file", "--dry-run"), 4, "no_such_file"),
        (("--caffemodel", GOLDEN, "--dry-run"), 4, "directory"),
        (("--caffemodel", CAFFEMODEL, "--prototxt", CAFFEMODEL, "--dry-run"), 4, "narrow_init"),
        (("--caffemodel", CAFFEMODEL, "--set", "model.fc_width=32", "--dry-run"), 4, "fc6_conv"),
    ],
)
def test_usage_and_missing_files(arguments, code, message, capsys):
    found, text = run(capsys, "import-caffe", *arguments)
    assert (found, message in text) == (code, True), text


def test_a_model_without_its_configuration_is_not_exported(capsys, tmp_path):
    """Nobody could say what to feed it."""
    out = tmp_path / "model.keras"
    run(capsys, "import-caffe", "--caffemodel", CAFFEMODEL, "--out", out)
    (tmp_path / "model.config.yaml").unlink()
    code, text = run(capsys, "export-caffe", "--model", out, "--out", tmp_path / "x")
    assert (code, "model.config.yaml" in text) == (4, True), text
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("model", ["no_such_run", ".", "broken.keras"])
def test_export_of_no_model(model, capsys, tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"not a zip file")
    code, text = run(capsys, "export-caffe", "--model", tmp_path / model, "--out", tmp_path / "x")
    assert code == 4
    assert model.strip(".") in text
    assert not (tmp_path / "x").exists()


BROKEN = {
    "empty": b"",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "git_lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 553432081\n",
    "random": np.random.default_rng(0).bytes(5000),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_caffemodel(kind, capsys, tmp_path):
    path = tmp_path / "model.caffemodel"
    path.write_bytes(BROKEN[kind])
    code, text = run(capsys, "import-caffe", "--prototxt", PROTOTXT, "--caffemodel", path,
                     "--dry-run")
    assert code == 4
    assert "model.caffemodel" in text


def test_caffemodel_truncated_anywhere(capsys, tmp_path):
    whole = CAFFEMODEL.read_bytes()
    path = tmp_path / "model.caffemodel"
    rng = np.random.default_rng(1)
    for length in sorted(rng.choice(len(whole), 40, replace=False)):
        path.write_bytes(whole[:length])
        code, text = run(capsys, "import-caffe", "--prototxt", PROTOTXT, "--caffemodel", path,
                         "--dry-run")
        assert code == 4, (length, text)


def test_caffemodel_with_flipped_bytes(capsys, tmp_path):
    whole = CAFFEMODEL.read_bytes()
    path = tmp_path / "model.caffemodel"
    rng = np.random.default_rng(2)
    codes = set()
    for _ in range(15):
        damaged = bytearray(whole)
        for at in rng.integers(0, 3000, 5):  # descriptions and the first weights
            damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(damaged))
        code, text = run(capsys, "import-caffe", "--caffemodel", path, "--dry-run")
        assert code in (0, 4), text  # 0: the flip changed a weight to another number
        codes.add(code)
    assert 4 in codes


def test_nan_weights_are_refused_unless_allowed(capsys, tmp_path):
    network = read_network(PROTOTXT, CAFFEMODEL)
    layers = []
    for layer in network.layers:
        if layer.name == "conv2_1":
            blobs = (layer.blobs[0].copy(), layer.blobs[1])
            blobs[0][1, 2, 0, 0] = np.nan
            layer = dataclasses.replace(layer, blobs=blobs)
        layers.append(layer)
    path = tmp_path / "nan.caffemodel"
    write_caffemodel(path, dataclasses.replace(network, layers=tuple(layers)))
    arguments = ("import-caffe", "--caffemodel", path, "--dry-run")
    code, text = run(capsys, *arguments)
    assert code == 4
    assert "conv2_1" in text
    assert run(capsys, *arguments, "--allow-nan")[0] == 0


def test_prototxt_with_a_syntax_error_names_line_and_column(capsys, tmp_path):
    path = tmp_path / "broken.prototxt"
    path.write_text('name: "x"\nlayer {\n  name: "a" type: }\n')
    code, text = run(capsys, *parity("--golden", "x.npz", prototxt=path))
    assert code == 4
    assert f"{path}:3:" in text


def test_unsupported_layer(capsys, golden, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(PROTOTXT.read_text().replace('type: "Softmax"', 'type: "Permute"'))
    code, text = run(capsys, *parity("--golden", golden, prototxt=path))
    assert code == 4
    assert "type Permute, line" in text
    assert "supported types:" in text
