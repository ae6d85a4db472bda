"""DICOM segmentations: one object a case, which refers to the source series of its first modality.

highdicom writes and reads them, and brings the labels onto the slices of the source by the places
of both.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pixelnet_tf import __version__
from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.dicom_series import DicomSeries, DicomSlice
from pixelnet_tf.config import OutputForm, StudyConfig
from pixelnet_tf.errors import ConfigError, DataError, require
from pixelnet_tf.inference.outputs import Output
from pixelnet_tf.io.files import check_written
from pixelnet_tf.volumes.dicom import in_order
from pixelnet_tf.volumes.geometry import LPS_TO_RAS, VolumeGeometry

if TYPE_CHECKING:
    import highdicom
    import pydicom

#: Value, coding scheme, meaning.
Code = tuple[str, str, str]

#: Of every segment (CID 7150).
_CATEGORY: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
#: Words in the name of a class -> its code (CID 7151, 7159; SNOMED CT's Infarct). The first that
#: fits counts.
_CODES: tuple[tuple[tuple[str, ...], Code], ...] = (
    (("non-enhanc", "non_enhanc", "nonenhanc"), ("C81175", "NCIt", "Non-Enhancing Lesion")),
    (("enhanc",), ("C113842", "NCIt", "Enhancing Lesion")),
    (("necro",), ("6574001", "SCT", "Necrosis")),
    (("edema", "oedema"), ("79654002", "SCT", "Edema")),
    (("hemorrhag", "haemorrhag"), ("50960005", "SCT", "Hemorrhage")),
    (("infarct", "stroke", "ischem", "ischaem"), ("55641003", "SCT", "Infarct")),
    (("tumor", "tumour", "neoplasm", "glioma"), ("108369006", "SCT", "Neoplasm")),
    (("lesion",), ("52988006", "SCT", "Lesion")),
)
#: What a segmentation takes from its source, and cannot be without; and what it may have empty,
#: which some programs that take patients' names away leave out.
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID",
           "FrameOfReferenceUID")
_MAY_BE_EMPTY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID",
                 "StudyDate", "StudyTime", "AccessionNumber", "SliceThickness")
#: Voxels coincide while their affines differ by no more than this, in mm: positions in DICOM are
#: rounded.
_TOLERANCE_MM = 1e-3


def codes_of(study: StudyConfig) -> dict[int, Code]:
    """Label value -> code, from `study.codes`, else by the name of the class.

    Raises:
        ConfigError: the name says nothing that has a known code.
    """
    found = {}
    for value, name in list(study.labels.items())[1:]:
        known = (code for words, code in _CODES if any(word in name.lower() for word in words))
        code = study.codes.get(value) or next(known, None)
        if code is None:
            raise ConfigError(
                f"no code is known for label {value}, {name!r}: a DICOM segmentation names each "
                "segment by one", value=name,
                hint=f"set study.codes, as in --set 'study.codes={{{value}: [\"52988006\", SCT, "
                     "Lesion]}'")
        found[value] = code
    return found


class DicomSegOutput(Output):
    """`<case>.dcm`, with a segment for each label; probabilities stay NIfTI."""

    form = OutputForm.DICOM_SEG

    def __init__(self, out: Path, study: StudyConfig, cases: Mapping[str, Case]):
        super().__init__(out, study, cases)
        require("--output dicom-seg", "dicom", "highdicom", "pydicom")
        self._codes = codes_of(study)

    def settings(self) -> Any:
        return list(self._codes.items())

    def check(self) -> list[str]:
        for name in self.cases:
            self._headers(name, self._source(name).slices[:1])
        return []

    def files(self, name: str) -> tuple[Path, ...]:
        return (self.out / f"{name}.dcm",)

    def places(self) -> dict[str, str]:
        return {name: self.files(name)[0].name for name in self.cases}

    def data(self, name: str, labels: np.ndarray, geometry: VolumeGeometry, made_from: str
             ) -> bytes:
        data = io.BytesIO()
        try:
            self.segmentation(name, labels, geometry, made_from).save_as(data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # What highdicom says of headers that are not as the standard has them.
            raise DataError(f"no DICOM segmentation can refer to this series ({error})", case=name,
                            file=self._source(name), hint="give another --output") from None
        return data.getvalue()

    def segmentation(self, name: str, labels: np.ndarray, geometry: VolumeGeometry, made_from: str
                     ) -> highdicom.seg.Segmentation:
        """The object of a case; arguments as of `data`."""
        import highdicom as hd
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid

        slices = in_order(self._source(name))
        sources = self._headers(name, slices)
        first, frame = sources[0], sources[0].FrameOfReferenceUID
        numbers = np.zeros(256, np.uint8)
        numbers[list(self._codes)] = range(1, len(self._codes) + 1)
        volume = hd.Volume(numbers[labels], LPS_TO_RAS @ geometry.affine, "PATIENT",
                           frame_of_reference_uid=frame)
        # The axes of the source: from slice to slice, down its columns, along its rows.
        across, down = np.reshape(slices[0].orientation, (2, 3))
        axes = np.eye(4)
        axes[:3, 0] = np.subtract(slices[-1].position, slices[0].position) / (len(slices) - 1)
        axes[:3, 1], axes[:3, 2] = down * slices[0].spacing_mm[0], across * slices[0].spacing_mm[1]
        axes[:3, 3] = slices[0].position
        grid = hd.VolumeGeometry(axes, (len(slices), slices[0].rows, slices[0].columns), "PATIENT",
                                 frame_of_reference_uid=frame)
        algorithm = hd.AlgorithmIdentificationSequence(
            name="pixelnet-tf", version=__version__, family=codes.cid7162.ArtificialIntelligence)
        segments = [
            hd.seg.SegmentDescription(
                number, self.study.labels[value], hd.sr.CodedConcept(*_CATEGORY),
                hd.sr.CodedConcept(*code), hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, algorithm)
            for number, (value, code) in enumerate(self._codes.items(), start=1)]
        number = str(first.get("SeriesNumber") or 0)
        return hd.seg.Segmentation(
            sources, _onto(volume, grid),
            hd.seg.SegmentationTypeValues.BINARY, segments,
            # The same labels of the same images are the same object, whoever writes them again.
            series_instance_uid=generate_uid(entropy_srcs=[first.SeriesInstanceUID, made_from]),
            series_number=1000 + int(number) if number.isdecimal() else 1000,
            sop_instance_uid=generate_uid(entropy_srcs=[first.SOPInstanceUID, made_from]),
            instance_number=1, manufacturer="pixelnet-tf",
            manufacturer_model_name=f"pixelnet-tf {self.study.name}"[:64],
            software_versions=__version__, device_serial_number=made_from[:16],
            content_label="SEGMENTATION", content_creator_name="pixelnet-tf^",
            content_description=f"Segmentation of {self.study.name} for research use"[:64],
            series_description=f"pixelnet-tf {self.study.name}"[:64],
            # A case without lesion has nothing but empty frames.
            omit_empty_frames=False)

    def read(self, name: str, grid: VolumeGeometry | None = None
             ) -> tuple[np.ndarray, VolumeGeometry]:
        import highdicom as hd

        path = self.files(name)[0]
        check_written(path)
        values = np.array([0, *self._codes], np.uint8)
        try:
            found = hd.seg.segread(os.fspath(path)).get_volume(combine_segments=True)
        except (OSError, ValueError, RuntimeError, AttributeError) as error:
            raise DataError(f"cannot be read as a DICOM segmentation ({error})", case=name,
                            file=path, hint="predict the case again") from None
        if grid is None:
            grid = VolumeGeometry.of(found.spatial_shape, LPS_TO_RAS @ found.affine)
        matched = _onto(found, hd.VolumeGeometry(
            LPS_TO_RAS @ grid.affine, grid.shape, "PATIENT",
            frame_of_reference_uid=found.frame_of_reference_uid))
        return values[matched.array], grid

    def _headers(self, name: str, slices: Sequence[DicomSlice]) -> list[pydicom.Dataset]:
        """The headers of slices, in order; raises `DataError` where one lacks what is needed."""
        import pydicom

        found: list[pydicom.Dataset] = [pydicom.dcmread(each.file, stop_before_pixels=True)
                                        for each in slices]
        for each, header in zip(slices, found, strict=True):
            lacking = [keyword for keyword in _NEEDED if not header.get(keyword)]
            if lacking:
                raise DataError(f"lacks {', '.join(lacking)}, which a DICOM segmentation refers to",
                                case=name, file=each.file, value=lacking[0],
                                hint="export the series again, or give another --output")
            for keyword in _MAY_BE_EMPTY:
                if keyword not in header:
                    setattr(header, keyword, None)
        return found

    def _source(self, name: str) -> DicomSeries:
        """The series of the first modality that is there; raises `DataError` where there is none.
        """
        case = self.cases[name]
        modality = next((each for each in self.study.modalities if each in case.volumes),
                        self.study.modalities[0])
        source = case.volumes.get(modality)
        if isinstance(source, DicomSeries):
            return source
        if source is None:
            raise DataError("a DICOM segmentation refers to the series that it was made from, "
                            "which a prepared study does not hold", case=name,
                            hint="give the folder of DICOM series as --data")
        raise DataError(f"a DICOM segmentation refers to the series that it was made from, but "
                        f"{modality} is a NIfTI file", case=name, file=source,
                        hint="give a study of DICOM series (--series), or another --output")


def _onto(volume: highdicom.Volume, grid: highdicom.VolumeGeometry) -> highdicom.Volume:
    """The same voxels in the order of another grid.

    Raises:
        DataError: the grids hold other voxels; highdicom would cut off and fill up.
    """
    try:
        matched = volume.match_geometry(grid, tol=_TOLERANCE_MM)
    except RuntimeError as error:
        raise DataError(f"labels and source do not lie on one grid ({error})",
                        hint="predict again from the same series") from None
    if (sorted(volume.spatial_shape) != sorted(grid.spatial_shape)
            or np.count_nonzero(matched.array) != np.count_nonzero(volume.array)):
        raise DataError("labels and source do not lie on one grid: voxels of "
                        f"{volume.spatial_shape} against {grid.spatial_shape}",
                        hint="predict again from the same series")
    return matched
