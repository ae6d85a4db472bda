"""What several test files need."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.main_job import do_main_job

# TensorFlow reads it when it is imported: its start-up lines would fill every report.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SHARED = Path(os.environ.get("PIXELNET_SHARED", Path(__file__).parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that asks for development data, so that `-m "not shared"` leaves it out."""
    for item in items:
        if "shared" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared)


@pytest.fixture(scope="module", autouse=True)
def earlier_objects_rest() -> None:
    """What earlier files left, as TensorFlow its graphs, is looked through for garbage no more.

    A process that has come to the last files holds millions of objects; a collection of them takes
    seconds, and there are many.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the development data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the development data in {SHARED} (set PIXELNET_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def shared_caffe(shared: Path) -> Path:
    """Folder of the full golden arrays of Caffe."""
    folder = shared / "caffe"
    if not folder.is_dir():
        pytest.skip(f"needs the golden arrays of Caffe in {folder}")
    return folder


@pytest.fixture
def eagerly() -> Iterator[None]:
    """TensorFlow without graphs: making those of a segmenter takes seconds each."""
    import tensorflow as tf
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def main_job(tmp_path_factory) -> Path:
    """A folder with `study`, `prepared` and `run`, made by the verbs; not to be changed."""
    return do_main_job(tmp_path_factory.mktemp("main_job"))
