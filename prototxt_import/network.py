"""A network: its layers in order, with typed settings and weights."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from prototxt_import.errors import listed
from prototxt_import.layer import UNCHOSEN, Layer, NetState, expected_blobs
from prototxt_import.params import InputParams

_WIDEST = 80
_SIZES = ("kernel", "stride", "pad", "dilation")  # printed as 3x3


class Input(NamedTuple):
    """An input blob and its shape in Caffe's axis order; the shape is () where no file states it.

    Examples
    --------
    >>> from prototxt_import import Input
    >>> Input("data", (1, 3, 224, 224)).shape
    (1, 3, 224, 224)
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """An immutable network description; `print(network)` shows it as a table.

    Attributes
    ----------
    name, layers
        As in the file, the layers in its order.
    unmatched
        Names of the layers of the model file that the prototxt does not have.
    notes
        What was brought to the current form, or left out, when the files were read.
    force_backward
        Caffe's setting of that name.
    state
        The phase, level and stages by which the layers were chosen. Where the phase is None, all
        layers are there, and the level and stages are those to choose by.

    Examples
    --------
    >>> from prototxt_import import load_network
    >>> network = load_network("deploy.prototxt")
    >>> network.name, network.layers[-1].name, network.inputs[0].shape
    ('narrow_pixelnet_mlp', 'loss_opt', (1, 3, 261, 277))
    """

    name: str
    layers: tuple[Layer, ...]
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    force_backward: bool = False
    state: NetState = UNCHOSEN

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The tops of all Input layers, in order."""
        found = []
        for layer in self.layers:
            if layer.type == "Input":
                shapes = layer.params_as(InputParams).shape or ((),)
                for index, top in enumerate(layer.tops):
                    found.append(Input(top, tuple(shapes[min(index, len(shapes) - 1)])))
        return tuple(found)

    @property
    def without_weights(self) -> tuple[str, ...]:
        """The layers that need weights and have none: they would start from their fillers.

        A layer whose blobs all belong to another layer as well has that one's.
        """
        given = {layer.param_spec(i).name for layer in self.layers
                 for i in range(len(layer.blobs))}
        return tuple(
            layer.name for layer in self.layers
            if not layer.blobs and any(
                not layer.param_spec(i).name or layer.param_spec(i).name not in given
                for i in range(len(expected_blobs(layer) or ()))
            )
        )

    def layer(self, name: str) -> Layer:
        """Return the (first) layer called `name`; KeyError lists names that there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = listed([layer.name for layer in self.layers])
        raise KeyError(f"no layer {name!r}; there are {known}")

    def __str__(self) -> str:
        rows = [("#", "layer", "type", "bottoms -> tops", "settings", "weights")]
        for index, layer in enumerate(self.layers):
            flow = f"{', '.join(layer.bottoms)} -> {', '.join(layer.tops)}".strip()
            shapes = ", ".join("x".join(map(str, b.shape)) or "1" for b in layer.blobs)
            rows.append((str(index), layer.name, layer.type, flow, _settings(layer), shapes))
        # A cell that is longer stands out of its column: one of a megabyte would widen each row.
        widths = [min(max(len(row[column]) for row in rows), _WIDEST)
                  for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        count = sum(blob.size for layer in self.layers for blob in layer.blobs)
        inputs = ", ".join(f"{i.name} {'x'.join(map(str, i.shape))}".strip() for i in self.inputs)
        lines.insert(0, f"network {self.name!r}: {len(self.layers)} layers, {count:,} weights")
        lines.insert(1, f"inputs: {inputs or 'none declared'}")
        if self.unmatched:
            lines.append(f"in the model file only: {', '.join(self.unmatched)}")
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)


def _settings(layer: Layer) -> str:
    """The settings that differ from their defaults, without fillers, in one line."""
    parts = []
    for field in fields(layer.params):
        value = getattr(layer.params, field.name)
        if field.name.endswith("filler") or field.name == "raw" or value == field.default:
            continue
        if isinstance(value, tuple):
            separator = "x" if field.name in _SIZES else ","
            value = separator.join(str(item).replace(" ", "") for item in value)
        parts.append(f"{field.name}={value}")
    text = " ".join(parts)
    return text if len(text) <= 60 else text[:57] + "..."
