"""N4: takes a known field out, on a coarse grid nearly as on the full one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import SimpleITK as sitk

from pixelnet_tf.config import BiasFieldConfig
from pixelnet_tf.volumes.bias_field import correct_bias_field, shrink_factors
from pixelnet_tf.volumes.itk_threads import threads_of_itk


@pytest.fixture(scope="module")
def phantom():
    """Two tissues in a ball (48, 48, 24), under a smooth field."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 48, 24)), indexing="ij"))
    radius = np.sqrt((grid ** 2).sum(0))
    rng = np.random.default_rng(0)
    mask = radius < 0.85
    tissue = np.where(np.sin(9 * grid[0]) * np.sin(8 * grid[1]) > 0, 100, 150)
    clean = np.where(mask, tissue + rng.normal(0, 3, radius.shape), 0).astype(np.float32)
    field = np.exp(0.35 * grid[0] + 0.25 * grid[1] * grid[2])
    return (clean * field).astype(np.float32), mask, tissue


def spread(array, mask, tissue):
    return max(array[mask & (tissue == value)].std() / array[mask & (tissue == value)].mean()
               for value in (100, 150))


def corrected(array, mask, factor, iterations=(20, 20)):
    return correct_bias_field(array, (1.0, 1.0, 2.0), mask,
                              BiasFieldConfig(shrink_factor=factor, iterations=iterations))


def test_a_known_field_is_taken_out(phantom):
    biased, mask, tissue = phantom
    result = corrected(biased, mask, 2)
    assert result.dtype == np.float32
    assert not result[~mask].any()
    assert spread(biased, mask, tissue) > 0.12
    assert spread(result, mask, tissue) < 0.05
    # Mean of the logarithms: the field has no scale of its own.
    assert np.log(result[mask]).mean() == pytest.approx(np.log(biased[mask]).mean(), abs=1e-4)


def test_the_coarse_grid_is_near_the_full_one(phantom):
    biased, mask, _ = phantom
    full, coarse = (corrected(biased, mask, factor) for factor in (1, 2))
    assert np.abs(coarse[mask] / full[mask] - 1).mean() < 0.01


def test_the_same_input_gives_the_same_bits_on_any_number_of_cores(phantom):
    biased, mask, _ = phantom
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        # ITK's setting, which is the number of the machine's cores.
        for cores in (1, 2, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(cores)
            found.append(corrected(biased, mask, 2, (4, 4)))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == cores
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert len({result.tobytes() for result in found}) == 1


def test_side_by_side_in_threads_it_gives_the_same_bits(phantom):
    biased, mask, _ = phantom
    volumes = [biased, biased[::-1].copy()]
    alone = [corrected(volume, mask, 2, (4, 4)).tobytes() for volume in volumes]
    with ThreadPoolExecutor(2) as pool:
        beside = pool.map(lambda volume: corrected(volume, mask, 2, (4, 4)).tobytes(), volumes)
        assert list(beside) == alone


def test_one_who_needs_another_number_of_threads_waits():
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    heard, asked = [], threading.Event()

    def other():
        asked.set()
        with threads_of_itk(1):
            heard.append(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())

    thread = threading.Thread(target=other)
    with threads_of_itk(3):
        with threads_of_itk(3):
            thread.start()
            assert asked.wait(60)
        # Whoever came first is still at work.
        heard.append(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
    thread.join(60)
    assert heard == [3, 1]
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


def test_the_last_digit_of_a_header_changes_no_bit(phantom):
    biased, mask, _ = phantom
    settings = BiasFieldConfig(shrink_factor=3, iterations=(20, 20, 20))
    # As two files of one scan state it; the half of the slices' factor is a tie.
    wanted, found = (correct_bias_field(biased, sides, mask, settings) for sides in (
        (2.0, 2.0, 4.0), (1.999999977, 2.000000072, 3.9999999438)))
    np.testing.assert_array_equal(found, wanted)


def test_voxels_that_are_not_positive_do_not_matter(phantom):
    biased, mask, _ = phantom
    holed = biased.copy()
    holed[20:24, 20:24, 10:14] = -1
    result = corrected(holed, mask, 2)
    assert np.isfinite(result).all()
    assert (result[20:24, 20:24, 10:14] < 0).all()


def test_nothing_to_fit_leaves_the_image():
    array = np.zeros((20, 20, 20), np.float32)
    np.testing.assert_array_equal(corrected(array, np.ones_like(array, bool), 4), array)


def test_factors_even_out_the_voxels_and_keep_thin_stacks():
    assert shrink_factors((240, 240, 155), (1.0, 1.0, 1.0), 4) == [4, 4, 4]
    assert shrink_factors((256, 256, 24), (1.0, 1.0, 1.0), 4) == [4, 4, 1]
    assert shrink_factors((192, 192, 64), (1.0, 1.0, 2.0), 4) == [4, 4, 2]
    assert shrink_factors((128, 128, 20), (1.5, 1.5, 6.5), 4) == [4, 4, 1]
    assert shrink_factors((10, 10, 10), (1.0, 1.0, 1.0), 4) == [1, 1, 1]
    # Up to 256 voxels a side as the setting says, from there in proportion to the side.
    assert shrink_factors((256, 256, 256), (1.0, 1.0, 1.0), 3) == [3, 3, 3]
    assert shrink_factors((512, 512, 512), (0.5, 0.5, 0.5), 3) == [6, 6, 6]
    assert shrink_factors((512, 512, 400), (0.5, 0.5, 0.5), 3) == [6, 6, 6]
    assert shrink_factors((512, 512, 24), (0.45, 0.45, 5.0), 3) == [3, 3, 1]
    # 3 * 1 / 2 is a tie, whatever the last digit is.
    for last in (0.0, 1e-7, -1e-7):
        assert shrink_factors((96, 96, 64), (1.0, 1.0, 2.0 + last), 3) == [3, 3, 2]
