"""Adaptive dense prediction: a coarse lattice first, single pixels only where it is undecided.

Not exact: a cell of the lattice whose four corners agree, each by a clear margin, is filled with
their class unseen; where regions are cut out, they agree about each region, and lie clear of each
threshold. Corners outside the domain count as background, but not alone.

The lattice has a third dimension: of a volume every second or fourth slice is looked at first. A
pixel of a slice between two of these has their class unseen where both agree about it and about all
pixels around it, again each by the margin; a slice without any other pixel never enters the trunk.
`docs/benchmarks.md` has the measured share of voxels that this changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pixelnet_tf.config import LatticeConfig
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.inference.dense import DenseScorer
from pixelnet_tf.model.fast_trunk import Tap

#: Pixels around one in both slices beside that must agree. With two, what is undecided is at least
#: five pixels wide, so that a lattice of four pixels has a corner in it.
_AROUND = 2


class Beside(NamedTuple):
    """What the slices beside decide: scores (batch, height, width, class) float32, and the pixels
    (batch, height, width) bool that have them."""

    scores: tf.Tensor
    decided: tf.Tensor


def strides_of(stride: int) -> tuple[int, ...]:
    """Strides of the lattices, each finer one only inside undecided cells; the last is every pixel.
    """
    return tuple(stride >> number for number in range(stride.bit_length()))


def adaptive_scores(scorer: DenseScorer, taps: Sequence[Tap], domain: tf.Tensor,
                    read_out: tf.Tensor, correction: tf.Tensor, decoding: Decoding | None = None,
                    lattice: LatticeConfig | None = None, beside: Beside | None = None
                    ) -> tuple[tf.Tensor, tf.Tensor]:
    """Corrected scores of whole slices, most of them filled in.

    Args:
        taps: maps of the slices, as `DenseScorer.taps` gives them.
        domain: (batch, height, width) bool, where the lattice lies; pixels outside it are
            background by definition.
        read_out: (batch, height, width) bool, the pixels of the domain whose scores are used. The
            lattices look at others too; single pixels are looked at only where they are used.
        correction: (class,) float32, added to the scores.
        decoding: how classes follow from scores; None: those of the network alone.
        lattice: stride and margin; None: the configuration's defaults.
        beside: what is decided already; None: nothing is.

    Returns `(scores, scored)`: (batch, height, width, class) float32, where filled pixels carry
    the scores of their cell's first corner in the domain, and (batch, height, width) bool, the
    pixels that the network saw or `beside` decided.
    """
    head, model = scorer.head(taps, domain), scorer.model
    decoding = decoding or Decoding.plain(model.classes, model.config.region_based)
    lattice = lattice or LatticeConfig()
    strides = strides_of(lattice.stride)
    size = tf.shape(domain)[1:]
    classes = scorer.model.classes
    # Everything lies on a grid with one more lattice row and column, so that cells have corners.
    grid = (size + strides[0] - 1) // strides[0] * strides[0] + 1
    room = [[0, 0], [0, grid[0] - size[0]], [0, grid[1] - size[1]]]
    domain, read_out = (tf.pad(mask, room) for mask in (domain, domain & read_out))
    shape = tf.concat([tf.shape(domain), [classes]], 0)
    scores = tf.broadcast_to(tf.constant(decoding.background), shape)
    scored = tf.zeros_like(domain)
    if beside is not None:
        scored = tf.pad(beside.decided, room) & domain
        scores = tf.where(scored[..., None], tf.pad(beside.scores, [*room, [0, 0]]), scores)
    undecided = tf.ones_like(domain)
    for number, stride in enumerate(strides):
        looked_at = read_out if stride == 1 else domain & _lattice(tf.shape(domain)[1:], stride)
        asked = undecided & looked_at & ~scored
        pixels = tf.cast(tf.where(asked), tf.int32)
        values = scorer.listed(head, pixels)
        scores = tf.tensor_scatter_nd_update(scores, pixels, values + correction)
        scored |= asked
        if number < len(strides) - 1:
            scores, undecided = _fill_decided(scores, undecided, scored, domain, stride,
                                              decoding, lattice.margin)
    return scores[:, :size[0], :size[1]], scored[:, :size[0], :size[1]]


def decided_between(below: np.ndarray, above: np.ndarray, domain: np.ndarray, decoding: Decoding,
                    margin: float) -> np.ndarray:
    """Pixels (slice, height, width) bool that the slices on both sides decide.

    Args:
        below, above: corrected scores (slice, height, width, class) of the slices beside, with
            those of certain background outside their domains.
        domain: (2, slice, height, width) bool, their domains; what both lack decides nothing.
    """
    sides = [decoding.decided(tf.constant(scores)) for scores in (below, above)]
    label = sides[0][0]
    sure = tf.reduce_all(label == sides[1][0], axis=-1) & (
        tf.minimum(sides[0][1], sides[1][1]) >= margin)
    window = 2 * _AROUND + 1
    # One class in the whole window, in both slices, and all of it sure.
    marks = tf.cast(tf.concat([label, -label, tf.cast(~sure, label.dtype)[..., None]], -1),
                    tf.float32)
    most = tf.nn.max_pool2d(marks, window, 1, "SAME")
    count = label.shape[-1]
    same = tf.reduce_all(most[..., :count] == -most[..., count:2 * count], axis=-1)
    return np.asarray(same & (most[..., -1] == 0)) & domain.any(axis=0)


def _lattice(size: tf.Tensor, stride: int) -> tf.Tensor:
    rows, columns = (tf.range(size[i]) % stride == 0 for i in (0, 1))
    return rows[:, None] & columns[None, :]


def _fill_decided(scores: tf.Tensor, undecided: tf.Tensor, scored: tf.Tensor, domain: tf.Tensor,
                  stride: int, decoding: Decoding, margin: float
                  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Fill cells whose corners agree; returns the scores and the pixels still undecided."""
    corners, seen = scores[:, ::stride, ::stride], scored[:, ::stride, ::stride]
    label, lead = decoding.decided(corners)
    # Pixels that are background by definition are sure of it.
    known = seen | ~domain[:, ::stride, ::stride]
    sure = (lead >= margin) & known
    quads = [(slice(a, -1 if a == 0 else None), slice(b, -1 if b == 0 else None))
             for a in (0, 1) for b in (0, 1)]
    first, values, any_seen = (a[:, :-1, :-1] for a in (label, corners, seen))
    cells = undecided[:, :-1:stride, :-1:stride]
    decided = cells
    for r, c in quads:
        decided &= sure[:, r, c] & tf.reduce_all(label[:, r, c] == first, axis=-1)
        # The first corner that was seen fills the cell. Corners outside the domain have no say
        # alone: a part of the domain may lie between them.
        values = tf.where(any_seen[..., None], values, corners[:, r, c])
        any_seen |= seen[:, r, c]
    decided &= any_seen
    fill = _expand(decided, stride)
    values = _expand(values, stride)
    inner = [[0, 0], [0, 1], [0, 1]]
    fill = tf.pad(fill, inner) & domain & ~scored
    scores = tf.where(fill[..., None], tf.pad(values, [*inner, [0, 0]]), scores)
    # A pixel on a cell's last row or column belongs to the next cell.
    return scores, tf.pad(_expand(cells & ~decided, stride), inner)


def _expand(values: tf.Tensor, stride: int) -> tf.Tensor:
    return tf.repeat(tf.repeat(values, stride, axis=1), stride, axis=2)
