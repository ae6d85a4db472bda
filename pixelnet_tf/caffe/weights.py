"""Caffe's weights into a PixelNet, by layer name, with a table of what became of each layer."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from pixelnet_tf.errors import ModelError
from pixelnet_tf.model.batch_norm import CaffeBatchNorm
from pixelnet_tf.model.pixelnet import PixelNet
from prototxt_import import CaffeFormatError, Network, load_network


@dataclass(frozen=True)
class LayerMatch:
    """What became of one layer: `matched`, `converted` or `left out`, and why."""

    layer: str
    outcome: str
    shape: str
    note: str = ""


@dataclass(frozen=True)
class MatchTable:
    """Outcome of an import, one row a layer; prints as a table."""

    rows: tuple[LayerMatch, ...]

    def of(self, outcome: str) -> list[str]:
        """Names of the layers with this outcome."""
        return [row.layer for row in self.rows if row.outcome == outcome]

    def __str__(self) -> str:
        cells = [("layer", "outcome", "shape", "note")]
        cells += [(row.layer, row.outcome, row.shape, row.note) for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(3)]
        return "\n".join("  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]).rstrip()
                         for row in cells)


def load_caffemodel(model: PixelNet, caffemodel: str, prototxt: str | None = None) -> MatchTable:
    """Copy the weights of a .caffemodel (or .caffemodel.h5) file into a PixelNet.

    Raises:
        ModelError: the file is broken, or as `load_caffe_weights`.
    """
    try:
        return load_caffe_weights(model, load_network(prototxt, caffemodel))
    except CaffeFormatError as error:
        raise ModelError(str(error)) from None


def load_caffe_weights(model: PixelNet, network: Network) -> MatchTable:
    """Copy weights by layer name from a Caffe network into a PixelNet.

    Convolution blobs (out, in, h, w) become kernels (h, w, in, out); InnerProduct blobs (out, in)
    become (in, out), and for fc6_conv and fc7_conv the matrix of a classification VGG-16's fc6 and
    fc7 is read as (out, 512, 7, 7) in Caffe's C, H, W order. Where conv1_1 has another number of
    input channels than the model, each channel gets the mean kernel times (theirs / ours): a gray
    image, the same in every channel, keeps its response. Scores of another number of classes are
    left out.

    Raises:
        ModelError: a layer of the right name whose weights fit neither directly nor by one of
            these rules, or no layer that fits at all.
    """
    theirs = {layer.name: layer for layer in network.layers if layer.blobs}
    rows, used = [], set()
    for name, layer in model.parts.items():
        if not layer.weights:
            continue
        shape = "x".join(map(str, layer.weights[0].shape))
        source = name if name in theirs else _other_name(name, theirs)
        if source is None:
            rows.append(LayerMatch(name, "left out", shape, "not in the file: keeps its own start"))
            continue
        used.add(source)
        values, note = _fit(layer, theirs[source].blobs, source)
        if values is None:
            rows.append(LayerMatch(name, "left out", shape, note))
            continue
        layer.set_weights(values)
        model.untrained_layers.discard(name)
        if source != name:
            note = f"from {source}; {note}" if note else f"from {source}"
        rows.append(LayerMatch(name, "converted" if note else "matched", shape, note))
    for name, layer in theirs.items():
        if name not in used:
            shape = "x".join(map(str, layer.blobs[0].shape))
            rows.append(LayerMatch(name, "left out", shape, "the model has no such layer"))
    table = MatchTable(tuple(rows))
    if not (table.of("matched") or table.of("converted")):
        raise ModelError(f"{network.name}: no layer of the file fits the model; the model's layers "
                         f"are {list(model.parts)}, the file's {list(theirs)}")
    return table


def _other_name(name: str, theirs) -> str | None:
    """A classification VGG-16 calls fc6_conv and fc7_conv fc6 and fc7."""
    plain = name.removesuffix("_conv")
    return plain if plain != name and plain in theirs else None


def _fit(layer, blobs, name: str) -> tuple[list[np.ndarray] | None, str]:
    """Weights in Keras' order and what was done to them; None and the reason if left out."""
    if isinstance(layer, CaffeBatchNorm):
        values, note = [np.ravel(blob) for blob in blobs], ""
    elif isinstance(layer, keras.layers.Conv2D):
        kernel, note = _convolution(layer.kernel.shape, np.asarray(blobs[0]))
        values = [kernel, *_bias(layer, blobs)]
    else:
        matrix = np.asarray(blobs[0])
        values, note = [matrix.reshape(matrix.shape[-2:]).T, *_bias(layer, blobs)], ""
        if name.startswith(("cls_score", "fc8")) and values[0].shape != layer.kernel.shape:
            return None, f"scores of {values[0].shape[1]} classes, the model has {layer.units}"
    wanted = [tuple(weight.shape) for weight in layer.weights]
    got = [value.shape for value in values]
    if wanted != got:
        raise ModelError(f"layer {name}: the file's weights are {got} (height, width, in, out; in, "
                         f"out), the model wants {wanted}; set model.widths, model.fc_width and "
                         "model.head_widths to the file's")
    return values, note


def _bias(layer, blobs) -> list[np.ndarray]:
    if len(blobs) > 1:
        return [np.ravel(blobs[1])]
    return [np.zeros(layer.bias.shape, np.float32)]


def _convolution(shape, blob: np.ndarray) -> tuple[np.ndarray, str]:
    height, width, channels, _ = shape
    note = ""
    if blob.size == blob.shape[0] * height * width * channels and blob.shape[2:] != (height, width):
        blob = blob.reshape(-1, channels, height, width)
        note = "InnerProduct read as a convolution, C, H, W"
    elif blob.ndim == 4 and blob.shape[1] in (1, 3) and blob.shape[1] != channels:
        note = f"mean kernel of {blob.shape[1]} channels, times {blob.shape[1]}/{channels}"
        scale = blob.shape[1] / channels
        blob = np.repeat(blob.mean(axis=1, keepdims=True) * np.float32(scale), channels, axis=1)
    return (blob.transpose(2, 3, 1, 0) if blob.ndim == 4 else blob), note
