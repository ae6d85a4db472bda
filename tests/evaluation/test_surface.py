"""Surface distances against hand-worked masks, whole-volume distance transforms and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from pixelnet_tf.evaluation.surface import (
    SurfaceRule,
    _surface,
    hausdorff,
    surface_distances,
)

from .conftest import ball

ISLES = SurfaceRule(from_connectivity=18, to_connectivity=26, outside_is_foreground=True)


def _mask(shape, *voxels):
    mask = np.zeros(shape, bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def _random_blobs(rng, shape=(20, 18, 16)):
    """Smooth random shapes with holes and islands, bool."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.8, 2.5))
    return noise > np.quantile(noise, rng.uniform(0.7, 0.98))


def _whole_volume(reference, prediction, spacing, rule):
    """The definition, word for word, on the whole volume."""
    def border(mask, connectivity):
        element = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
        core = ndimage.binary_erosion(mask, element, border_value=int(rule.outside_is_foreground))
        return mask & ~core

    def directed(start, target):
        distance = ndimage.distance_transform_edt(~border(target, rule.to_connectivity),
                                                  sampling=spacing)
        return distance[border(start, rule.from_connectivity)]

    return directed(reference, prediction), directed(prediction, reference)


def test_two_voxels_three_and_four_apart():
    a, b = _mask((9, 9, 9), (2, 2, 2)), _mask((9, 9, 9), (5, 6, 2))
    distances = surface_distances(a, b, (1, 1, 1))
    assert distances.ref_to_pred_mm.tolist() == [5.0]
    assert distances.pred_to_ref_mm.tolist() == [5.0]


def test_anisotropic_spacing_is_applied_per_axis():
    a, b = _mask((9, 9, 9), (2, 2, 2)), _mask((9, 9, 9), (3, 2, 4))
    distances = surface_distances(a, b, (0.9, 0.9, 6.0))
    assert distances.ref_to_pred_mm[0] == pytest.approx(np.hypot(0.9, 12.0))


def test_nearest_voxel_depends_on_the_spacing():
    a = _mask((9, 9, 9), (4, 4, 4))
    b = _mask((9, 9, 9), (7, 4, 4), (4, 4, 5))
    assert surface_distances(a, b, (1, 1, 5)).ref_to_pred_mm[0] == 3.0
    assert surface_distances(a, b, (1, 1, 2)).ref_to_pred_mm[0] == 2.0


def test_directions_differ():
    a, b = _mask((12, 3, 3), (1, 1, 1)), _mask((12, 3, 3), (1, 1, 1), (9, 1, 1))
    distances = surface_distances(a, b, (1, 1, 1))
    assert distances.ref_to_pred_mm.tolist() == [0.0]
    assert sorted(distances.pred_to_ref_mm) == [0.0, 8.0]


def surface_of(mask, connectivity=6, outside_is_foreground=False):
    return _surface(np.pad(mask, 1, constant_values=outside_is_foreground), connectivity)


def test_surface_of_a_cube_by_connectivity():
    cube = np.zeros((7, 7, 7), bool)
    cube[1:6, 1:6, 1:6] = True
    assert surface_of(cube, 6).sum() == 125 - 27
    # A missing corner voxel lets 26 neighbours see the background from one voxel deeper.
    cube[1, 1, 1] = False
    assert surface_of(cube, 6)[2, 2, 2] == 0
    assert surface_of(cube, 18)[2, 2, 2] == 0
    assert surface_of(cube, 26)[2, 2, 2] == 1
    # A missing edge voxel is seen by 18 neighbours too.
    cube[1, 1, 3] = False
    assert surface_of(cube, 6)[2, 2, 3] == 0
    assert surface_of(cube, 18)[2, 2, 3] == 1


def test_isles_has_no_surface_at_the_arrays_edge():
    slab = np.zeros((4, 5, 5), bool)
    slab[:2] = True
    brats, isles = surface_of(slab), surface_of(slab, 18, outside_is_foreground=True)
    assert brats.sum() == 2 * 25 - 0
    assert isles.sum() == 25
    assert isles[1].all()


