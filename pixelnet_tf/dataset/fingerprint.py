"""What a prepared case was made from, so that a second run can tell whether it still holds."""

from __future__ import annotations

import hashlib
import json

from pixelnet_tf.cases.case import Case
from pixelnet_tf.config import Config


def fingerprint(case: Case, config: Config, record_format: int) -> str:
    """Return a hash of a case's files (name, size, time of change) and of the settings.

    Only settings that change the slices count (`Config.slice_settings`), and `study.resample`.
    """
    made_from = {
        "format": record_format,
        "files": [[path.name, path.stat().st_size, path.stat().st_mtime_ns]
                  for path in case.files],
        "settings": config.slice_settings(),
        "resample": config.study.resample,
    }
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
