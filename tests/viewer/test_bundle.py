"""The page that is shipped is the one that its sources make, and says whose code is in it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from pixelnet_tf.page import MEDIA_TYPES

ROOT = Path(__file__).parents[2]
WEB, PAGE = ROOT / "scripts" / "viewer", ROOT / "pixelnet_tf" / "page"


def test_the_bundle_is_current():
    """Else run scripts/build_viewer.sh; with --check it compares every byte, by npm."""
    names = ["package.json", "package-lock.json", "build.mjs",
             *(f"{folder}/{path.name}" for folder in ("licences", "src")
               for path in sorted((WEB / folder).iterdir()))]
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0" + (WEB / name).read_bytes())
    assert (PAGE / "sources.sha256").read_text().strip() == digest.hexdigest()
    assert (PAGE / "viewer.css").read_bytes() == (WEB / "src" / "viewer.css").read_bytes()
    for name in ("view", "segment"):
        assert (WEB / "src" / f"side_{name}.html").read_text() in (
            PAGE / f"{name}.html").read_text()


def test_versions_are_locked_and_licences_are_listed():
    asked = json.loads((WEB / "package.json").read_text())
    locked = json.loads((WEB / "package-lock.json").read_text())["packages"]
    for name, version in {**asked["dependencies"], **asked["devDependencies"]}.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for place, entry in locked.items() if place)
    listed = (PAGE / "LICENSES.txt").read_text()
    version = asked["dependencies"]["@niivue/niivue"]
    assert f"@niivue/niivue {version} (BSD-2-Clause)" in listed
    assert "Redistributions in binary form" in listed


@pytest.mark.parametrize("name", list(MEDIA_TYPES))
def test_the_page_asks_no_other_machine(name):
    text = (PAGE / name).read_text()
    assert "<script>" not in text
    assert not [word for word in ("src=\"http", "href=\"http", "@import", "url(http")
                if word in text]


def _light(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
              for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("ground", ["ground", "raised", "chosen"])
@pytest.mark.parametrize("text", ["text", "faint", "accent", "bad"])
def test_words_stand_out_from_what_they_lie_on(text, ground):
    """At least 4.5 to 1, as WCAG's level AA wants it."""
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", (PAGE / "viewer.css").read_text()))
    dark, bright = sorted(_light(colours[name]) for name in (text, ground))
    assert (bright + 0.05) / (dark + 0.05) >= 4.5
