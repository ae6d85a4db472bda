"""Write the bill of materials of requirements.lock, in CycloneDX's JSON.

    python scripts/sbom.py [OUT.json]

Holds what the lock installs under the Python that runs this. Licences and who needs whom are known
for packages that are installed beside it in the locked release. The same lock and environment give
the same file.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def locked(text: str) -> dict[str, tuple[str, list[str]]]:
    """Name -> (version, SHA-256 of its files) of what a lock installs under this Python."""
    found = {}
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        written, *hashes = re.split(r"\s+--hash=sha256:", entry.strip())
        requirement = Requirement(written)
        if requirement.marker is None or requirement.marker.evaluate():
            version, = requirement.specifier
            found[canonicalize_name(requirement.name)] = (version.version, hashes)
    return found


def installed(name: str, version: str) -> importlib.metadata.Distribution | None:
    """The package, where it is here in just this release."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found if found.version == version else None


def needs(package: importlib.metadata.Distribution | None, extra: str = "") -> set[str]:
    """Names of what a package needs under this Python, with one of its extras."""
    environment = {**default_environment(), "extra": extra}
    wanted = [Requirement(line) for line in (package.requires or [] if package else [])]
    return {canonicalize_name(each.name) for each in wanted
            if each.marker is None or each.marker.evaluate(environment)}


def component(name: str, version: str, hashes: list[str]) -> dict[str, Any]:
    """One package as CycloneDX writes it."""
    place = f"pkg:pypi/{name}@{version}"
    made: dict[str, Any] = {"type": "library", "bom-ref": place, "name": name, "version": version,
                            "purl": place}
    if package := installed(name, version):
        meta = package.metadata
        classes = [line.rpartition(" :: ")[2] for line in meta.get_all("Classifier") or []
                   if line.startswith("License :: ")]
        # Old packages put the whole text of their licence into the field `License`.
        short = [text for text in (meta.get("License"), *classes) if text and len(text) < 80]
        if expression := meta.get("License-Expression"):
            made["licenses"] = [{"expression": expression}]
        elif short:
            made["licenses"] = [{"license": {"name": short[0]}}]
    made["externalReferences"] = [
        {"type": "distribution", "url": f"https://pypi.org/project/{name}/{version}/",
         "hashes": [{"alg": "SHA-256", "content": digest}]} for digest in hashes]
    return made


def bill(text: str) -> dict[str, Any]:
    """The bill of materials of a lock's text."""
    packages = locked(text)
    places = {name: f"pkg:pypi/{name}@{version}" for name, (version, _) in packages.items()}
    own = re.search(r'__version__ = "(.+)"', (ROOT / "pixelnet_tf" / "__init__.py").read_text())
    assert own
    root = f"pkg:pypi/pixelnet-tf@{own[1]}"
    direct = needs(installed("pixelnet-tf", own[1]), "all") & set(places) or set(places)
    needed = {name: needs(installed(name, version)) & set(places)
              for name, (version, _) in packages.items()}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {
            "type": "application", "bom-ref": root, "name": "pixelnet-tf", "version": own[1],
            "purl": root, "licenses": [{"expression": "Apache-2.0"}]}},
        "components": [component(name, *packages[name]) for name in sorted(packages)],
        "dependencies": [
            {"ref": root, "dependsOn": sorted(places[name] for name in direct)},
            *({"ref": places[name], "dependsOn": sorted(places[each] for each in needed[name])}
              for name in sorted(packages))],
    }


if __name__ == "__main__":
    made = json.dumps(bill((ROOT / "requirements.lock").read_text()), indent=2) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(made)
    else:
        print(made, end="")
