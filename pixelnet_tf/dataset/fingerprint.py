"""What a prepared case was made from, so that a second run can tell whether it still holds."""

from __future__ import annotations

import hashlib
import json

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import Config, config_to_dict


def fingerprint(case: Case, config: Config, record_format: int) -> str:
    """Return a hash of a case's files (name, size, time of change) and of the settings.

    Only settings that change the slices count: the number of workers, regions or the study's
    name do not.
    """
    settings = config_to_dict(config)
    study, prepare = settings["study"], settings["prepare"]
    made_from = {
        "format": record_format,
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns]
                  for path in case.files],
        "study": {key: study[key] for key in ("modalities", "skull_stripped", "resample")},
        "labels": list(study["labels"]),
        "prepare": {key: value for key, value in prepare.items() if key != "workers"},
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
