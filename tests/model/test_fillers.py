import keras
import numpy as np
import pytest

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model import fillers
from pixelnet_tf.model.fillers import CaffeFiller
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.keras_file import load_model


def test_constant():
    assert CaffeFiller("constant", value=0.25)((2, 3)).numpy().tolist() == [[0.25] * 3] * 2


def test_uniform_range_and_mean():
    values = CaffeFiller("uniform", min=-1, max=3, seed=1)((100, 100)).numpy()
    assert -1 <= values.min() < -0.99
    assert 2.99 < values.max() < 3
    assert abs(values.mean() - 1) < 0.05


def test_gaussian_moments():
    values = CaffeFiller("gaussian", mean=2, std=0.5, seed=2)((100, 100)).numpy()
    assert abs(values.mean() - 2) < 0.02
    assert abs(values.std() - 0.5) < 0.02
    assert np.abs(values - 2).max() > 1.25  # not truncated, unlike Keras' default


def test_sparse_gaussian_keeps_that_many_inputs_of_an_output():
    values = CaffeFiller("gaussian", sparse=10, seed=3)((400, 50)).numpy()
    assert abs((values != 0).mean() - 10 / 50) < 0.02


@pytest.mark.parametrize(("norm", "fan"), [("FAN_IN", 36), ("FAN_OUT", 72), ("AVERAGE", 54)])
def test_xavier_and_msra_fans(norm, fan):
    # Caffe's blob is (8, 4, 3, 3): fan in 4*3*3, fan out 8*3*3.
    shape = (3, 3, 4, 8)
    xavier = CaffeFiller("xavier", variance_norm=norm, seed=4)(shape).numpy()
    assert np.abs(xavier).max() <= np.sqrt(3 / fan)
    assert np.abs(xavier).max() > 0.95 * np.sqrt(3 / fan)
    msra = CaffeFiller("msra", variance_norm=norm, seed=5)((3, 3, 40, 80)).numpy()
    assert msra.std() == pytest.approx(np.sqrt(2 / (10 * fan)), rel=0.02)


def test_positive_unitball_sums_to_one_for_each_output():
    values = CaffeFiller("positive_unitball", seed=6)((3, 3, 2, 5)).numpy()
    assert values.min() >= 0
    np.testing.assert_allclose(values.sum(axis=(0, 1, 2)), np.ones(5), rtol=1e-5)


def test_bilinear_by_hand():
    line = [0.25, 0.75, 0.75, 0.25]  # kernel 4: factor 2, centre 0.75
    values = CaffeFiller("bilinear")((4, 4, 1, 2)).numpy()
    np.testing.assert_allclose(values[:, :, 0, 1], np.outer(line, line))
    odd = CaffeFiller("bilinear")((3, 3, 1, 1)).numpy()[:, :, 0, 0]  # factor 2, centre 0.5
    np.testing.assert_allclose(odd, np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]))
    with pytest.raises(ModelError, match="square"):
        CaffeFiller("bilinear")((3, 4, 1, 1))


@pytest.mark.parametrize("type", ["gaussian", "xavier", "msra", "uniform", "positive_unitball"])
def test_seed_and_serialisation(type):
    filler = CaffeFiller(type, seed=7, std=0.1)
    again = keras.initializers.deserialize(keras.initializers.serialize(filler))
    np.testing.assert_array_equal(filler((4, 5)), again((4, 5)))
    assert not np.array_equal(filler((4, 5)), CaffeFiller(type, seed=8, std=0.1)((4, 5)))
    assert not np.array_equal(CaffeFiller(type)((4, 5)), CaffeFiller(type)((4, 5)))


def test_unknown_names():
    with pytest.raises(ModelError, match="must be one of"):
        CaffeFiller("he")
    with pytest.raises(ModelError, match="must be one of"):
        CaffeFiller("xavier", variance_norm="FAN")


def test_a_large_kernel_is_drawn_in_parts(monkeypatch):
    monkeypatch.setattr(fillers, "_PART", 300)
    values = CaffeFiller("gaussian", std=2, seed=9)((3, 4, 25, 20)).numpy()
    assert values.std() == pytest.approx(2, rel=0.02)
    # Twenty parts of fifteen rows, none of them like another.
    assert len(np.unique(values)) == values.size
    monkeypatch.undo()
    whole = CaffeFiller("gaussian", std=2, seed=9)((3, 4, 25, 20)).numpy()
    np.testing.assert_array_equal(values.reshape(-1, 20)[:15], whole.reshape(-1, 20)[:15])


def test_building_and_loading_without_drawing(monkeypatch, tmp_path):
    config = ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(2,))
    saved = PixelNet(config, 2, 3, seed=0)
    saved.save(tmp_path / "model.keras")

    def refuse(*args, **kwargs):
        raise AssertionError("a kernel was drawn")

    monkeypatch.setattr(CaffeFiller, "__call__", refuse)
    with pytest.raises(AssertionError, match="was drawn"):
        PixelNet(config, 2, 3)
    made = PixelNet(config, 2, 3, draw=False)
    loaded = load_model(str(tmp_path / "model.keras"))
    assert [w.shape for w in made.weights] == [w.shape for w in saved.weights]
    assert loaded.get_config() == saved.get_config() == made.get_config() | {"name": saved.name}
    for ours, theirs in zip(loaded.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
