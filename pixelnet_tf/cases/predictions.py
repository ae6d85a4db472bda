"""`prediction.json`: what a folder of predictions says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelnet_tf.errors import DataError
from pixelnet_tf.io.files import read_json_object

#: Written by `predict` beside the volumes.
PREDICTION_FILE = "prediction.json"


@dataclass(frozen=True)
class _LeftOut:
    case: str
    reason: str


#: Keys that are read back, each of which may be missing.
_READ_BACK = {"config": dict[str, Any], "cases": tuple[str, ...], "left_out": tuple[_LeftOut, ...],
              "networks": tuple[dict[str, Any], ...], "trained_on": tuple[str, ...],
              "made_from": dict[str, dict[str, Any]]}


def read_prediction_file(predictions_dir: Path,
                         advice: str = "predict again or remove it") -> dict[str, Any]:
    """Read `prediction.json` beside predictions; an empty dictionary where there is none.

    Raises:
        DataError: the file is not what `predict` writes; the message ends with `advice`.
    """
    path = Path(predictions_dir) / PREDICTION_FILE
    if not path.is_file():
        return {}
    about = read_json_object(path, advice, _READ_BACK)
    for number, network in enumerate(about.get("networks", ())):
        for key, kinds in (("model", str), ("file", (str, type(None)))):
            if not isinstance(network.get(key), kinds):
                raise DataError(f"{path}: networks[{number}].{key} is {network.get(key)!r:.40}; "
                                f"it was written by another program or changed: {advice}")
    return about
