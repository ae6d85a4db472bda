"""The project's model out to Caffe's files and back."""

from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.export import export_caffe
from pixelnet_tf.caffe.import_pixelnet import import_pixelnet
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.caffe.snapshot import save_snapshot
from pixelnet_tf.config import Config, ModelConfig, StudyConfig
from pixelnet_tf.errors import ModelError, RunError
from pixelnet_tf.model.pixelnet import PixelNet

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = {"widths": (2, 2, 3, 3, 4), "fc_width": 5, "head_widths": (6, 7)}
FORMS = {
    "faithful": ModelConfig(**SMALL),
    "aligned": ModelConfig(**SMALL, fc7="aligned", border=20),
    "without_fc7": ModelConfig(**SMALL, fc7="none", dropout=0.0),
    "linear": ModelConfig(**SMALL, head="linear", batch_norm=True),
    "batch_norm_mlp": ModelConfig(**SMALL, batch_norm=True, fc7="none"),
}


def export(model, folder):
    """Write a model's files, with a study of as many channels and classes; returns the network's
    two."""
    study = StudyConfig(modalities=tuple(f"channel{k}" for k in range(model.channels)),
                        labels={k: f"class{k}" for k in range(model.classes)}, regions={})
    return export_caffe(model, Config(study=study), np.zeros(model.classes), folder)[:2]


def test_a_network_that_reads_several_slices_has_no_counterpart(tmp_path):
    model = PixelNet(ModelConfig(**SMALL, fc7="none", context_slices=3), channels=2, classes=3)
    with pytest.raises(ModelError, match="context_slices is 3, and the original's networks read"):
        export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_of_several_planes_has_no_counterpart(tmp_path):
    model = PixelNet(ModelConfig(**SMALL, fc7="none", planes=("axial", "coronal")), 2, 3)
    with pytest.raises(ModelError, match=r"model\.planes is \['axial', 'coronal'\], whose scores"):
        export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_layer_that_mixes_modalities_becomes_part_of_the_first_kernel(tmp_path, randomise):
    model = PixelNet(ModelConfig(**SMALL, fc7="none", border=20, mix_channels=True), channels=5,
                     classes=3, seed=1)
    randomise(model)
    again, table = import_pixelnet(*export(model, tmp_path), border=20)
    assert {row.status for row in table.rows} == {"matched"}
    assert again.channels == 5
    assert not again.config.mix_channels
    image = np.random.default_rng(0).normal(size=(1, 32, 33, 5)).astype(np.float32)
    pixels = np.float32([[0, 0, 0], [0, 20, 7], [0, 31, 32]])
    scores = model([image, pixels]).numpy()
    np.testing.assert_allclose(again([image, pixels]), scores, rtol=0,
                               atol=1e-5 * np.abs(scores).max())
    with pytest.raises(ModelError, match=r"with model\.mix_channels has no snapshot"):
        save_snapshot(model, {}, 1, 0, tmp_path, "binaryproto")


@pytest.mark.parametrize("form", FORMS)
def test_round_trip_is_identical_and_the_network_gives_the_same_scores(form, tmp_path, randomise):
    model = PixelNet(FORMS[form], channels=4, classes=3, seed=1)
    randomise(model)
    prototxt, caffemodel = export(model, tmp_path / "first")
    again, table = import_pixelnet(prototxt, caffemodel, border=model.config.border)
    assert {row.status for row in table.rows} == {"matched"}
    weights = [layer for layer in model.parts.values() if layer.weights]
    assert len(table.rows) == len(weights)
    for layer in weights:
        for mine, theirs in zip(layer.weights, again.parts[layer.name].weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    second = export(again, tmp_path / "second")
    assert second[0].read_bytes() == prototxt.read_bytes()
    assert second[1].read_bytes() == caffemodel.read_bytes()

    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 48, 32, 4)).astype(np.float32)
    pixels = np.float32([[0, 0, 0], [1, 20, 7], [1, 30, 10.5]])
    border = model.config.border
    network = build_model(read_network(prototxt, caffemodel), blobs=["fc8_new", "f_score"])
    found = network.run_caffe({
        "data": np.pad(image, ((0, 0), (border,) * 2, (border,) * 2, (0, 0))).transpose(0, 3, 1, 2),
        "pixels": pixels + np.float32([0, border, border]),
    })
    scores = model([image, pixels], training=False).numpy()
    np.testing.assert_allclose(found["fc8_new"], scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["f_score"].sum(1), 1, rtol=1e-5)


def test_the_prototxt_says_what_to_feed(tmp_path):
    prototxt, _ = export(PixelNet(FORMS["faithful"], 4, 3, seed=1), tmp_path)
    text = prototxt.read_text()
    assert "data: (batch, 4, height + 200, width + 200)" in text
    assert "rows of n, y + 100, x + 100" in text
    network = read_network(prototxt)
    assert network.inputs[0].shape == (1, 4, 424, 424)
    specs = network.layer("conv1_1").param_specs
    assert [(s.lr_mult, s.decay_mult) for s in specs] == [(1, 1), (2, 0)]
    assert network.layer("fc6_conv").param_specs == ()
    assert not list(tmp_path.glob("*.tmp"))


def test_a_model_without_border_says_so(tmp_path):
    config = ModelConfig(**SMALL, fc7="none", border=0)
    prototxt, _ = export(PixelNet(config, 3, 2, seed=1), tmp_path)
    assert "This model has no border" in prototxt.read_text()


def test_layers_of_the_export_are_those_of_the_original(tmp_path):
    model, _ = import_pixelnet(GOLDEN / "narrow_deploy.prototxt", GOLDEN / "narrow_init.caffemodel")
    prototxt, _ = export(model, tmp_path)

    def layers(path):
        return [(one.name, one.type, one.bottoms, one.tops, one.params)
                for one in read_network(path).layers if one.type not in ("Input", "Dropout")
                and "weight_filler" not in str(one.params)]

    assert layers(prototxt) == layers(GOLDEN / "narrow_deploy.prototxt")
    rows = [(one.name, one.type, one.bottoms, one.tops) for one in read_network(prototxt).layers]
    original = [(one.name, one.type, one.bottoms, one.tops)
                for one in read_network(GOLDEN / "narrow_deploy.prototxt").layers]
    assert [r for r in rows if r[1] != "Input"] == [r for r in original if r[1] != "Input"]


def test_a_disk_that_takes_nothing_is_no_fault_of_the_model(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written: ") as caught:
        export(PixelNet(FORMS["without_fc7"], channels=4, classes=3, seed=1),
               tmp_path / "file" / "out")
    assert caught.value.file == str(tmp_path / "file" / "out" / "deploy.prototxt")
