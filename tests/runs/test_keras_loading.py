"""A model's file is read by Keras alone, once the room of its classes was imported."""

import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from pixelnet_tf.config import ModelConfig
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.network import load_model
from pixelnet_tf.training.solver import CaffePolicy, CaffeSGD

READ = """
import sys
import keras
import pixelnet_tf.{room}
model = keras.saving.load_model(sys.argv[1])
print(type(model).__name__, type(model.optimizer).__name__ if model.compiled else None)
"""


def read_elsewhere(path, room: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", READ.format(room=room), str(path)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_a_run_of_this_project(tmp_path):
    config = ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(2,), batch_norm=True)
    PixelNet(config, 2, 3, seed=0).save(tmp_path / "model.keras")
    assert read_elsewhere(tmp_path / "model.keras", "model") == ["PixelNet", "None"]


def test_a_model_compiled_with_caffes_solver(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(CaffeSGD(CaffePolicy(0.1, "exp", gamma=0.5)), "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    assert read_elsewhere(tmp_path / "model.keras", "training") == ["Sequential", "CaffeSGD"]


def narrow(**fields) -> PixelNet:
    return PixelNet(ModelConfig(widths=(1,) * 5, fc_width=1, head_widths=(2,), fc7="none",
                                **fields), 2, 3, seed=0)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = narrow()
    bias = model.parts["conv3_2"].bias
    bias.assign(bias * np.nan)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="weights of conv3_2/bias are not finite"):
        load_model(str(tmp_path / "model.keras"))


def test_a_file_that_lacks_weights_is_refused(tmp_path):
    """The description speaks of layers that the arrays do not have."""
    narrow().save(tmp_path / "small.keras")
    narrow(batch_norm=True).save(tmp_path / "large.keras")
    with (zipfile.ZipFile(tmp_path / "small.keras") as small,
          zipfile.ZipFile(tmp_path / "large.keras") as large,
          zipfile.ZipFile(tmp_path / "mixed.keras", "w") as mixed):
        for name in small.namelist():
            source = large if name == "config.json" else small
            mixed.writestr(name, source.read(name))
    with pytest.raises(ModelError, match="cannot be loaded as a model of this project"):
        load_model(str(tmp_path / "mixed.keras"))
