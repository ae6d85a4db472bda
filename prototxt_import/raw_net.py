"""A network as it stands in a file: protobuf messages, before and after Caffe's upgrades."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from prototxt_import.blob import Blob


@dataclass
class RawLayer:
    """One layer: its message (V1LayerParameter or LayerParameter, without blobs), its blobs,
    its line in a prototxt and the settings that Caffe's schema does not know."""

    message: Message
    blobs: tuple[Blob, ...] = ()
    line: int | None = None
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class RawNet:
    """A NetParameter without layers, the layers, and remarks about the upgrade."""

    message: Message
    layers: list[RawLayer]
    path: str
    notes: list[str] = field(default_factory=list)
