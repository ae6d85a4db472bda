"""What a training says that it will take, before it begins."""

from dataclasses import replace

import pytest

from pixelnet_tf.config import load_config
from pixelnet_tf.model.architecture import Architecture
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.training import needs
from tests.main_job import TINY, run_main

CONFIG = load_config("phantom", ["model.widths=[3, 4, 4, 5, 5]", "model.head_widths=[8]"])
NETWORK = Architecture.of(CONFIG.model, 4)


@pytest.fixture(autouse=True)
def fixed_speed(monkeypatch):
    monkeypatch.setattr(needs, "_products_a_second", lambda precision: 1e9)


def of(training=CONFIG.training, sampling=CONFIG.sampling, side=64):
    return needs.needs_of(NETWORK, training, sampling, 3, side, side)


def test_the_weights_are_counted():
    model = PixelNet(CONFIG.model, 3, 4, seed=0)
    assert of().parameters == model.count_params()
    assert Architecture.of(load_config("brats2017").model, 4).parameters(3) == 173_868_868


def test_the_work_of_a_slice_by_hand():
    # No border: 64x64 cells, then a quarter of them after each block; 1000 pixels in the head.
    bare = Architecture.of(replace(CONFIG.model, border=0), 4)
    blocks = [(9 * (3 * 3 + 3 * 3)), 9 * (3 * 4 + 4 * 4), 9 * (4 * 4 * 3),
              9 * (4 * 5 + 5 * 5 * 2), 9 * (5 * 5 * 3)]
    wanted = sum(4096 / 4**place * work for place, work in enumerate(blocks))
    wanted += 1000 * ((3 + 4 + 4 + 5 + 5) * 8 + 8 * 4)
    assert bare.slice_work(3, 64, 64, 1000) == wanted
    numbers = sum(4096 / 4**place * n for place, n in enumerate((6, 8, 12, 15, 15)))
    assert bare.slice_numbers(64, 64, 1000) == numbers + 1000 * (21 + 12)


def test_more_takes_more():
    training, sampling = CONFIG.training, CONFIG.sampling
    twice = of(replace(training, batch_slices=8))
    assert twice.step_seconds == pytest.approx(2 * of().step_seconds)
    assert twice.memory_bytes > of().memory_bytes
    assert of(side=128).step_seconds > of().step_seconds
    every = replace(sampling, strategy="all", lattice=1)
    assert of(sampling=every).step_seconds > of().step_seconds
    hard = of(sampling=replace(sampling, hard_pixels=1.0))
    assert of().step_seconds < hard.step_seconds < 2 * of().step_seconds
    assert hard.memory_bytes > of().memory_bytes
    adam = replace(training, solver=replace(training.solver, type="adamw"))
    assert of(adam).memory_bytes == of().memory_bytes + 4 * of().parameters


def test_slices_beside_a_slab_pass_the_trunk_too():
    wide = Architecture.of(replace(CONFIG.model, context_slices=3), 4)
    one, three = (network.slice_work(3, 64, 64, 0) for network in (NETWORK, wide))
    assert one == three
    # A first layer of 21 numbers and 8 units for each of two more slices.
    assert wide.slice_work(3, 64, 64, 10) - three == pytest.approx(
        NETWORK.slice_work(3, 64, 64, 10) - one + 10 * 2 * 21 * 8)
    training = replace(CONFIG.training, batch_slices=4)
    slabs = [needs.needs_of(wide, training, replace(CONFIG.sampling, slab_slices=slab, pixels=1),
                            3, 64, 64).step_seconds for slab in (1, 4)]
    # Three passes a slice, or six for four of them.
    assert slabs[0] / slabs[1] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(("seconds", "words"), [(4.2, "4 s"), (600, "10 minutes"),
                                                (36_000, "10 hours"), (864_000, "10 days")])
def test_the_time_in_words(seconds, words):
    line = needs.Needs(15_700_000, "CPU", 2.5e9, seconds / 100).line(100)
    assert line.startswith(f"15.7 million weights on the CPU, about 2.5 GB of memory and {words} (")


def test_train_says_it_before_it_begins(main_job, tmp_path, capsys):
    assert run_main("train", "--config", "phantom", *TINY, "--data", main_job / "prepared",
                    "--out", tmp_path / "run", "--dry-run") == 0
    assert "million weights on the CPU, about" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["train", "experiment"])
def test_a_configuration_that_names_no_network_is_refused_with_the_next_step(verb, main_job,
                                                                            tmp_path, capsys):
    """Not 174 million random weights and 80 epochs without a word."""
    (tmp_path / "mine.yaml").write_text("study: {name: clinic}\n")
    more = ["--references", main_job / "study"] if verb == "experiment" else []
    call = [verb, "--data", main_job / "prepared", "--out", tmp_path / "out", *more]
    assert run_main(*call, "--config", tmp_path / "mine.yaml") == 2
    said = capsys.readouterr().err
    assert "174 million weights" in said
    assert f"pixelnet-tf plan STUDY --config {tmp_path / 'mine.yaml'} --out mine.yaml" in said
    assert run_main(*call) == 2
    assert not (tmp_path / "out").exists()
    if verb == "train":
        # Whoever means them says so.
        assert run_main(*call, "--set", "model.widths=[3, 4, 4, 5, 5]", "--set",
                        "model.fc7=none", "--dry-run") == 0
