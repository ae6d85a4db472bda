"""Writing DICOM series by pydicom, apart from the product: a study from a case of NIfTI files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR = "1.2.840.10008.5.1.4.1.1.4"

#: Columns of a rotation by some degrees about each axis: an oblique scan.
OBLIQUE = np.array([[0.98, -0.17, 0.10], [0.19, 0.95, -0.24], [-0.05, 0.26, 0.96]])


def uid_of(*words: object) -> str:
    """A unique identifier that is the same for the same words."""
    return generate_uid(entropy_srcs=[str(word) for word in words])


def orthogonal(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to a matrix."""
    left, _, right = np.linalg.svd(matrix)
    return left @ right


def write_series(folder: Path, array: np.ndarray, affine: np.ndarray, description: str, *,
                 number: int = 1, patient: str = "P1", uid: str | None = None,
                 prefix: str = "") -> list[Path]:
    """Write whole numbers (x, y, z) as an MR series, a file a slice; returns the files by slice.

    affine: (4, 4), voxel to mm along R, A, S, as nibabel has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    sides = np.linalg.norm(world[:3, :3], axis=0)
    across, down = world[:3, 0] / sides[0], world[:3, 1] / sides[1]
    uid = uid or uid_of(patient, description, number)
    files = []
    for k in range(array.shape[2]):
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MR
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = uid_of(uid, k)
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.PatientName, data.PatientID = f"{patient}^Phantom", patient
        data.PatientBirthDate, data.PatientSex = "", "O"
        data.StudyInstanceUID, data.SeriesInstanceUID = uid_of(patient, "study"), uid
        data.FrameOfReferenceUID = uid_of(patient, "frame")
        data.StudyID, data.StudyDate, data.StudyTime = "1", "20200102", "101112"
        data.AccessionNumber = data.ReferringPhysicianName = data.PositionReferenceIndicator = ""
        data.Modality, data.Manufacturer, data.SeriesDescription = "MR", "Phantom", description
        data.SeriesNumber, data.InstanceNumber, data.AcquisitionNumber = number, k + 1, 1
        data.ScanningSequence, data.SequenceVariant, data.ScanOptions = "SE", "NONE", ""
        data.MRAcquisitionType, data.EchoTime, data.EchoTrainLength = "2D", 80.0, 1
        data.RepetitionTime, data.ImageType = 4000.0, ["ORIGINAL", "PRIMARY", "M"]
        data.ImagePositionPatient = [f"{value:.10g}" for value in world[:3, :3] @ [0, 0, k]
                                     + world[:3, 3]]
        data.ImageOrientationPatient = [f"{value:.12f}"[:16] for value in (*across, *down)]
        data.PixelSpacing = [f"{sides[1]:.10g}", f"{sides[0]:.10g}"]
        data.SliceThickness = data.SpacingBetweenSlices = f"{sides[2]:.10g}"
        data.Rows, data.Columns = array.shape[1], array.shape[0]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.PixelData = np.ascontiguousarray(array[:, :, k].T.astype("<i2")).tobytes()
        # The names say nothing of the order.
        files.append(folder / f"{prefix}{uid_of(uid, k)[-12:]}.dcm")
        data.save_as(files[-1], enforce_file_format=True)
    return files


def write_case(folder: Path, images: Mapping[str, Path], affine: np.ndarray | None = None
               ) -> dict[str, list[Path]]:
    """Write the images of a case (description -> NIfTI file) as DICOM, all series in one folder.

    affine: another place in space for all of them.
    """
    written = {}
    for number, (description, path) in enumerate(images.items(), start=1):
        image = nib.load(path)
        written[description] = write_series(
            folder, np.asarray(image.dataobj), image.affine if affine is None else affine,
            description, number=number, patient=folder.name, prefix=f"{number}_")
    return written


def change(path: Path, **values: object) -> None:
    """Give attributes of a DICOM file other values."""
    data = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(data, name, value)
    data.save_as(path)
