"""Names of files and of modalities, as studies write them."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePath

from pixelnet_tf.errors import DataError

#: What a case calls its segmentation, beside the modalities.
SEGMENTATION = "seg"
#: Endings of a NIfTI file in one piece.
NIFTI_ENDINGS = (".nii.gz", ".nii")
#: Endings of every form that an image is read in; a pair is told by either half.
IMAGE_ENDINGS = (*NIFTI_ENDINGS, ".hdr", ".img", ".mgz", ".mgh", ".nrrd", ".mha", ".mhd")

#: The name that a modality goes by here -> what data sets call it, folded as `folded` does.
_MODALITY_WORDS = {
    "flair": ("t2f", "t2flair", "t2_flair", "flair_t2", "t2w_flair", "dark_fluid"),
    "t1ce": ("t1c", "t1gd", "t1_gd", "gd_t1", "t1ce", "t1_ce", "t1post", "t1_post", "t1wce",
             "t1w_ce", "t1cew", "ce_t1w", "t1gad", "t1km", "t1_km", "t1_contrast", "t1w_gd",
             "t1wgd", "t1gdw", "t1_c"),
    "t1": ("t1n", "t1w", "t1_n", "t1_w", "t1_native", "t1native", "t1pre", "t1_pre"),
    "t2": ("t2w", "t2_w"),
    "pd": ("pdw", "proton_density"),
    "dwi": ("b1000", "trace", "dwi_b1000"),
    "cbf": ("rcbf",),
    "cbv": ("rcbv",),
    "4dpwi": ("pwi",),
    "swi": ("swan",),
    "t2star": ("t2starw", "gre"),
}
_SEGMENTATION_WORDS = ("segmentation", "segm", "label", "labels", "lesion", "lesions",
                       "lesion_mask", "lesionmask", "gt", "truth", "ground_truth", "mask", "msk",
                       "lesion_msk", "roi", "dseg", "ot")
#: Words of a description that tell of a contrast agent; `+C` is folded to the last one.
_CONTRAST = frozenset({"gd", "gad", "gado", "gadolinium", "post", "postcontrast", "contrast", "ce",
                       "km", "c"})
_CANONICAL = {word: name for name, words in _MODALITY_WORDS.items() for word in (name, *words)} | {
    word: SEGMENTATION for word in (SEGMENTATION, *_SEGMENTATION_WORDS)}
#: Modalities that a newcomer's channels are ordered by; others come after them, by name.
_USUAL_ORDER = ("flair", "t1ce", "t2", "t1", "pd", "dwi", "adc", "cbf", "cbv", "mtt", "ttp", "tmax",
                "swi", "t2star", "fa", "md", "asl", "ktrans", "ct", "ncct")


def folded(word: str) -> str:
    """A name of a modality with capitals, signs and blanks made equal: `T1-Gd` is `t1_gd`."""
    word = unicodedata.normalize("NFC", word).lower().replace("*", "star")
    return re.sub(r"[^\w]+", "_", word).strip("_")


def canonical(word: str) -> str:
    """The name that a modality goes by here, whatever a data set calls it: `T1w` is `t1`.

    An unknown name is folded, and stays what it is.
    """
    return _CANONICAL.get(folded(word), folded(word))


def is_known(word: str) -> bool:
    """Whether a word is a name of a modality, or of a segmentation, that data sets use."""
    return canonical(word) in _CANONICAL or canonical(word) in _USUAL_ORDER


def modality_in(text: str) -> str | None:
    """The modality that a description speaks of, as people write one: `Ax T1 +C` is `t1ce`.

    The longest words that are known count, and of equal ones the first; None: no word is known.
    """
    words = [folded(word) for word in re.split(r"[^\w+*]+|_", text) if folded(word)]
    for length in (3, 2, 1):
        for place in range(len(words) - length + 1):
            found = "_".join(words[place:place + length])
            if is_known(found) and canonical(found) != SEGMENTATION:
                known = canonical(found)
                return "t1ce" if known == "t1" and _CONTRAST.intersection(words) else known
    return None


def usual_order(modality: str) -> tuple[int, str]:
    """Key that sorts modalities as the paper has them: FLAIR, T1 with contrast, T2, then others."""
    place = _USUAL_ORDER.index(modality) if modality in _USUAL_ORDER else len(_USUAL_ORDER)
    return place, modality


def case_name(text: str) -> str:
    """A case's name in the one Unicode form that names are compared in.

    File systems write an accented letter as one character or as two; both are one name.

    Raises:
        DataError: the name on the disk is no UTF-8.
    """
    if fault := name_fault(text):
        raise fault
    return unicodedata.normalize("NFC", text)


def nifti_stem(name: str) -> str | None:
    """The name of a NIfTI file without its ending, however that is written; None for other files.

    Hidden files are none, among them the `._name` that macOS writes beside every file.
    """
    return _stem(name, NIFTI_ENDINGS)


def image_stem(name: str) -> str | None:
    """The name of an image file of any form without its ending, as `nifti_stem` does."""
    return _stem(name, IMAGE_ENDINGS)


def _stem(name: str, endings: tuple[str, ...]) -> str | None:
    ending = next((each for each in endings if name.lower().endswith(each)), None)
    return None if ending is None or name.startswith(".") else name[:-len(ending)]


def image_files(folder: Path, below: bool = True) -> list[Path]:
    """The image files in a folder, and below it, in order; links to some that are not there, too.

    A pair of `.hdr` and `.img` counts as one file, its header.
    """
    found = [path for path in sorted(folder.rglob("*") if below else folder.iterdir())
             if image_stem(path.name) is not None and not is_hidden(path) and is_there(path)]
    headers = {path.with_suffix("") for path in found if path.suffix.lower() == ".hdr"}
    return [path for path in found
            if path.suffix.lower() != ".img" or path.with_suffix("") not in headers]


def folders(parent: Path) -> list[Path]:
    """The folders in a folder, in order, without hidden ones and what macOS packs beside files."""
    return [path for path in sorted(parent.iterdir())
            if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]


def is_hidden(path: PurePath) -> bool:
    """Whether a file is no part of a study: hidden, or packed beside the files by macOS."""
    return path.name.startswith(".") or "__MACOSX" in path.parts


def is_there(path: Path) -> bool:
    """Whether a file is there, or a link to one that is not: whoever reads that says what to do."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def compared(name: str) -> str:
    """A name on the disk in the one form that it is compared with others in."""
    return unicodedata.normalize("NFC", name).lower()


def printable(text: str) -> str:
    """A name on the disk as it can be printed, whatever its bytes are."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def name_fault(text: str) -> DataError | None:
    """What is wrong with a name on the disk that is no UTF-8; else None."""
    shown = printable(text)
    return None if shown == text else DataError("the name is no UTF-8 text", file=shown,
                                                hint="rename it")
