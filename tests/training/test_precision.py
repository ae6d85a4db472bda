"""`precision: auto`: chosen by the hardware and the network's width when a run begins, and kept."""

from dataclasses import replace

import pytest

from pixelnet_tf.api.segmenter import adapted
from pixelnet_tf.config import Config, ModelConfig, Precision, load_config
from pixelnet_tf.io.processor import bfloat16_instructions
from pixelnet_tf.model import precision
from pixelnet_tf.training import loop
from pixelnet_tf.training.loop import Trainer


@pytest.mark.parametrize(("flags", "found"), [
    ("fpu avx2 avx512f", ""), ("avx512_bf16 avx2", "avx512_bf16"),
    ("avx512_bf16 amx_bf16 amx_tile", "amx_bf16"),
])
def test_the_processors_flags_say_whether_it_multiplies_bfloat16(flags, found):
    assert bfloat16_instructions(flags) == found


def test_wide_networks_on_hardware_that_multiplies_it_take_bfloat16(monkeypatch):
    narrow = ModelConfig(widths=(16, 32, 64, 64, 64))
    for by, wide in (("amx_bf16", "bfloat16"), ("", "float32")):
        monkeypatch.setattr(precision, "bfloat16_by", lambda by=by: by)
        assert precision.auto_precision(ModelConfig()) == wide
        assert precision.auto_precision(narrow) == "float32"


def test_every_gpu_has_to_multiply_it(monkeypatch):
    cards = {"old": (7, 5), "new": (8, 6)}
    experimental = precision.tf.config.experimental
    monkeypatch.setattr(experimental, "get_device_details",
                        lambda name: {"compute_capability": cards[name], "device_name": name})
    for there, found in ((["new", "new"], "new"), (["new", "old"], "")):
        monkeypatch.setattr(precision.tf.config, "list_physical_devices", lambda kind, t=there: t)
        assert precision.bfloat16_by() == found


def test_a_run_keeps_what_was_chosen_when_it_began(tiny_study, tiny_config, tmp_path, monkeypatch):
    """On a machine that multiplies bfloat16, then on one that does not."""
    split = replace(tiny_study.split, validation=())
    assert tiny_config.training.precision == Precision.AUTO
    monkeypatch.setattr(loop, "auto_precision", lambda model: Precision.BFLOAT16)
    Trainer(tiny_config, tiny_study, split, str(tmp_path / "run")).run()
    monkeypatch.setattr(loop, "auto_precision", lambda model: Precision.FLOAT32)
    again = Trainer(tiny_config, tiny_study, split, str(tmp_path / "run"))
    again.check(resume=True)
    stored = again.run_folder.config()
    assert (stored.training.precision, stored.prediction.precision) == ("bfloat16", "bfloat16")
    # predict, too, where it is given another configuration or is asked for auto.
    for given, asked, found in ((tiny_config, (), "bfloat16"),
                                (None, ("prediction.precision=auto",), "bfloat16"),
                                (None, ("prediction.precision=float32",), "float32")):
        assert adapted(stored, given, asked).prediction.precision == found


def test_what_computes_as_caffe_stays_float32_and_the_rest_is_auto():
    assert Config().training.precision == Config().prediction.precision == "auto"
    for name, expected in (("brats2017", "float32"), ("isles2017", "float32"), ("lgg", "auto"),
                           ("phantom", "auto")):
        config = load_config(name)
        assert (config.training.precision, config.prediction.precision) == (expected, expected)
