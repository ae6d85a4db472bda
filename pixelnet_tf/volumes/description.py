"""What a network's slices and labels are, in plain values: for whoever has only its files."""

from __future__ import annotations

from typing import Any

from pixelnet_tf.config import NormRegion, PrepareConfig, StudyConfig, config_to_dict
from pixelnet_tf.volumes.normalize import CORE_DEPTH

_VIEW = "axial slices, row 0 anterior, column 0 the patient's right"


def describe_slices(study: StudyConfig, prepare: PrepareConfig) -> dict[str, Any]:
    """View and normalisation of the slices that `prepare_case` gives, as JSON takes it.

    The modalities of the bias field's correction are those that it is done for. The brain mask and
    the z-score are told in words, too, because no setting states all of them.
    """
    field, region = prepare.bias_field, prepare.region
    corrected = (field.modalities or study.modalities) if field.enabled else ()
    return {
        "view": _VIEW,
        "bias_field": {**config_to_dict(field), "modalities": list(corrected)},
        "skull_stripped": study.skull_stripped,
        "brain_mask": study.has_brain_mask,
        "brain": brain_words(study),
        "z_score_over": region.value,
        "z_score": z_score_words(region),
        "slice_size": prepare.slice_size,
    }


def describe_classes(study: StudyConfig) -> list[dict[str, Any]]:
    """Index, label value and name of each class."""
    return [{"index": index, "value": value, "name": name}
            for index, (value, name) in enumerate(study.labels.items())]


def brain_words(study: StudyConfig) -> str:
    """How the brain mask is found."""
    if study.has_brain_mask:
        return "given with each case: brain where the value is above 0.5"
    if study.skull_stripped:
        return "where any channel is not 0, holes filled slice by slice"
    return ("the head: Otsu's threshold on the mean of the channels (each scaled by its 99th "
            "percentile), closed, the largest piece, holes filled slice by slice, grown by a voxel")


def z_score_words(region: NormRegion) -> str:
    """How a channel is normalised, for a value of `prepare.region`."""
    over = {NormRegion.BRAIN: "brain of its volume", NormRegion.VOLUME: "whole of its volume",
            NormRegion.CORE: f"core of its volume (brain mask, {CORE_DEPTH} pixels and more from "
                             "its outline)"}[region]
    outside = "" if region == NormRegion.VOLUME else ", and is exactly 0 outside the brain mask"
    return f"each channel has mean 0 and standard deviation 1 over the {over}{outside}"
