"""Folders of results as earlier versions left them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pixelnet_tf.io.manifest import MANIFEST


def copy_without_manifest(folder: Path, target: Path) -> None:
    """Copy a folder, as one whose files may be changed at will: what they hold is all that counts.
    """
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(MANIFEST))
