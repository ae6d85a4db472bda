"""What several test files need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("PIXELNET_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared_caffe() -> Path:
    """Folder of the full golden arrays of Caffe; the test is skipped where it is absent."""
    folder = SHARED / "caffe"
    if not folder.is_dir():
        pytest.skip(f"needs the development data in {folder} (set PIXELNET_SHARED)")
    return folder
