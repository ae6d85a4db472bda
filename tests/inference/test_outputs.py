"""Forms of segmentations: DICOM and BIDS, by readers that did not write them."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.dicom_series import series_in
from pixelnet_tf.config import OutputForm, load_config
from pixelnet_tf.errors import ConfigError, DataError
from pixelnet_tf.inference.dicom_seg import codes_of
from pixelnet_tf.inference.outputs import output_of
from pixelnet_tf.inference.predict import CaseSource, write_cases
from pixelnet_tf.inference.volume import SegmentedVolume
from pixelnet_tf.volumes.phantom_study import write_phantom
from pixelnet_tf.volumes.raw_volume import geometry_of
from tests.dicom_study import OBLIQUE, orthogonal, write_case, write_series

CONFIG = load_config("phantom", ["prepare.bias_field.enabled=false", "model.widths=[3, 4, 4, 5, 5]",
                                 "model.border=0", "study.modalities=[flair, t2]"])
#: Axial as the phantom is, and oblique with anisotropic voxels that run the other way in the file.
PLACES = {"axial": None, "oblique": nib.affines.from_matvec(
    orthogonal(OBLIQUE) * [-0.9, -1.1, 2.5], [31.25, -40.5, 12.125])}


def segment(volume):
    """Labels of brightness: any function of the images does to see where they lie."""
    bright = volume.images.sum(axis=-1)
    classes = np.select([bright > 3, bright > 2, bright > 1], [4, 1, 2], 0).astype(np.uint8)
    shares = np.stack([classes == value for value in (0, 1, 2, 4)], axis=-1).astype(np.float32)
    return SegmentedVolume(volume.plan.from_slices(classes),
                           np.stack([volume.plan.from_slices(shares[..., c]) for c in range(4)],
                                    axis=-1))


class Said:
    """A reporter that remembers."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.messages.append(text)

    def progress(self, task, done, total, detail=""):
        pass


def write(data, out, config=CONFIG, output="nifti", maps=False, **options):
    said = Said()
    config = replace(config, prediction=replace(config.prediction, probability_maps=maps))
    write_cases(segment if maps else lambda volume: replace(segment(volume), probabilities=None),
                {"networks": [{"model": "m", "weights": "w", "correction": [0.0]}]},
                CaseSource.open(str(data), config), config, out, output=OutputForm(output),
                reporter=said, **options)
    return said


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Place -> the same case as NIfTI (`nifti`) and as DICOM (`dicom`)."""
    folder = tmp_path_factory.mktemp("studies")
    write_phantom(folder / "phantom", 1, 0, size=(24, 20, 8))
    made = {}
    for place, affine in PLACES.items():
        case = folder / place / "nifti" / "phantom_001"
        case.mkdir(parents=True)
        files = {}
        for modality in CONFIG.study.modalities:
            image = nib.load(folder / "phantom" / "phantom_001" / f"phantom_001_{modality}.nii.gz")
            files[modality] = case / f"phantom_001_{modality}.nii.gz"
            nib.save(nib.Nifti1Image(np.round(image.get_fdata()).astype(np.int16),
                                     image.affine if affine is None else affine), files[modality])
        dicom = folder / place / "dicom" / "phantom_001"
        dicom.mkdir(parents=True)
        write_case(dicom, {f"Ax {name.upper()}": path for name, path in files.items()})
        made[place] = folder / place
    return made


@pytest.fixture(scope="module")
def predicted(studies):
    """Place -> its labels from NIfTI as an image, and the files of `dicom-seg`."""
    dicom = replace(CONFIG, study=replace(CONFIG.study, layout="dicom"))
    made = {}
    for place, folder in studies.items():
        write(folder / "nifti", folder / "labels")
        write(folder / "dicom", folder / "same", dicom)
        write(folder / "dicom", folder / "seg", dicom, "dicom-seg")
        made[place] = (nib.load(folder / "labels" / "phantom_001.nii.gz"),
                       nib.load(folder / "same" / "phantom_001.nii.gz"),
                       folder / "seg" / "phantom_001.dcm")
    return made


def on_grid(image, other):
    """Values of an image in the voxels of another one, whatever the order of either's axes."""
    turned = image.as_reoriented(nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.io_orientation(other.affine)))
    np.testing.assert_allclose(turned.affine, other.affine, atol=1e-4)
    return np.asarray(turned.dataobj)


