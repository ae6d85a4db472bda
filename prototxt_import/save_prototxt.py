"""Writing a network as a `.prototxt`."""

from __future__ import annotations

import os

from google.protobuf import text_format

from prototxt_import.build_network import layer_message, net_message
from prototxt_import.errors import CaffeFormatError
from prototxt_import.files import atomic_path
from prototxt_import.network import Network


def save_prototxt(path: str | os.PathLike, network: Network) -> None:
    """Write the description of `network`, without weights, as current prototxt.

    Raises CaffeFormatError for a layer that is outside Caffe's schema.

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
