"""Work ahead of its use: in order, bounded, and at an end when nobody wants more."""

import threading
import time

import pytest

from pixelnet_tf.io.ahead import ahead


def test_results_come_in_order_and_no_more_is_begun_than_asked_for():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.002 * (5 - item % 5))
        return item * item

    found = ahead(work, range(20), threads=3)
    assert next(found) == 0
    time.sleep(0.05)
    assert len(begun) <= 4
    assert list(found) == [item * item for item in range(1, 20)]
    assert sorted(begun) == list(range(20))
    assert list(ahead(work, [])) == []


def test_an_error_or_a_stop_leaves_the_rest_undone():
    begun = []

    def work(item):
        begun.append(item)
        if item == 2:
            raise ValueError("two")
        return item

    with pytest.raises(ValueError, match="two"):
        list(ahead(work, range(100), threads=2))
    assert len(begun) < 10
    before = threading.active_count()
    found = ahead(work, [0, 1, 3, 4, 5], threads=2)
    next(found)
    found.close()
    time.sleep(0.05)
    assert threading.active_count() <= before