def test_a_slab_at_the_edge_measured_by_both_rules():
    a, b = np.zeros((2, 8, 5, 5), bool)
    a[:2] = True
    b[:4] = True
    # By ISLES only the inner faces, at 1 and 3, exist.
    isles = surface_distances(a, b, (1, 1, 1), ISLES)
    assert set(isles.ref_to_pred_mm) == {2.0}
    # With the array's edge as a surface, the outer faces coincide.
    assert surface_distances(a, b, (1, 1, 1)).ref_to_pred_mm.min() == 0.0


def test_a_mask_that_fills_the_array_still_has_a_surface():
    full = np.ones((4, 4, 4), bool)
    assert hausdorff(surface_distances(full, full, (1, 1, 1), ISLES)) == 0.0


@pytest.mark.parametrize("rule", [SurfaceRule(), ISLES], ids=["brats", "isles"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 1.3, 5.0)])
def test_equal_to_distance_transforms_of_the_whole_volume(rule, spacing):
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = _random_blobs(rng), _random_blobs(rng)
        distances = surface_distances(a, b, spacing, rule)
        ref, pred = _whole_volume(a, b, spacing, rule)
        np.testing.assert_allclose(np.sort(distances.ref_to_pred_mm), np.sort(ref), atol=1e-9)
        np.testing.assert_allclose(np.sort(distances.pred_to_ref_mm), np.sort(pred), atol=1e-9)


def _simpleitk_hausdorff(a, b, spacing):
    images = [sitk.GetImageFromArray(mask.astype(np.uint8).T) for mask in (a, b)]
    for image in images:
        image.SetSpacing(spacing)
    measure = sitk.HausdorffDistanceImageFilter()
    measure.Execute(*images)
    return measure.GetHausdorffDistance()


def test_hausdorff_equals_simpleitk_on_100_random_pairs():
    """SimpleITK takes the masks as sets of voxels, so it is given the surfaces."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        a, b = _random_blobs(rng), _random_blobs(rng)
        spacing = tuple(float(s) for s in rng.uniform(0.5, 4, 3))
        ours = hausdorff(surface_distances(a, b, spacing))
        theirs = _simpleitk_hausdorff(surface_of(a), surface_of(b), spacing)
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_hausdorff_equals_simpleitk_on_solid_masks_as_they_are():
    """Between solid lesions that stick out of each other, sets and surfaces give one number."""
    rng = np.random.default_rng(3)
    for _ in range(100):
        masks = [ball((40, 40, 40), rng.uniform(10, 30, 3), rng.uniform(2, 9)) for _ in range(2)]
        ours = hausdorff(surface_distances(*masks, (1.0, 1.0, 1.0)))
        assert ours == pytest.approx(_simpleitk_hausdorff(*masks, (1.0, 1.0, 1.0)), rel=1e-5)


def test_a_hole_is_a_surface_and_that_is_where_sets_differ():
    solid = np.zeros((21, 21, 21), bool)
    solid[2:19, 2:19, 2:19] = True
    hollow = solid.copy()
    hollow[10, 10, 10] = False
    # The six voxels around the hole are 7 from the cube's faces; as sets the masks differ by 1.
    assert hausdorff(surface_distances(hollow, solid, (1, 1, 1))) == 7.0
    assert _simpleitk_hausdorff(hollow, solid, (1.0, 1.0, 1.0)) == 1.0


def test_refuses_empty_masks_and_unequal_shapes():
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(ValueError, match="empty"):
        surface_distances(mask, np.zeros((2, 2, 2), bool), (1, 1, 1))
    with pytest.raises(ValueError, match="shapes differ"):
        surface_distances(mask, np.ones((2, 2, 3), bool), (1, 1, 1))
    with pytest.raises(ValueError, match="6, 18 or 26"):
        surface_of(mask, 4)
