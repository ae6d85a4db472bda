"""Start weights from Keras' own file of VGG-16, without a network."""

import h5py
import numpy as np
import pytest

from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training.initial import initialise
from tests.main_job import TINY, run_main

WIDTHS = (3, 4, 4, 5, 5)
BLOCKS = (2, 2, 3, 3, 3)


def write_vgg(path, widths=WIDTHS, lacks=""):
    """A file as Keras writes it, `block1_conv1/block1_conv1_W_1:0` and so on; returns arrays."""
    random, before, arrays = np.random.default_rng(0), 3, {}
    with h5py.File(path, "w") as file:
        for block, (count, width) in enumerate(zip(BLOCKS, widths, strict=True), start=1):
            file.create_group(f"block{block}_pool")
            for number in range(1, count + 1):
                name = f"block{block}_conv{number}"
                kernel = random.normal(size=(3, 3, before, width)).astype(np.float32)
                bias = random.normal(size=width).astype(np.float32)
                arrays[f"conv{block}_{number}"] = kernel, bias
                if name != lacks:
                    file[f"{name}/{name}_W_1:0"], file[f"{name}/{name}_b_1:0"] = kernel, bias
                before = width
    return arrays


def test_keras_file_gives_the_thirteen_convolutions(tiny_config, tmp_path):
    path = tmp_path / "vgg16_notop.h5"
    arrays = write_vgg(path, (4, 4, 8, 8, 8))
    # Two channels: each has the mean of the file's three, and the same response to equal ones.
    model = PixelNet(tiny_config.model, 2, 4, seed=0)
    start = initialise(model, str(path))
    assert start.lines == (f"start weights: {path} (13 convolutions)",)
    assert "cls_score_new" in start.new_layers
    assert not {*arrays} & start.new_layers
    for name, (kernel, bias) in arrays.items():
        mine = model.parts[name].get_weights()
        if name == "conv1_1":
            kernel = np.repeat(kernel.mean(axis=2, keepdims=True) * 1.5, 2, axis=2)
        np.testing.assert_allclose(mine[0], kernel, rtol=1e-6)
        np.testing.assert_array_equal(mine[1], bias)


@pytest.mark.parametrize(("rule", "places", "scale"), [
    ("average", None, 0.6), ("repeat", [0, 1, 2, 0, 1], 0.6), ("keep", [0, 1, 2], 1.0)])
def test_what_kernels_of_three_channels_become_of_five(tiny_config, tmp_path, rule, places, scale):
    path = tmp_path / "vgg.h5"
    kernel, _ = write_vgg(path, (4, 4, 8, 8, 8))["conv1_1"]
    model = PixelNet(tiny_config.model, 5, 4, seed=0)
    initialise(model, str(path), extra_channels=rule)
    mine = model.parts["conv1_1"].kernel.numpy()
    theirs = kernel[:, :, places] if places else kernel.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(mine, np.broadcast_to(theirs * scale, mine.shape) if not places
                               else np.pad(theirs * scale, [(0, 0), (0, 0), (0, 5 - len(places)),
                                                            (0, 0)]), rtol=1e-6)


def test_a_file_that_does_not_fit_is_named(tiny_config, tmp_path):
    path, model = tmp_path / "vgg.h5", PixelNet(tiny_config.model, 3, 4, seed=0)
    write_vgg(path)
    with pytest.raises(ModelError, match=r"vgg.h5: conv1_1 has the shape \(3, 3, 3, 3\), the mod"):
        initialise(model, str(path))
    write_vgg(path, (4, 4, 8, 8, 8), lacks="block3_conv2")
    with pytest.raises(ModelError, match=r"vgg.h5: has no kernel and bias of block3_conv2"):
        initialise(model, str(path))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ModelError, match=r"vgg\.h5"):
        initialise(model, str(path))


def test_the_option(main_job, tmp_path, capsys):
    path = tmp_path / "vgg.h5"
    write_vgg(path)
    arguments = ("train", "--config", "phantom", *TINY, "--data", main_job / "prepared", "--out",
                 tmp_path / "run", "--dry-run", "--weights")
    assert run_main(*arguments, path) == 0
    assert run_main(*arguments, tmp_path / "none.h5") == 4
    assert "none.h5' does not exist" in capsys.readouterr().err
    assert run_main(*arguments, path, "--snapshot", path) == 2