@pytest.mark.parametrize("place", PLACES)
def test_labels_from_dicom_are_those_from_nifti(predicted, place):
    labels, same, _ = predicted[place]
    assert set(np.unique(labels.dataobj)) == {0, 1, 2, 4}
    np.testing.assert_array_equal(on_grid(same, labels), labels.dataobj)


@pytest.mark.parametrize("place", PLACES)
def test_a_dicom_segmentation_lies_on_its_source(predicted, studies, place):
    """By highdicom's reader, and by pydicom alone, frame by frame and file by file."""
    labels, _, path = predicted[place]
    found = hd.seg.segread(path)
    assert [(segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence[0].CodeValue,
             segment.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator)
            for segment in found.SegmentSequence] == [
        ("necrosis", "6574001", "SCT"), ("edema", "79654002", "SCT"),
        ("enhancing", "C113842", "NCIt")]
    volume = found.get_volume(combine_segments=True)
    image = nib.Nifti1Image(np.array([0, 1, 2, 4], np.uint8)[volume.array],
                            np.diag([-1, -1, 1, 1]) @ volume.affine)
    np.testing.assert_array_equal(on_grid(image, labels), labels.dataobj)

    data = pydicom.dcmread(path)
    sources = [pydicom.dcmread(file) for file in (studies[place] / "dicom").rglob("*.dcm")]
    flair = {source.SOPInstanceUID: source for source in sources
             if source.SeriesDescription == "Ax FLAIR"}
    assert data.PatientID == "phantom_001"
    assert data.StudyInstanceUID == sources[0].StudyInstanceUID
    series, = data.ReferencedSeriesSequence
    assert {each.ReferencedSOPInstanceUID for each in series.ReferencedInstanceSequence} == set(
        flair)
    values, held = np.asarray(labels.dataobj), set()
    frames = zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True)
    for pixels, about in frames:
        source = flair[about.DerivationImageSequence[0].SourceImageSequence[0]
                       .ReferencedSOPInstanceUID]
        assert about.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(
            list(source.ImagePositionPatient), abs=1e-4)
        number = about.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        # The helper writes slice k of the NIfTI file as instance k + 1.
        wanted = values[:, :, source.InstanceNumber - 1].T == (1, 2, 4)[number - 1]
        np.testing.assert_array_equal(pixels.astype(bool), wanted)
        held.add((source.SOPInstanceUID, number))
    assert len(held) == data.NumberOfFrames == 3 * len(flair)


@pytest.mark.parametrize("place", PLACES)
def test_dcmqi_reads_a_dicom_segmentation_where_it_lies(predicted, place, tmp_path):
    labels, _, path = predicted[place]
    program = Path(sys.executable).with_name("segimage2itkimage")
    if not program.is_file():
        pytest.skip("needs dcmqi (pip install dcmqi)")
    subprocess.run([program, "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType",
                    "nii", "--mergeSegments"], check=True, capture_output=True, timeout=60)
    about = json.loads((tmp_path / "meta.json").read_text())
    names = {segment["labelID"]: segment["SegmentLabel"]
             for group in about["segmentAttributes"] for segment in group}
    assert names == {1: "necrosis", 2: "edema", 3: "enhancing"}
    image = nib.load(tmp_path / "1.nii.gz")
    turned = nib.Nifti1Image(np.array([0, 1, 2, 4], np.uint8)[
        np.asarray(image.dataobj).astype(int)], image.affine)
    np.testing.assert_array_equal(on_grid(turned, labels), labels.dataobj)


