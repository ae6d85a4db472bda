"""The order of the slices: every one with a lesion once an epoch, the same in every run."""

from types import SimpleNamespace

import numpy as np
import pytest

from pixelnet_tf.config import SamplingConfig
from pixelnet_tf.dataset.index import SliceIndex
from pixelnet_tf.dataset.schedule import SliceSchedule
from pixelnet_tf.errors import DataError

#: Case A: rows 0 to 9, lesion in rows 2, 3, 4, no brain in row 9. Case B: rows 10 to 14, a lesion
#: in row 10. Case C: row 15, a lesion.
LESION, EMPTY = (2, 3, 4, 10, 15), (9,)


@pytest.fixture
def study():
    case = np.array([0] * 10 + [1] * 5 + [2], np.int32)
    counts = np.tile([100, 0], (16, 1))
    counts[list(LESION)] = [90, 10]
    brain = np.ones(16, np.float32)
    brain[list(EMPTY)] = 0
    zeros = np.zeros(16, np.int64)
    index = SliceIndex(("A", "B", "C"), case, np.arange(16, dtype=np.int32), counts, brain,
                       np.array(["s"] * 16), zeros, zeros, zeros + 10, zeros + 10)
    return SimpleNamespace(index=index, path="prepared")


def schedule(study, cases=("A", "B"), share=1.0, seed=0) -> SliceSchedule:
    return SliceSchedule(study, cases, SamplingConfig(lesion_free_slices=share), seed)


def test_an_epoch_holds_every_slice_with_brain_once(study):
    order = schedule(study)
    assert order.epoch_slices == 14
    assert order.rows().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14]
    for epoch in range(3):
        rows = [order.row(epoch * order.epoch_slices + i) for i in range(order.epoch_slices)]
        assert sorted(rows) == order.rows().tolist()


def test_a_share_of_the_slices_without_lesion(study):
    order = schedule(study, share=0.3)
    # 4 with a lesion, and 0.3 of the 10 others.
    assert order.epoch_slices == 7
    seen = set()
    for epoch in range(40):
        rows = [order.row(7 * epoch + i) for i in range(7)]
        assert len(set(rows)) == 7
        assert {2, 3, 4, 10} <= set(rows)
        seen |= set(rows)
    # Drawn anew each epoch: in time every slice has its turn.
    assert seen == set(order.rows().tolist())
    weights = dict(zip(order.rows().tolist(), order.row_weights().tolist(), strict=True))
    assert weights[2] == weights[10] == 1.0
    assert weights[0] == weights[14] == pytest.approx(0.3)


def test_lesions_only(study):
    order = schedule(study, share=0.0)
    assert {order.row(i) for i in range(40)} == {2, 3, 4, 10}


def test_a_position_is_the_same_slice_in_every_run(study):
    order = schedule(study, share=0.5)
    forward = [order.row(i) for i in range(50)]
    again = schedule(study, share=0.5)
    assert [again.row(i) for i in reversed(range(50))] == forward[::-1]
    other = schedule(study, share=0.5, seed=1)
    assert [other.row(i) for i in range(50)] != forward


def test_epochs_differ_in_order(study):
    order = schedule(study)
    first, second = ([order.row(e * 14 + i) for i in range(14)] for e in (0, 1))
    assert first != second


def test_no_lesion_to_train_on(study):
    study.index.class_counts[:] = [100, 0]
    with pytest.raises(DataError, match="no slice of the 2 training cases has a lesion"):
        schedule(study)


def test_slabs_are_slices_of_one_case_that_follow_each_other(study):
    sampling = SamplingConfig(lesion_free_slices=0.6, slab_slices=3)
    order = SliceSchedule(study, ("A", "B"), sampling, 0, (0, -1, 1))
    # 4 with a lesion and 6 of 10 others, in whole slabs.
    assert (order.slab, order.epoch_slices) == (3, 9)
    seen, runs = [], 0
    for epoch in range(60):
        rows = np.array([order.row(9 * epoch + i) for i in range(9)]).reshape(3, 3)
        assert len(np.unique(rows)) == 9
        runs += sum((np.diff(slab) == 1).all() for slab in rows)
        seen += rows.ravel().tolist()
    assert runs > 60
    counts = np.bincount(seen, minlength=16)[order.rows()]
    np.testing.assert_allclose(counts / 60 * 10 / 9, order.row_weights(), atol=0.25)
    again = SliceSchedule(study, ("A", "B"), sampling, 0, (0, -1, 1))
    assert [again.row(i) for i in (12, 3)] == [seen[12], seen[3]]
    # More slices than there are make one slab.
    assert SliceSchedule(study, ("B",), SamplingConfig(), 0, (0, -1, 1)).slab == 5


def test_beside_a_slice_are_those_of_its_case_and_at_its_ends_the_nearest(study):
    np.testing.assert_array_equal(
        study.index.beside(np.array([0, 9, 10, 15]), (0, -1, 1, -2, 2)),
        [[0, 0, 1, 0, 2], [9, 8, 9, 7, 9], [10, 10, 11, 10, 12], [15, 15, 15, 15, 15]])
