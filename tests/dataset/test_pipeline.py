"""Mini-batches: a function of seed and step alone."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from pixelnet_tf.config import SamplingConfig, load_config
from pixelnet_tf.dataset.encode import encode_slices
from pixelnet_tf.dataset.index import SliceIndex
from pixelnet_tf.dataset.pipeline import training_batches
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.dataset.shards import to_record
from pixelnet_tf.volumes.case_volume import PreparedVolume


def take(count, study, sampling, schedule=None, **options) -> list[dict[str, np.ndarray]]:
    schedule = schedule or SliceSchedule(study, study.index.cases, sampling, seed=3)
    options = {"batch_slices": 3, "seed": 5, **options}
    dataset = training_batches(study, schedule, sampling, **options)
    return list(dataset.take(count).as_numpy_iterator())


def assert_equal(one, other) -> None:
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.fixture(scope="module")
def study(small_prepared) -> PreparedStudy:
    return PreparedStudy.open(small_prepared)


def test_what_a_batch_holds(study):
    sampling = SamplingConfig(pixels=50)
    for batch in take(4, study, sampling):
        assert batch["image"].shape == (3, 28, 32, 3)
        assert batch["image"].dtype == batch["pixels"].dtype == np.float32
        assert batch["pixels"].shape == (150, 3)
        assert batch["pixels"][:, 0].tolist() == [0] * 50 + [1] * 50 + [2] * 50
        assert batch["classes"].shape == (150,)
        assert batch["classes"].dtype == np.int32
        assert batch["row"].shape == (3,)


def test_every_pixel_on_one_lattice_a_step(study):
    sampling = SamplingConfig(strategy="all", lattice=3, background_in_brain=True, flips=False)
    corners = set()
    for batch in take(6, study, sampling):
        pixels = batch["pixels"].astype(int)
        first = pixels[:, 1:].min(axis=0) % 3
        assert (pixels[:, 1:] % 3 == first).all()
        corners.add(tuple(first))
        for n, row in enumerate(batch["row"]):
            mine = pixels[pixels[:, 0] == n, 1:]
            volume = study.read_volume(study.index.cases[study.index.case[row]])
            number = study.index.slice[row]
            usable = volume.brain[number] | (volume.labels[number] > 0)
            wanted = np.argwhere(usable)
            wanted = wanted[(wanted % 3 == first).all(axis=1)]
            np.testing.assert_array_equal(mine, wanted)
            np.testing.assert_array_equal(batch["classes"][pixels[:, 0] == n],
                                          volume.labels[number][tuple(mine.T)])
    assert len(corners) > 1


def test_a_later_start_gives_the_later_batches(study):
    sampling = SamplingConfig(pixels=50, lesion_free_slices=0.4)
    whole = take(9, study, sampling)
    for one, other in itertools.zip_longest(whole[6:], take(3, study, sampling, first_batch=6)):
        assert_equal(one, other)
    other_seed = take(1, study, sampling, seed=6)[0]
    np.testing.assert_array_equal(other_seed["row"], whole[0]["row"])
    assert not np.array_equal(other_seed["pixels"], whole[0]["pixels"])


def test_rows_follow_the_schedule(study):
    sampling = SamplingConfig(pixels=50)
    schedule = SliceSchedule(study, study.cases, sampling, seed=3)
    rows = np.concatenate([batch["row"] for batch in take(5, study, sampling)])
    assert rows.tolist() == [schedule.row(i) for i in range(15)]


def test_flips_turn_image_and_labels_together(study):
    plain = take(8, study, SamplingConfig(pixels=100, flips=False))
    flipped = take(8, study, SamplingConfig(pixels=100, flips=True))
    turned = 0
    for before, after in zip(plain, flipped, strict=True):
        for n, row in enumerate(before["row"]):
            image, other = before["image"][n], after["image"][n]
            mirrored = np.array_equal(other, image[:, ::-1])
            assert mirrored or np.array_equal(other, image)
            turned += mirrored
            case = study.cases[study.index.case[row]]
            labels = study.read_volume(case).labels[study.index.slice[row]]
            mine = after["pixels"][:, 0] == n
            y, x = after["pixels"][mine, 1:].astype(int).T
            np.testing.assert_array_equal(
                (labels[:, ::-1] if mirrored else labels)[y, x], after["classes"][mine])
    # 24 fair coins: outside 3 to 21 once in 30,000 seeds, and this seed is fixed.
    assert 3 <= turned <= 21


def unequal_study() -> SimpleNamespace:
    """Two cases of one slice each, 20x12 and 10x16 pixels, full of brain and ones."""
    records, columns = [], []
    for height, width in ((20, 12), (10, 16)):
        labels = np.zeros((1, height, width), np.uint8)
        labels[0, :, :3] = 1
        volume = PreparedVolume("A", np.ones((1, height, width, 3), np.float32), labels,
                                np.ones((1, height, width), bool), None, None, {})
        encoded, = encode_slices(volume, 4)
        records.append(to_record(encoded))
        columns.append((encoded.class_counts, height, width))
    counts, heights, widths = (np.array(column) for column in zip(*columns, strict=True))
    zeros = np.zeros(2, np.int64)
    index = SliceIndex(("A", "B"), np.array([0, 1]), zeros, counts, np.ones(2, np.float32),
                       np.array(["a", "b"]), zeros, zeros, heights, widths)
    return SimpleNamespace(index=index, path="", config=load_config("phantom"),
                           read_record_bytes=lambda row: records[int(row)])


def test_slices_of_different_sizes_are_padded_below_and_to_the_right():
    batches = take(4, unequal_study(), SamplingConfig(pixels=30), batch_slices=2)
    for batch in batches:
        assert batch["image"].shape == (2, 20, 16, 3)
        for n, row in enumerate(batch["row"]):
            height, width = ((20, 12), (10, 16))[row]
            filled = batch["image"][n, :, :, 0] == 1
            assert filled[:height, :width].all()
            assert filled.sum() == height * width
            mine = batch["pixels"][batch["pixels"][:, 0] == n]
            assert (mine[:, 1] < height).all()
            assert (mine[:, 2] < width).all()


@pytest.mark.parametrize("strategy", ["balanced", "all"])
def test_a_slab_holds_what_its_drawn_slices_are_read_from_once(study, strategy):
    sampling = SamplingConfig(strategy, pixels=40, flips=False, slab_slices=3,
                              background_in_brain=True)
    schedule = SliceSchedule(study, study.cases, sampling, 3, (0, -1, 1))
    batches = take(6, study, sampling, schedule)
    for number, batch in enumerate(batches):
        rows = [schedule.row(3 * number + i) for i in range(3)]
        np.testing.assert_array_equal(batch["row"], rows)
        beside = study.index.beside(np.array(rows), (0, -1, 1))
        assert len(batch["image"]) == len(np.unique(beside))
        assert batch["neighbours"].shape == (3, 3)
        for row, place in zip(beside.ravel(), batch["neighbours"].ravel(), strict=True):
            volume = study.read_volume(study.cases[study.index.case[row]])
            np.testing.assert_array_equal(batch["image"][place],
                                          volume.images[study.index.slice[row]])
        for target, row in enumerate(rows):
            pixels = batch["pixels"][batch["pixels"][:, 0] == target].astype(int)
            assert len(pixels) == 40 or strategy == "all"
            volume = study.read_volume(study.cases[study.index.case[row]])
            np.testing.assert_array_equal(
                batch["classes"][batch["pixels"][:, 0] == target],
                volume.labels[study.index.slice[row]][tuple(pixels[:, 1:].T)])
        assert set(batch["pixels"][:, 0]) <= {0, 1, 2}
    assert min(len(batch["image"]) for batch in batches) <= 5
    for one, other in itertools.zip_longest(batches[4:], take(2, study, sampling, schedule,
                                                              first_batch=4)):
        assert_equal(one, other)


def test_the_slices_of_a_slab_are_varied_alike(study):
    """Mirrored all or none; noise has one strength, and each slice its own."""
    sampling = SamplingConfig(pixels=9, noise=0.5, slab_slices=2)
    schedule = SliceSchedule(study, study.cases, sampling, 3, (0, -1, 1))
    mirrored = set()
    for batch in take(8, study, sampling, schedule, batch_slices=2):
        rows = study.index.beside(batch["row"], (0, -1, 1))
        for case in set(study.index.case[batch["row"]]):
            volume = study.read_volume(study.cases[case])
            noise, turned = [], set()
            for row, place in {(row, place) for row, place in zip(
                    rows.ravel(), batch["neighbours"].ravel(), strict=True)
                    if study.index.case[row] == case}:
                found = batch["image"][place]
                own = volume.images[study.index.slice[row]]
                flips = [np.abs(found - own[:, ::step]).mean() for step in (1, -1)]
                turned.add(bool(np.argmin(flips)))
                noise.append((found - own[:, ::(1, -1)[int(np.argmin(flips))]])[found != 0])
            assert len(turned) == 1
            mirrored |= turned
            spread = [each.std() for each in noise if each.size > 300]
            assert not spread or np.ptp(spread) < 0.2 * max(spread)
            assert not any(np.array_equal(one, other)
                           for one, other in itertools.combinations(noise, 2) if one.size)
    assert mirrored == {True, False}


@pytest.mark.parametrize("offsets", [(0,), (0, -1, 1)])
def test_dropped_modalities_change_nothing_else(study, offsets):
    """In a slab, the slices beside the drawn ones lack the same."""
    plain, dropped = (SamplingConfig(pixels=20, modality_dropout=share) for share in (0.0, 1.0))
    schedule = SliceSchedule(study, study.index.cases, plain, seed=3, offsets=offsets)
    for one, other in zip(*(take(2, study, sampling, schedule) for sampling in (plain, dropped)),
                          strict=True):
        there = other["image"].any(axis=(1, 2))
        for mine, kept, image in zip(one["image"], there, other["image"], strict=True):
            np.testing.assert_array_equal(image, np.where(kept, mine, 0))
            if mine.any():
                assert 0 < kept.sum() < 3
        assert_equal({key: one[key] for key in one if key != "image"},
                     {key: other[key] for key in other if key != "image"})