def test_a_real_scan_has_the_same_labels_from_dicom(shared, tmp_path):
    """Of 20 slices of a patient of TCGA-LGG, by highdicom's reader."""
    patient = "TCGA_CS_4942_19970222"
    study = replace(CONFIG.study, modalities=("flair", "t1ce"), skull_stripped=False)
    config, folder = replace(CONFIG, study=study), shared / "data" / "lgg"
    write_case(tmp_path / "dicom" / patient, {
        name: folder / patient / f"{patient}_{name}.nii.gz" for name in study.modalities})
    case = tmp_path / "nifti" / patient
    shutil.copytree(folder / patient, case)
    write(tmp_path / "nifti", tmp_path / "labels", config)
    config = replace(config, study=replace(study, layout="dicom"))
    write(tmp_path / "dicom", tmp_path / "seg", replace(config, study=replace(
        config.study, series={"flair": "flair", "t1ce": "t1ce"})), "dicom-seg")
    labels = nib.load(tmp_path / "labels" / f"{patient}.nii.gz")
    found = hd.seg.segread(tmp_path / "seg" / f"{patient}.dcm").get_volume(combine_segments=True)
    image = nib.Nifti1Image(np.array([0, 1, 2, 4], np.uint8)[found.array],
                            np.diag([-1, -1, 1, 1]) @ found.affine)
    assert np.any(labels.dataobj)
    np.testing.assert_array_equal(on_grid(image, labels), labels.dataobj)


def rows_of(table):
    """Region, volume, place and border of each lesion."""
    rows = (line.split("\t") for line in table.read_text().splitlines())
    return sorted((row[1], *row[3:8]) for row in rows)


def test_a_finished_dicom_segmentation_is_kept_and_drawn(studies, predicted, tmp_path):
    folder = tmp_path / "seg"
    shutil.copytree(studies["oblique"] / "seg", folder)
    dicom = replace(CONFIG, study=replace(CONFIG.study, layout="dicom"))
    before = (folder / "phantom_001.dcm").read_bytes()
    drawn = []
    said = write(studies["oblique"] / "dicom", folder, dicom, "dicom-seg",
                 draw=lambda volume, labels: drawn.append(labels))
    assert said.messages == ["1 finished cases are kept"]
    assert (folder / "phantom_001.dcm").read_bytes() == before
    np.testing.assert_array_equal(drawn[0], predicted["oblique"][1].dataobj)
    # The lesions are listed from the object where nothing else says what they are; those of one
    # size come in another order, and the network's probabilities are gone.
    before = rows_of(folder / "lesions.tsv")
    (folder / "lesions" / "phantom_001.json").unlink()
    write(studies["oblique"] / "dicom", folder, dicom, "dicom-seg")
    assert rows_of(folder / "lesions.tsv") == before
    # Other codes are another object.
    other = replace(dicom, study=replace(dicom.study, codes={2: ("1", "99X", "Swelling")}))
    with pytest.raises(DataError, match="phantom_001: other settings of the prediction"):
        write(studies["oblique"] / "dicom", folder, other, "dicom-seg")
    with pytest.raises(DataError, match="holds segmentations as dicom-seg, not as nifti"):
        write(studies["oblique"] / "dicom", folder, dicom, overwrite=True)


def test_a_case_without_lesion_has_an_empty_segmentation(studies, tmp_path):
    study = replace(CONFIG.study, layout="dicom")
    source = CaseSource.open(str(studies["axial"] / "dicom"), replace(CONFIG, study=study))
    output = output_of(OutputForm.DICOM_SEG, tmp_path, study, source.cases)
    geometry = source.read("phantom_001").geometry
    labels = np.zeros(geometry.shape, np.uint8)
    path, = output.files("phantom_001")
    path.write_bytes(output.data("phantom_001", labels, geometry, "digest"))
    np.testing.assert_array_equal(output.read("phantom_001", geometry)[0], labels)
    assert not pydicom.dcmread(tmp_path / "phantom_001.dcm").pixel_array.any()


