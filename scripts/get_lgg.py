"""Turn the LGG segmentation set's TIFF slices into the NIfTI folders that configs/lgg.yaml takes.

    python scripts/get_lgg.py kaggle_3m lgg            # the 24 patients of the README
    python scripts/get_lgg.py kaggle_3m lgg34 --split lgg_split.json  # and ten more, who validate
    python scripts/get_lgg.py kaggle_3m lgg_all --all  # all 110

The set is that of Buda, Saha and Mazurowski (2019), TCGA-LGG: download "Brain MRI segmentation"
(mateuszbuda/lgg-mri-segmentation, 1 GB) from Kaggle, which wants an account, and unpack it; the
first argument is the folder that holds TCGA_CS_4941_19960909 and its like. Images of TCGA are under
CC BY 3.0, the masks under CC BY-NC-SA 4.0.

A slice is a TIFF of three channels, T1, FLAIR and T1 with contrast, beside its mask. A patient's
folder gets a volume of each and `_seg`: 256x256xN, uint8, 1 mm (the set does not tell the spacing),
the mask 0 and 1. What is there already is left alone. Needs Pillow (`pip install ".[report]"`).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nibabel
import numpy as np

from pixelnet_tf.errors import DataError, PixelNetError, require
from pixelnet_tf.io.files import replacing_folder, write_json

#: The patients of the README's figures, and those of them who are tested (as configs/lgg.yaml's
#: `split.seed` draws them); the others are trained on.
PATIENTS = """
CS_4942_19970222 CS_4944_20010208 CS_5396_20010302 DU_5852_19950709 DU_6401_19831001
DU_7304_19930325 DU_7306_19930512 DU_7309_19960831 DU_8163_19961119 DU_8167_19970402
DU_A5TR_19970726 DU_A5TY_19970709 FG_6688_20020215 FG_6689_20020326 FG_6690_20020226
FG_6691_20020405 FG_A4MT_20020212 HT_7475_19970918 HT_7608_19940304 HT_7680_19970202
HT_7692_19960724 HT_7694_19950404 HT_7884_19980913 HT_A61A_20000127
""".split()
TEST = """
CS_5396_20010302 DU_6401_19831001 DU_A5TR_19970726 DU_A5TY_19970709 HT_7608_19940304
HT_7694_19950404
""".split()
#: Ten more, on whom every setting and decision is judged, so that none is on the six.
VALIDATION = """
CS_4941_19960909 CS_6668_20011025 DU_6399_19830416 DU_7018_19911220 DU_7301_19911112
DU_8168_19970503 FG_7634_20000128 HT_7473_19970826 HT_7860_19960513 HT_8105_19980826
""".split()
#: What the channels of a slice are, in their order.
CHANNELS = ("t1", "flair", "t1ce")
#: Rows run from front to back, columns from the patient's right to the left, slices upwards.
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def slices_of(folder: Path) -> list[tuple[Path, Path]]:
    """The images and masks of a patient in the order of their numbers, which begin at 1.

    Raises:
        DataError: a number or a mask is missing.
    """
    name = re.compile(rf"{re.escape(folder.name)}_(\d+)\.tiff?$")
    images = {int(found[1]): path for path in folder.iterdir() if (found := name.match(path.name))}
    if sorted(images) != list(range(1, len(images) + 1)) or not images:
        raise DataError(f"{folder}: the slices must be {folder.name}_1.tif, _2.tif and so on "
                        f"without a gap, found the numbers {sorted(images)}; unpack the set again",
                        case=folder.name, file=folder)
    pairs = []
    for number in sorted(images):
        image = images[number]
        mask = image.with_name(f"{image.stem}_mask{image.suffix}")
        if not mask.is_file():
            raise DataError(f"{folder}: {image.name} has no mask {mask.name}; unpack the set again",
                            case=folder.name, file=mask)
        pairs.append((image, mask))
    return pairs


def read_patient(folder: Path) -> dict[str, np.ndarray]:
    """T1, FLAIR, T1 with contrast and mask of a patient, each `(x, y, z)` uint8.

    Raises:
        DataError: slices that are missing, unreadable or of other shapes or values.
    """
    from PIL import Image, UnidentifiedImageError

    rows: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for image, mask in slices_of(folder):
        try:
            row, drawn = np.asarray(Image.open(image)), np.asarray(Image.open(mask))
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{folder}: {image.name} or its mask cannot be read ({error}); unpack "
                            "the set again", case=folder.name, file=image) from None
        if row.dtype != np.uint8 or row.ndim != 3 or row.shape[2] != 3 or (
                rows and row.shape != rows[0].shape):
            raise DataError(f"{image}: must have three channels of uint8 and the size of the other "
                            f"slices, got {row.dtype} {row.shape}", case=folder.name, file=image)
        if drawn.shape != row.shape[:2] or not np.isin(drawn, (0, 255)).all():
            raise DataError(f"{mask}: must be one channel of the image's size with 0 and 255 only, "
                            f"got {drawn.shape} with {np.unique(drawn)[:5]}", case=folder.name,
                            file=mask)
        rows.append(row)
        masks.append((drawn > 0).astype(np.uint8))
    # (slice, row, column) to (column, row, slice): x, y, z of the affine.
    stack = np.stack(rows).transpose(2, 1, 0, 3)
    volumes = {name: stack[..., channel] for channel, name in enumerate(CHANNELS)}
    return {**volumes, "seg": np.stack(masks).transpose(2, 1, 0)}


def convert(folder: Path, out: Path) -> str:
    """Write a patient's NIfTI folder; returns what to say of it."""
    volumes = read_patient(folder)
    with replacing_folder(out) as made:
        for name, volume in volumes.items():
            image = nibabel.Nifti1Image(np.ascontiguousarray(volume), AFFINE)
            image.header.set_xyzt_units("mm")
            nibabel.save(image, made / f"{folder.name}_{name}.nii.gz")
    # Where a patient lacks a series, the set's authors put FLAIR in its place.
    copied = [name for name in ("t1", "t1ce") if np.array_equal(volumes[name], volumes["flair"])]
    return (f"{volumes['seg'].shape[2]} slices, {int(volumes['seg'].sum())} voxels of lesion"
            + (f"; no {' and no '.join(copied)}, which is FLAIR again" if copied else ""))


