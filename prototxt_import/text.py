"""Reading `.prototxt` files: protobuf's text format, with the line of each layer."""

from __future__ import annotations

import codecs
import os
import re
import warnings
from collections.abc import Sequence

from google.protobuf import text_format
from google.protobuf.message import Message

from prototxt_import.errors import CaffeFormatError
from prototxt_import.files import HDF5_MAGIC, check_model_file
from prototxt_import.message_value import get_value, set_value
from prototxt_import.params import PARAMS_BY_TYPE
from prototxt_import.raw_net import RawLayer, RawNet
from prototxt_import.schema import new_message
from prototxt_import.text_tree import Node, TextTreeError, parse_tree, to_mapping

MAX_TEXT_BYTES = 16 << 20


def read_prototxt(path: str | os.PathLike) -> RawNet:
    """Return the network that a prototxt describes, each layer with its line.

    Weights written into a prototxt are left out, with a note. Raises CaffeFormatError, with
    line and column, for text that is not Caffe's.
    """
    path = os.fspath(path)
    raw = net_from_text(read_text(path, "prototxt"), path)
    if not raw.layers and not raw.message.input:
        raise CaffeFormatError("it describes no layer; give the prototxt of a network", path)
    return raw


def net_from_text(text: str, path: str) -> RawNet:
    """Return the network of a prototxt's text; `path` names it in errors."""
    tree = _tree(text, path)
    layer_nodes = [node for node in tree if node.name in ("layer", "layers")]
    unknown = [_unknown_settings(node) for node in layer_nodes]
    known_text = _blank(text, [setting for settings in unknown for setting in settings])
    net = _fill(new_message("NetParameter"), known_text, path)
    return _split(net, layer_nodes, [to_mapping(settings) for settings in unknown], path)


def read_text(path: str | os.PathLike, kind: str) -> str:
    """Return the text of a file; raises CaffeFormatError if it is binary or far too large."""
    head = check_model_file(path, kind)
    if head.startswith(HDF5_MAGIC):
        raise CaffeFormatError(f"this is an HDF5 model, not a {kind}; pass it as caffemodel", path)
    if os.path.getsize(path) > MAX_TEXT_BYTES:
        raise CaffeFormatError(
            f"this file is larger than {MAX_TEXT_BYTES >> 20} MiB, which no {kind} is; "
            "pass a binary model as caffemodel",
            path,
        )
    with open(path, "rb") as file:
        data = file.read()
    if b"\0" in data or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 10:
        raise CaffeFormatError(
            f"this is a binary file, not a {kind}; pass a binary model as caffemodel", path
        )
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # comments in some older encoding, as Caffe accepts them


def parse_text(message: Message, text: str, path: str) -> Message:
    """Fill `message` from protobuf text; raises CaffeFormatError with line and column."""
    _tree(text, path)  # what would take protobuf's own parser too long is refused
    return _fill(message, text, path)


def _fill(message: Message, text: str, path: str) -> Message:
    try:
        with warnings.catch_warnings():  # of Python, about odd escapes inside the text's strings
            warnings.simplefilter("ignore")
            return text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        prefix = f"{line}:{column} : "
        reason = str(error).removeprefix(prefix)
        raise CaffeFormatError(
            f"syntax error: {reason}; correct this line", path, line, column
        ) from None
    except (RecursionError, UnicodeError, ValueError, OverflowError) as error:
        raise CaffeFormatError(f"this is no prototxt of Caffe: {error}", path) from None


def _tree(text: str, path: str) -> list[Node]:
    try:
        return parse_tree(text)
    except TextTreeError as error:
        raise CaffeFormatError(
            f"syntax error: {error}; correct this line", path, error.line, error.column
        ) from None


def _unknown_settings(layer: Node) -> list[Node]:
    """Settings that Caffe's schema lacks, of a layer whose type is not one of Caffe's own."""
    if layer.child_value("type") in PARAMS_BY_TYPE or layer.name == "layers":
        return []
    known = new_message("LayerParameter").DESCRIPTOR.fields_by_name
    return [node for node in layer.children or () if node.name not in known]


def _blank(text: str, nodes: list[Node]) -> str:
    """Return `text` with spaces for `nodes`, so that lines and columns stay as they are."""
    pieces, position = [], 0
    for node in nodes:
        pieces.append(text[position : node.start])
        pieces.append(re.sub(r"[^\n]", " ", text[node.start : node.end]))
        position = node.end
    return "".join(pieces) + text[position:]


def _split(net: Message, nodes: list[Node], unknown: list[dict], path: str) -> RawNet:
    # Where old layers stand, Caffe ignores new ones.
    field, messages = ("layers", net.layers) if net.layers else ("layer", net.layer)
    places: list[tuple[int | None, dict]] = [
        (n.line, u) for n, u in zip(nodes, unknown, strict=True) if n.name == field
    ]
    return _raw_net(net, messages, places, path)


def net_from_message(net: Message, path: str) -> RawNet:
    """Return the network of a NetParameter that stands inside another text, without lines."""
    messages = net.layers or net.layer
    return _raw_net(net, messages, [(None, {})] * len(messages), path)


def _raw_net(
    net: Message, messages: Sequence[Message], places: list[tuple[int | None, dict]], path: str
) -> RawNet:
    layers = [
        RawLayer(message, line=line, unknown=settings)
        for message, (line, settings) in zip(messages, places, strict=True)
    ]
    raw = RawNet(new_message("NetParameter"), layers, path)
    has_blobs = False
    for layer in layers:
        is_v1 = layer.message.DESCRIPTOR.name == "V1LayerParameter"
        parts = [layer.message, layer.message.layer] if is_v1 else [layer.message]
        for part in parts:
            has_blobs = has_blobs or bool(part.blobs)
            if part.blobs:
                part.ClearField("blobs")
    if has_blobs:
        raw.notes.append("weights written into the prototxt are left out; give the caffemodel")
    for field, _ in net.ListFields():
        if field.name not in ("layer", "layers"):
            set_value(raw.message, field, get_value(net, field))
    return raw
