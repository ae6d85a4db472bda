"""Colours of classes and of errors, the same in every picture and in the viewer."""

from __future__ import annotations

from pixelnet_tf.config import StudyConfig

#: The paper's Figure 2, by class name.
_PAPER_COLOURS = {"necrosis": "#e6194b", "enhancing": "#ffe119", "edema": "#3cb44b",
                  "lesion": "#e6194b"}
#: For classes that the paper does not have; told apart by readers with colour blindness too.
_FURTHER_COLOURS = ("#4363d8", "#f58231", "#42d4f4", "#f032e6", "#a9a9a9")
#: What a voxel of the errors is, and its colour; told apart by readers with colour blindness too.
ERRORS = {"missed": "#3a86ff", "false alarm": "#ff7f0e", "wrong class": "#c264ff"}


def class_colours(study: StudyConfig) -> dict[int, str]:
    """Label value -> colour, for every class but the background."""
    further = iter(_FURTHER_COLOURS * len(study.labels))
    lesions = [(value, name) for value, name in study.labels.items() if value != 0]
    if len(lesions) == 1:
        # One class is the lesion, however the study calls it.
        return {lesions[0][0]: _PAPER_COLOURS["lesion"]}
    return {value: _PAPER_COLOURS.get(name) or next(further) for value, name in lesions}
