"""A Caffe network built here against arrays that Caffe wrote."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pixelnet_tf.caffe.build import build_model
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.errors import DataError, ModelError
from prototxt_import.errors import listed

TOLERANCE = 2e-5
_BLOB = "blob/"
#: How much larger than its file a packed golden file may be; any may have the second.
_MAX_INFLATION, _SMALL_BYTES = 64, 256 << 20


@dataclass(frozen=True)
class BlobDifference:
    """How far one blob is from Caffe's; `relative` is to the largest value of Caffe's."""

    name: str
    shape: tuple[int, ...]
    largest: float
    absolute: float
    relative: float


@dataclass(frozen=True)
class ParityReport:
    """What `compare_with_golden` found; `print(report)` shows it as a table.

    `absent` are blobs of the golden file that the network does not have.
    """

    network: str
    tolerance: float
    rows: tuple[BlobDifference, ...]
    absent: tuple[str, ...]

    @property
    def worst(self) -> float:
        """Largest relative difference; infinite where a value is not finite or a shape differs."""
        return max(row.relative for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether every blob is within the tolerance."""
        return self.worst <= self.tolerance

    def to_json(self) -> str:
        """The report as JSON; infinite numbers are written as null."""
        rows = [
            {key: None if value == float("inf") else value for key, value in asdict(row).items()}
            for row in self.rows
        ]
        worst = None if self.worst == float("inf") else self.worst
        return json.dumps(
            {"network": self.network, "tolerance": self.tolerance, "passed": self.passed,
             "worst": worst, "blobs": rows, "absent": list(self.absent)},
            indent=2,
        )

    def __str__(self) -> str:
        width = min(max(len(row.name) for row in self.rows), 80)
        lines = [f"{'blob':{width}}  {'shape':>18}  {'largest':>10}  {'absolute':>10}  relative"]
        for row in self.rows:
            shape = "x".join(map(str, row.shape)) or "1"
            mark = "" if row.relative <= self.tolerance else "  past the tolerance"
            lines.append(
                f"{row.name:{width}}  {shape:>18}  {row.largest:10.4g}  {row.absolute:10.3g}  "
                f"{row.relative:8.3g}{mark}"
            )
        if self.absent:
            lines.append(f"not in the network, not compared: {', '.join(self.absent)}")
        verdict = "within" if self.passed else "PAST"
        lines.append(
            f"{self.network}: {len(self.rows)} blobs, largest relative difference "
            f"{self.worst:.3g}, {verdict} the tolerance {self.tolerance:g}"
        )
        return "\n".join(lines)


def compare_with_golden(
    prototxt: str | Path,
    caffemodel: str | Path,
    golden: str | Path,
    *,
    tolerance: float = TOLERANCE,
    phase: str = "TEST",
    dtype: str = "float32",
) -> ParityReport:
    """Build and run a Caffe network, and compare its blobs with those of a golden file.

    The golden `.npz` holds the inputs under their names (`data` is the whole canvas, `(batch,
    channel, height, width)`; `pixels` rows of n, y, x) and the expected blobs under
    `blob/<name>`, all in Caffe's axis order. An in-place layer's blob holds its final value.

    Parameters
    ----------
    prototxt, caffemodel, golden
        The files.
    tolerance
        How large the largest relative difference of a blob may be.
    phase
        "TRAIN" or "TEST".
    dtype
        With `float64` the network is computed without the rounding of float32.

    Raises
    ------
    ModelError
        The files are not Caffe's, or do not belong together.
    DataError
        The golden file cannot be read, or holds no blob of the network.

    Examples
    --------
    >>> import numpy as np
    >>> from pixelnet_tf.api.caffe import compare_with_golden
    >>> from pixelnet_tf.caffe.build import build_model
    >>> from pixelnet_tf.caffe.reading import read_network
    >>> arrays = {"data": np.ones((1, 3, 261, 277)), "pixels": np.array([[0, 120, 130]])}
    >>> network = read_network("deploy.prototxt", "weights.caffemodel")
    >>> model = build_model(network, blobs=["fc8_new"])
    >>> scores = model.run_caffe(arrays)["fc8_new"]
    >>> np.savez("scores.npz", **arrays, **{"blob/fc8_new": scores})
    >>> compare_with_golden("deploy.prototxt", "weights.caffemodel", "scores.npz").passed
    True
    """
    network = read_network(prototxt, caffemodel, phase=phase)
    if network.without_weights:
        raise ModelError(f"it has no weights for layer {network.without_weights[0]!r} of "
                         f"{prototxt}", file=caffemodel, hint="check that the two belong together")
    arrays = _read_golden(golden)
    expected = {
        name.removeprefix(_BLOB): array for name, array in arrays.items() if name.startswith(_BLOB)
    }
    model = build_model(network, phase, blobs="all", dtype=dtype)
    known = [name for name in expected if name in model.output]
    if not known:
        raise DataError(f"none of its blobs ({listed(expected)}) is in the network of {prototxt}; "
                        "blobs are arrays named blob/<name>", file=golden)
    found = model.run_caffe(arrays, training=phase == "TRAIN")
    rows = tuple(_difference(name, found[name], expected[name]) for name in known)
    absent = tuple(name for name in expected if name not in known)
    return ParityReport(network.name, tolerance, rows, absent)


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> BlobDifference:
    largest = float(np.abs(expected).max(initial=0))
    if found.shape != expected.shape:
        return BlobDifference(name, found.shape, largest, float("inf"), float("inf"))
    absolute = float(np.abs(found.astype(np.float64) - expected).max(initial=0))
    if not np.isfinite(absolute):
        return BlobDifference(name, found.shape, largest, float("inf"), float("inf"))
    relative = absolute / largest if largest else (0.0 if absolute == 0 else float("inf"))
    return BlobDifference(name, found.shape, largest, absolute, relative)


def _read_golden(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        most = max(Path(path).stat().st_size * _MAX_INFLATION, _SMALL_BYTES)
        if size > most:
            raise ValueError(f"it unpacks to {size:,} bytes, more than the {most:,} that it may")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError("no such golden file", file=path) from None
    except Exception as error:  # numpy and zipfile raise almost any class for a damaged file.
        raise DataError(f"not a golden file (.npz with inputs and blob/<name> arrays): {error}",
                        file=path) from error
