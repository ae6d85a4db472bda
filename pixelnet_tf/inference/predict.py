"""Prediction of many cases: prepared or raw volumes in, NIfTI files out."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.layouts import find_cases
from pixelnet_tf.config import Config, config_to_json
from pixelnet_tf.dataset.prepared import PreparedStudy
from pixelnet_tf.errors import DataError, nearest_hint
from pixelnet_tf.inference.ensemble import Ensemble
from pixelnet_tf.inference.segmenter import Segmenter
from pixelnet_tf.inference.volume import SegmentedVolume, segment_volume
from pixelnet_tf.io.files import read_json_object, write_json
from pixelnet_tf.model.pixelnet import PixelNet
from pixelnet_tf.runs.compatibility import PREDICT, Basis, check_fit
from pixelnet_tf.runs.network import TrainedNetwork
from pixelnet_tf.volumes.nifti import write_labels, write_probabilities
from pixelnet_tf.volumes.prepare import PreparedVolume, prepare_case

#: Draws a segmented volume: receives it and its labels (x, y, z).
Draw = Callable[[PreparedVolume, np.ndarray], None]


@dataclass(frozen=True)
class CaseSource:
    """Cases to segment, from a prepared study or from raw volumes."""

    names: tuple[str, ...]
    prepared: PreparedStudy | None
    raw: dict[str, Case]

    @classmethod
    def open(cls, data: str, config: Config, names: Sequence[str] | None,
             only: Sequence[str] = ()) -> CaseSource:
        """Find the cases.

        Args:
            names: the ones of a split; None takes all.
            only: of these, the ones that are asked for; empty takes all.

        Raises:
            DataError: no such folder, no case, a name that is not there, or slices that were
                prepared in another way than the configuration says.
        """
        prepared, raw = None, {}
        if tf.io.gfile.exists(os.path.join(data, "index.json")):
            prepared = PreparedStudy.open(data)
            check_fit(Basis("the model", config), Basis(data, prepared.config), PREDICT)
            known = prepared.cases
        else:
            raw = {case.name: case
                   for case in find_cases(Path(data), config.study, require_segmentation=False)}
            known = tuple(raw)
        wanted = tuple(only) or (tuple(names) if names is not None else known)
        for name in wanted:
            if name not in known:
                raise DataError(f"{data}: no case {name!r}{nearest_hint(name, known)}; it has "
                                f"{len(known)} cases")
        if not wanted:
            raise DataError(f"{data}: the chosen part of the split has no case")
        return cls(wanted, prepared, raw)

    def read(self, name: str, config: Config) -> PreparedVolume:
        """Read one prepared volume, or prepare it from its files."""
        if self.prepared is not None:
            return self.prepared.read_volume(name)
        return prepare_case(self.raw[name], config)


def predict_cases(networks: Sequence[TrainedNetwork], source: CaseSource, config: Config,
                  out: Path, *, draw: Draw | None = None,
                  say: Callable[[str], None] = lambda line: None) -> None:
    """Segment every case of a source with models of this process, as `write_cases` says.

    Args:
        networks: one, or several whose scores are averaged (`Ensemble`).

    Raises:
        ModelError: the study has other numbers of modalities or labels than a model.
    """
    for network in networks:
        network.model.check_study(config.study)
    about = {"networks": [{"model": network.name, "weights": _digest(network.model),
                           "correction": [float(value) for value in network.correction]}
                          for network in networks],
             "cases": list(source.names), "config": config_to_json(config),
             "prior": config.prediction.prior, "mode": config.prediction.mode}
    members = [Segmenter.of(config, network) for network in networks]
    segmenter = members[0] if len(members) == 1 else Ensemble(members)
    write_cases(lambda volume: segment_volume(segmenter, volume, config,
                                              config.prediction.probability_maps),
                about, source, config, out, draw=draw, say=say)


def _digest(model: PixelNet) -> str:
    """Fingerprint of the weights: a run that was trained anew is another model."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights))
    return digest.hexdigest()[:16]


def write_cases(segment: Callable[[PreparedVolume], SegmentedVolume], about: dict,
                source: CaseSource, config: Config, out: Path, *, draw: Draw | None = None,
                say: Callable[[str], None] = lambda line: None) -> None:
    """Segment every case of a source and write `<case>.nii.gz`, and `prediction.json` first.

    The next case is read (or prepared) while one is computed, and results are written beside.
    A folder with results of the same model and settings is completed, one of another is refused.
    `draw` is called for every case before its file is written.

    Args:
        segment: of one volume.
        about: what `prediction.json` says: model, cases and settings.

    Raises:
        DataError: the folder holds other results, or a case cannot be used.
    """
    done = _finished(out, about)
    out.mkdir(parents=True, exist_ok=True)
    write_json(str(out / "prediction.json"), about)
    left = [name for name in source.names if name not in done]
    if done:
        say(f"{len(done)} finished cases are kept")
    with ThreadPoolExecutor(1) as writer:
        written = None
        for number, (name, volume) in enumerate(_read_ahead(source, left, config), start=1):
            start = time.monotonic()
            result = segment(volume)
            if written is not None:
                written.result()
            written = writer.submit(_write, out, volume, result, config, draw)
            say(f"{number}/{len(left)} {name}: {time.monotonic() - start:.1f} s")
        if written is not None:
            written.result()


def _read_ahead(source: CaseSource, names: Sequence[str], config: Config
                ) -> Iterator[tuple[str, PreparedVolume]]:
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(source.read, names[0], config) if names else None
        for number, name in enumerate(names):
            volume = coming.result()
            if number + 1 < len(names):
                coming = reader.submit(source.read, names[number + 1], config)
            yield name, volume


def _write(out: Path, volume: PreparedVolume, result: SegmentedVolume, config: Config,
           draw: Draw | None) -> None:
    if result.probabilities is not None:
        (out / "probabilities").mkdir(exist_ok=True)
        write_probabilities(out / "probabilities" / f"{volume.name}.nii.gz", result.probabilities,
                            volume.geometry)
    if draw is not None:
        draw(volume, result.labels)
    # The labels last: their file says that the case is finished.
    write_labels(out / f"{volume.name}.nii.gz", result.labels, volume.geometry)


def _finished(out: Path, about: dict) -> set[str]:
    path = out / "prediction.json"
    if not path.is_file():
        return set()
    before = read_json_object(path, "remove the folder, or give a new --out")
    same = [key for key in about if key != "cases"]
    if any(before.get(key) != json.loads(json.dumps(about[key])) for key in same):
        raise DataError(f"{out}: holds predictions of another model or with other settings; give "
                        "a new --out or remove the folder")
    return {name for name in about["cases"] if (out / f"{name}.nii.gz").is_file()}
