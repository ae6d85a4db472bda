"""Weights of Caffe files into this project's model, layer by layer by name.

With the names that the layers of PixelNet and VGG-16 have in Caffe's files, and the table of what
became of each layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from pixelnet_tf.caffe.blobs import check_blobs, set_blobs
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.config import ExtraChannels
from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.architecture import BLOCKS
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import Layer, Network
from prototxt_import.errors import listed

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


_WIDEST = 80
MATCHED, CONVERTED, LEFT_OUT, NOT_IN_FILE = "matched", "converted", "left out", "not in the file"


@dataclass(frozen=True)
class MatchRow:
    """One layer: its name here and in the file (empty: it has none), and what was done."""

    layer: str
    source: str
    status: str
    detail: str = ""


@dataclass(frozen=True)
class MatchTable:
    """What was taken from a weight file; `print(table)` shows a line for each layer."""

    rows: tuple[MatchRow, ...]

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the model's layers whose weights come from the file."""
        return tuple(row.layer for row in self.rows if row.status in (MATCHED, CONVERTED))

    @property
    def new_layers(self) -> frozenset[str]:
        """Names of the model's layers that have weights, but keep their start weights."""
        return frozenset(row.layer for row in self.rows if row.layer) - set(self.loaded)

    def __str__(self) -> str:
        cells = [("layer", "in the file", "what was done", "")]
        cells += [(r.layer or "-", r.source or "-", r.status, r.detail) for r in self.rows]
        # A cell that is longer stands out of its column: names of files may have any length.
        widths = [min(max(len(row[column]) for row in cells), _WIDEST) for column in range(4)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        counts = {
            status: sum(row.status == status for row in self.rows)
            for status in (MATCHED, CONVERTED, LEFT_OUT, NOT_IN_FILE)
        }
        lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
        return "\n".join(lines)


#: How the first kernel is fitted to another number of channels.
CHANNEL_RULES = tuple(ExtraChannels.texts())
CONVOLUTIONS = tuple(name for block in BLOCKS for name in block)
#: Of layers that no file has weights for: VGG-16 has 138 million.
MAX_NEW_WEIGHTS = 200_000_000
_SCORES = "cls_score_new"


def load_caffemodel(model: PixelNet, path: str | Path, channel_rule: str = "average"
                    ) -> MatchTable:
    """Start a model from the weights of a `.caffemodel`: PixelNet's own, or VGG-16's.

    The file must have all thirteen convolutions; see `load_caffe_weights`.
    """
    network = read_network(None, path)
    try:
        return load_caffe_weights(model, network, required=CONVOLUTIONS,
                                  channel_rule=channel_rule)
    except ModelError as error:
        raise ModelError.of(error, file=path) from error


def load_caffe_weights(
    model: PixelNet,
    network: Network,
    *,
    required: Collection[str] = (),
    channel_rule: str = "average",
) -> MatchTable:
    """Give a model's layers the weights of the layers of the same names.

    fc6 and fc7 as InnerProduct become convolutions (an fc6 matrix `(out, in * 7 * 7)` is read in
    the order C, H, W). A score layer of another number of classes is left out. Where the file's
    first kernel has another number of channels than the model's, it is fitted by `fit_channels`.
    The order of the channels is the file's (BGR for VGG-16).

    Args:
        required: names of layers without which the file is refused.

    Raises `ModelError` for weights of a wrong shape, for a required layer that is missing, and
    where no layer has a name of PixelNet's.
    """
    shapes = model.architecture.blob_shapes(model.channels)
    rows, used = [], set()
    for name, match in match_weights(shapes, network, required, channel_rule).items():
        if match is None:
            rows.append(MatchRow(name, "", NOT_IN_FILE, "keeps its start weights"))
            continue
        used.add(match.source.name)
        if match.blobs is None:
            rows.append(MatchRow(name, match.source.name, LEFT_OUT, match.detail))
            continue
        target = model.parts[name]
        set_blobs(target, match.blobs)
        detail = "; ".join(filter(None, [match.detail, *_other_geometry(match.source, target)]))
        rows.append(MatchRow(name, match.source.name,
                             CONVERTED if match.detail else MATCHED, detail))
    rows += [
        MatchRow("", name, LEFT_OUT, "PixelNet has no such layer")
        for name in (*(one.name for one in network.layers if one.blobs and one.name not in used),
                     *network.unmatched)
    ]
    return MatchTable(tuple(rows))


class Match(NamedTuple):
    """A layer of the file for one of the model's, and its blobs as the model's has them.

    `blobs` is None where the layer is left out, `detail` says why, or what became of the blobs.
    """

    source: Layer
    blobs: tuple[np.ndarray, ...] | None
    detail: str


def match_weights(
    shapes: Mapping[str, tuple[tuple[int, ...], ...]], network: Network,
    required: Collection[str] = (), channel_rule: str = "average",
) -> dict[str, Match | None]:
    """Find the weights of each layer in a file, None for a layer that is not in it.

    Takes no memory for a model: what does not fit is said before there is one.

    Args:
        shapes: `Architecture.blob_shapes`.
        required: names of layers without which the file is refused.
        channel_rule: see `load_caffe_weights`.

    Raises `ModelError` as `load_caffe_weights` does, and where the layers that are not in the file
    have more than `MAX_NEW_WEIGHTS` weights.
    """
    if channel_rule not in CHANNEL_RULES:
        raise ModelError(f"channel_rule must be one of {list(CHANNEL_RULES)}, got {channel_rule!r}",
                         value=channel_rule)
    sources = {layer.name: layer for layer in network.layers if layer.blobs}
    found: dict[str, Match | None] = {}
    new = 0
    for name, wanted in shapes.items():
        source = next((sources[n] for n in names_in_files(name) if n in sources), None)
        if source is None and name in required:
            raise ModelError(
                f"layer {name!r} is missing (looked for {', '.join(names_in_files(name))}); "
                f"layers with weights: {listed(sources)}"
            )
        match = None if source is None else _match(name, wanted, source, channel_rule)
        found[name] = match
        if match is None or match.blobs is None:
            new += sum(math.prod(shape) for shape in wanted)
    if not any(match and match.blobs for match in found.values()):
        raise ModelError(
            "no layer with weights has a name of PixelNet's or VGG-16's; the names are "
            f"{listed(sources)}"
        )
    if new > MAX_NEW_WEIGHTS:
        missing = listed([name for name, match in found.items() if match is None])
        raise ModelError(f"the layers {missing} are not in the file and would start with {new:,} "
                         f"weights of their own, more than the {MAX_NEW_WEIGHTS:,} that are "
                         "allowed", hint="give files that belong together, or smaller widths")
    return found


def _match(name: str, shapes: tuple[tuple[int, ...], ...], source: Layer, channel_rule: str
           ) -> Match:
    blobs, notes = list(source.blobs), []
    if name == _SCORES and len(blobs) == 2 and blobs[1].shape != shapes[1]:
        return Match(source, None, f"{blobs[1].size} classes in the file, {shapes[1][0]} here")
    wanted = shapes[0]
    if len(wanted) == 4 and blobs[0].ndim == 2:
        blobs[0] = _as_kernel(name, source, blobs[0], wanted)
        notes.append("matrix to convolution, in the order C, H, W")
    elif len(wanted) == 2 and blobs[0].ndim == 2 and getattr(source.params, "transpose", False):
        blobs[0] = blobs[0].T
        notes.append("transposed")
    if name == "conv1_1" and blobs[0].ndim == 4 and blobs[0].shape[1] != wanted[1]:
        rule = _rule_for(blobs[0].shape[1], wanted[1], channel_rule)
        notes.append(f"{blobs[0].shape[1]} channels to {wanted[1]} by {rule}")
        blobs[0] = fit_channels(blobs[0], wanted[1], channel_rule)
    try:
        check_blobs(name, blobs, shapes)
    except ModelError as error:
        raise ModelError.of(error, source=f"layer {source.name!r} of the file") from error
    return Match(source, tuple(blobs), "; ".join(notes))


def _other_geometry(source: Layer, target: keras.layers.Layer) -> list[str]:
    """Say how the file's convolution is laid over its input otherwise than the model's."""
    if source.type != "Convolution" or not isinstance(target, keras.layers.Conv2D):
        return []
    same = target.padding == "same"
    here = {"pad": tuple(size // 2 if same else 0 for size in target.kernel_size),
            "dilation": tuple(target.dilation_rate), "stride": tuple(target.strides)}
    remarks = []
    for setting, pair in here.items():
        in_file = getattr(source.params, setting)
        if in_file != pair:
            shown = (str(p[0]) if p[0] == p[1] else f"{p[0]} x {p[1]}" for p in (in_file, pair))
            remarks.append(f"{setting} {{}} in the file, {{}} here".format(*shown))
    return remarks


def _as_kernel(name: str, source: Layer, matrix: np.ndarray, wanted: tuple) -> np.ndarray:
    if getattr(source.params, "transpose", False):
        matrix = matrix.T
    if matrix.shape != (wanted[0], int(np.prod(wanted[1:]))):
        raise ModelError(f"layer {source.name!r}: its matrix {matrix.shape} does not make the "
                         f"kernel {wanted} of {name!r}",
                         hint="check that weights and model.widths, model.fc_width belong together")
    return matrix.reshape(wanted)


def _rule_for(given: int, channels: int, rule: str) -> str:
    """The rule that counts: there is nothing to keep where there are fewer channels."""
    return ExtraChannels.AVERAGE if rule == ExtraChannels.KEEP and channels < given else rule


def fit_channels(kernel: np.ndarray, channels: int, rule: str = "average") -> np.ndarray:
    """Return a kernel `(out, in, height, width)` for another number of input channels.

    With `average` each channel gets the mean over the channels, with `repeat` the channels follow
    in turn. Both are scaled by in / channels, so that an image with equal channels keeps its
    response (with `repeat` only where `channels` is a multiple of `in`). With `keep` the first
    channels have the kernel as it is and the others zeros; fewer channels than there are get the
    mean.
    """
    given = kernel.shape[1]
    rule = _rule_for(given, channels, rule)
    if rule == ExtraChannels.KEEP:
        return np.pad(kernel, [(0, 0), (0, channels - given), (0, 0), (0, 0)])
    if rule == ExtraChannels.AVERAGE:
        turned = np.repeat(kernel.mean(axis=1, keepdims=True), channels, axis=1)
    else:
        turned = kernel[:, np.arange(channels) % given]
    return (turned * (given / channels)).astype(kernel.dtype)