def test_headers_that_lack_something_are_filled_or_refused(tmp_path):
    study = replace(CONFIG.study, layout="dicom")
    files = write_series(tmp_path / "c", np.zeros((6, 5, 3), np.int16), np.eye(4), "flair")
    series, = series_in(tmp_path / "c")[0]
    output = output_of(OutputForm.DICOM_SEG, tmp_path, study, {"c": Case("c", {"flair": series})})
    geometry = geometry_of(series)
    # What may be empty and is left out by programs that take patients' names away.
    for path in files:
        data = pydicom.dcmread(path)
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID",
                     "StudyDate", "StudyTime", "AccessionNumber", "SliceThickness"):
            delattr(data, name)
        data.save_as(path)
    assert output.check() == []
    labels = np.ones(geometry.shape, np.uint8)
    made = output.data("c", labels, geometry, "digest")
    assert pydicom.dcmread(io.BytesIO(made)).pixel_array.any()
    for name in ("FrameOfReferenceUID", "StudyInstanceUID"):
        data = pydicom.dcmread(files[0])
        delattr(data, name)
        data.save_as(files[0])
        with pytest.raises(DataError, match=f"lacks .*{name}") as error:
            output.data("c", labels, geometry, "digest")
        assert error.value.file == str(files[0])


@pytest.mark.parametrize(("names", "codes", "found"), [
    (["lesion"], {}, ["52988006"]), (["stroke lesion"], {}, ["55641003"]),
    (["Tumour core", "oedema"], {}, ["108369006", "79654002"]),
    (["non-enhancing tumor", "enhancing tumor"], {}, ["C81175", "C113842"]),
    (["something"], {1: ("1", "99X", "Something")}, ["1"])])
def test_codes_of_common_names_are_known(names, codes, found):
    labels = {0: "background", **dict(enumerate(names, start=1))}
    study = replace(CONFIG.study, labels=labels, regions={}, codes=codes)
    assert [code[0] for code in codes_of(study).values()] == found


def test_what_has_no_code_or_no_source_is_refused(studies, tmp_path):
    study = replace(CONFIG.study, labels={0: "background", 1: "thing"}, regions={})
    with pytest.raises(ConfigError, match="no code is known for label 1, 'thing'") as error:
        codes_of(study)
    assert "study.codes" in error.value.hint
    with pytest.raises(DataError, match="flair is a NIfTI file"):
        write(studies["axial"] / "nifti", tmp_path / "a", output="dicom-seg")
    with pytest.raises(DataError, match="a prepared study does not hold"):
        output_of(OutputForm.DICOM_SEG, tmp_path, CONFIG.study, {"c": Case("c")}).check()
    assert not (tmp_path / "a").exists()


