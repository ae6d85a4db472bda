"""Writing a network: `.prototxt`, `.caffemodel` or, by its ending, `.caffemodel.h5`."""

from __future__ import annotations

import os

import numpy as np
from google.protobuf import text_format

from prototxt_import import wire
from prototxt_import.blob import blob_header
from prototxt_import.build_network import layer_message, net_message
from prototxt_import.errors import CaffeFormatError
from prototxt_import.files import atomic_path
from prototxt_import.hdf5 import write_hdf5
from prototxt_import.layer import Layer
from prototxt_import.network import Network

_LAYER, _BLOBS = 100, 7
_MAX_BYTES = (1 << 31) - 1  # protobuf's limit, and so Caffe's


def save_prototxt(path: str | os.PathLike, network: Network) -> None:
    """Write the description of `network`, without weights, as current prototxt.

    Raises
    ------
    CaffeFormatError
        A layer has settings for which Caffe's schema has no field.

    Examples
    --------
    >>> from prototxt_import import load_network, save_prototxt
    >>> save_prototxt("copy.prototxt", load_network("deploy.prototxt"))
    >>> load_network("copy.prototxt").name
    'narrow_pixelnet_mlp'
    """
    net = net_message(network)
    for layer in network.layers:
        try:
            net.layer.append(layer_message(layer))
        except (ValueError, TypeError) as error:
            raise CaffeFormatError(
                f"layer {layer.name!r} ({layer.type}) cannot be written: {error}",
                path,
                layer.line,
            ) from None
    text = text_format.MessageToString(net, as_utf8=True)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def save_caffemodel(path: str | os.PathLike, network: Network) -> None:
    """Write `network` with its weights in Caffe's current format.

    A path that ends in `.h5` gets Caffe's HDF5 form, which holds the weights alone. Weights go from
    their arrays to the file without a second copy.

    Raises
    ------
    CaffeFormatError
        A layer has settings for which Caffe's schema has no field, or the model is larger than the
        2 GiB that Caffe can read.

    Examples
    --------
    >>> from prototxt_import import load_network, save_caffemodel
    >>> network = load_network("deploy.prototxt", "weights.caffemodel")
    >>> save_caffemodel("copy.caffemodel", network)
    >>> load_network(None, "copy.caffemodel").layer("conv1_1").blobs[0].shape
    (4, 3, 3, 3)
    """
    if os.fspath(path).endswith(".h5"):
        with atomic_path(path) as temporary:
            write_hdf5(temporary, network)
        return
    net = net_message(network)
    headers = [_encode_layer(layer, path) for layer in network.layers]
    weights = sum(blob.size for layer in network.layers for blob in layer.blobs)
    total = 4 * weights + sum(len(description) for description, _ in headers)
    if total > _MAX_BYTES:
        raise CaffeFormatError(
            f"the model takes {total:,} bytes, more than the {_MAX_BYTES:,} that Caffe reads; "
            "save it as .caffemodel.h5",
            path,
        )
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(net.SerializeToString())
        for layer, (description, blob_headers) in zip(network.layers, headers, strict=True):
            sizes = [len(h) + 4 * b.size for h, b in zip(blob_headers, layer.blobs, strict=True)]
            fields = [wire.encode_header(_BLOBS, size) for size in sizes]
            length = len(description) + sum(map(len, fields)) + sum(sizes)
            file.write(wire.encode_header(_LAYER, length) + description)
            for field, header, blob in zip(fields, blob_headers, layer.blobs, strict=True):
                file.write(field + header)
                file.write(np.ascontiguousarray(blob, "<f4").data.cast("B"))


def _encode_layer(layer: Layer, path: str | os.PathLike) -> tuple[bytes, list[bytes]]:
    try:
        description = layer_message(layer).SerializeToString()
    except (ValueError, TypeError) as error:
        raise CaffeFormatError(
            f"layer {layer.name!r} ({layer.type}) cannot be written: {error}", path, layer.line
        ) from None
    return description, [blob_header(blob) for blob in layer.blobs]