def split() -> dict[str, list[str]]:
    """Who trains, validates and is tested in the README's figure of `pixelnet-tf run`."""
    train = [name for name in PATIENTS if name not in TEST]
    return {part: [f"TCGA_{name}" for name in names] for part, names in (
        ("train", train), ("validation", VALIDATION), ("test", TEST))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the unpacked set: kaggle_3m")
    parser.add_argument("out", type=Path, help="the study to write: a folder a patient")
    more = parser.add_mutually_exclusive_group()
    more.add_argument("--split", type=Path, help="ten patients more, and this file for `run "
                      "--split`: 18 to train on, the ten to validate, six to test")
    more.add_argument("--all", action="store_true", help="all patients, not the README's 24")
    given = parser.parse_args()
    require("reading TIFF", "report", "PIL")
    wanted = {f"TCGA_{name}" for name in PATIENTS + (VALIDATION if given.split else [])}
    found = {path.name: path for path in sorted(given.source.glob("TCGA_*")) if path.is_dir()}
    if not found:
        raise DataError(f"{given.source}: no folder TCGA_* in it; give the folder kaggle_3m of the "
                        "unpacked set", file=given.source)
    if missing := [] if given.all else sorted(wanted - set(found)):
        raise DataError(f"{given.source}: lacks {missing}; unpack the whole set, or take what is "
                        "there by --all", file=given.source)
    for name, folder in found.items():
        if not (given.all or name in wanted):
            continue
        out = given.out / name
        print(f"{name}: {'is there already' if out.is_dir() else convert(folder, out)}", flush=True)
    if given.split:
        write_json(given.split, split())
    print(f"now: pixelnet-tf run {given.out} OUT --split {given.split}" if given.split else
          f"now: pixelnet-tf prepare --config lgg --data {given.out} --out lgg_prepared")


if __name__ == "__main__":
    try:
        main()
    except PixelNetError as error:
        sys.exit(f"error: {error}")