def validate(folder):
    """What the validator of the BIDS project finds: errors as (code, place)."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.is_file():
        pytest.skip("needs the validator of BIDS (pip install bids-validator-deno)")
    done = subprocess.run([program, "--format", "json", folder], capture_output=True, text=True,
                          timeout=60)
    if not done.stdout.startswith("{"):
        pytest.skip(f"the validator of BIDS does not run here: {done.stderr[-200:]}")
    return [(issue["code"], issue.get("location"))
            for issue in json.loads(done.stdout)["issues"]["issues"]
            if issue["severity"] == "error"]


@pytest.fixture(scope="module")
def bids_study(tmp_path_factory):
    """A study by the names of BIDS, of one kind each, and a case that has none."""
    folder = tmp_path_factory.mktemp("bids")
    write_phantom(folder / "phantom", 1, 0, size=(24, 20, 8))
    for case, stem in (("sub-01_ses-02", "sub-01_ses-02_acq-3d_run-1"), ("sub-03", "sub-03"),
                       ("patient_x", "patient_x")):
        (folder / "study" / case / "dwi").mkdir(parents=True)
        for modality in CONFIG.study.modalities:
            shutil.copy(folder / "phantom" / "phantom_001" / f"phantom_001_{modality}.nii.gz",
                        folder / "study" / case / "dwi" / f"{stem}_{modality.upper()}.nii.gz")
    return folder / "study"


PATTERN = replace(CONFIG, study=replace(CONFIG.study, layout="pattern", files={
    "flair": "dwi/*_FLAIR.nii.gz", "t2": "dwi/*_T2.nii.gz"}))


def test_a_data_set_of_bids_passes_its_validator(bids_study, tmp_path):
    out = tmp_path / "out"
    said = write(bids_study, out, PATTERN, "bids", maps=True)
    assert said.messages == ["these cases have no names of BIDS and are written under others: "
                             "patient_x as sub-patientx"]
    stem = out / "sub-01" / "ses-02" / "dwi" / "sub-01_ses-02_acq-3d_run-1"
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("sub-*/**/*.nii.gz")) == [
        f"sub-01/ses-02/dwi/{stem.name}_dseg.nii.gz",
        f"sub-01/ses-02/dwi/{stem.name}_probseg.nii.gz",
        "sub-03/dwi/sub-03_dseg.nii.gz", "sub-03/dwi/sub-03_probseg.nii.gz",
        "sub-patientx/anat/sub-patientx_dseg.nii.gz",
        "sub-patientx/anat/sub-patientx_probseg.nii.gz"]
    assert Path(f"{stem}_dseg.tsv").read_text() == (
        "index\tname\n0\tbackground\n1\tnecrosis\n2\tedema\n4\tenhancing\n")
    about = json.loads((out / "dataset_description.json").read_text())
    assert (about["DatasetType"], about["GeneratedBy"][0]["Name"]) == ("derivative", "pixelnet-tf")
    assert json.loads(Path(f"{stem}_probseg.json").read_text())["LabelMap"] == [
        "background", "necrosis", "edema", "enhancing"]
    for folder in ("overlays", "uncertainty"):
        (out / folder).mkdir()
        (out / folder / "patient_x.png").write_bytes(b"")
    assert validate(out) == []
    # Another call finds its cases again; a file that is not there is made anew, with its case.
    Path(f"{stem}_dseg.tsv").unlink()
    said = write(bids_study, out, PATTERN, "bids", maps=True)
    assert "2 finished cases are kept" in said.messages
    assert validate(out) == []
    # Which says something only if it finds what is wrong.
    Path(f"{stem}_dseg.nii.gz").rename(out / "sub-01" / "ses-02" / "dwi" / "sub-01_dseg.nii.gz")
    assert validate(out)


def test_one_label_is_a_mask(bids_study, tmp_path):
    study = replace(PATTERN.study, labels={0: "background", 4: "enhancing"}, regions={})
    cases = CaseSource.open(str(bids_study), replace(PATTERN, study=study)).cases
    output = output_of(OutputForm.BIDS, tmp_path, study, cases)
    output.begin()
    geometry = CaseSource.open(str(bids_study), PATTERN).read("sub-03").geometry
    labels = np.zeros(geometry.shape, np.uint8)
    labels[3:5, 4:7, 2] = 4
    output.write_beside("sub-03")
    output.files("sub-03")[0].write_bytes(output.data("sub-03", labels, geometry, "digest"))
    mask = nib.load(tmp_path / "sub-03" / "dwi" / "sub-03_mask.nii.gz")
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.dataobj, labels > 0)
    np.testing.assert_array_equal(output.read("sub-03")[0], labels)
    assert validate(tmp_path) == []


def test_cases_that_would_have_one_name_are_refused(tmp_path):
    cases = {name: Case(name) for name in ("a_1", "a-1", "sub-02")}
    with pytest.raises(DataError, match="the same name in BIDS as a_1, sub-a1") as error:
        output_of(OutputForm.BIDS, tmp_path, CONFIG.study, cases).check()
    assert error.value.case == "a-1"
    with pytest.raises(DataError, match="no ASCII letter or digit"):
        output_of(OutputForm.BIDS, tmp_path, CONFIG.study, {"_": Case("_")})
