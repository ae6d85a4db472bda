"""What a result was made from, so that a second run can tell whether it still holds.

Contents count, and nothing else: a file that was copied, renamed or touched is the same file, and
one that was changed in place, without another size or time, is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pixelnet_tf.cases.case import Case, Channel, Source
from pixelnet_tf.cases.dicom_series import DicomSeries
from pixelnet_tf.config import PrepareConfig, Register, StudyConfig
from pixelnet_tf.errors import DataError
from pixelnet_tf.io.ahead import ahead
from pixelnet_tf.io.files import digest
from pixelnet_tf.volumes.dicom import series_digest
from pixelnet_tf.volumes.images import image_digest

#: Raised by 1 with every change of the program after which equal files and settings give other
#: slices: what was prepared before is then prepared anew.
PREPARATION = 3
#: Files read at once: reading waits for the disk, hashing for a core.
_READERS = 4


def inputs_of(cases: Sequence[Case]) -> dict[str, dict[str, Any] | None]:
    """Return what each case is made from: the SHA-256 of its files' contents.

    Returns:
        Case name -> {"images": {modality: digest}, "segmentation": digest or None}; None for a case
        with a file that cannot be read, of which `check_case` says why.
    """
    return dict(zip((case.name for case in cases), ahead(_inputs, cases, _READERS), strict=True))


def preparation_of(study: StudyConfig, prepare: PrepareConfig) -> str:
    """Return a digest of every setting that shapes a prepared case, and of the program's own part.

    Those are `PrepareConfig.slice_settings`, `study.resample` and `study.register`.
    """
    # What is not set does nothing: it leaves the digests of versions that did not know it.
    settings = {key: value for key, value in prepare.slice_settings(study).items()
                if value is not None}
    if study.register != Register.NONE:
        settings["study.register"] = study.register
    return digest({"program": PREPARATION, "settings": settings, "resample": study.resample})


def _inputs(case: Case) -> dict[str, Any] | None:
    try:
        return {"images": {name: _digest(volume) for name, volume in case.volumes.items()},
                "segmentation": None if case.segmentation is None
                else _digest(case.segmentation)}
    except (OSError, DataError):
        return None


def _digest(volume: Source) -> str:
    if isinstance(volume, DicomSeries):
        return series_digest(volume)
    if isinstance(volume, Channel):
        # Another volume of the same file is another image.
        return digest([image_digest(volume.path), volume.number])
    return image_digest(volume)
