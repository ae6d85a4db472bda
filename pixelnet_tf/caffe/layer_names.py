"""Names that the layers of PixelNet and VGG-16 have in Caffe's files."""

from __future__ import annotations

#: Layer of this project's model -> its names in the authors' files, in VGG-16's, and in those of
#: the Python port, the most specific first.
ALIASES = {
    "fc6_conv": ("fc6_conv", "fc6o", "fc6-conv", "fc6"),
    "fc7_conv": ("fc7_conv", "fc7o", "fc7-conv", "fc7"),
    "bn_fc7_conv": ("bn_fc7_conv", "bn_conv7"),
    "fc6_new": ("fc6_new", "fc6n", "fc6_hcol"),
    "fc7_new": ("fc7_new", "fc7n", "fc7_hcol"),
    "cls_score_new": ("cls_score_new", "cls_score", "fc8_hcol"),
}


def names_in_files(layer: str) -> tuple[str, ...]:
    """Names under which a layer of the model may stand in a Caffe file."""
    return ALIASES.get(layer, (layer,))
