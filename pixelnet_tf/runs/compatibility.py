"""What fits to what: runs among each other, a run with its data, and a run with its weights.

Resuming, predicting, averaging and the experiment all ask `check_fit`; what each of them compares
stands in one table below.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from pixelnet_tf.cases.split import Split
from pixelnet_tf.config import Config, config_to_dict
from pixelnet_tf.errors import ConfigError, DataError, ModelError, PixelNetError
from pixelnet_tf.model.pixelnet import PixelNet

#: Lists of cases are cut to a length that can still be read.
_short = reprlib.Repr()
_short.maxdict, _short.maxstring, _short.maxother = 12, 200, 200


#: Settings of `prediction` that change no label: what is computed together, and written besides.
_WITHOUT_EFFECT = tuple(f"prediction.{key}" for key in (
    "batch_slices", "probability_maps", "uncertainty_maps", "allow_missing", "brain_only"))


@dataclass(frozen=True)
class Basis:
    """What a training, a network or a prepared study stands on, as far as it is known.

    Attributes:
        name: its path, or what a message calls what is not on the disk.
        config: how its slices are made, and how it was or is to be trained.
        split: the cases of its parts.
        slices: digest of the prepared slices that shape the weights (`PreparedStudy.digest`); empty
            if unknown.
        model: the network that was loaded.
        on_disk: whether the name is a path.
    """

    name: str
    config: Config | None = None
    split: Split | None = None
    slices: str = ""
    model: PixelNet | None = None
    on_disk: bool = True


def _preparation(basis: Basis) -> dict[str, Any]:
    if basis.config is None:
        return {}
    return basis.config.prepare.slice_settings(basis.config.study)


def _labels(basis: Basis) -> dict[str, Any]:
    return {} if basis.config is None else {"study.labels": dict(basis.config.study.labels)}


def _scores(basis: Basis) -> dict[str, Any]:
    """What the scores are those of; of regions, in their order."""
    if basis.config is None:
        return {}
    found: dict[str, Any] = {"model.region_based": basis.config.model.region_based}
    if basis.config.model.region_based:
        found["study.regions"] = {name: sorted(values)
                                  for name, values in basis.config.study.regions.items()}
        # Their order is that of the scores.
        found["the order of study.regions"] = list(basis.config.study.regions)
    return found


def _context(basis: Basis) -> dict[str, Any]:
    return ({} if basis.config is None
            else {"model.context_slices": basis.config.model.context_slices,
                  "model.planes": list(basis.config.model.planes)})


def _training(basis: Basis) -> dict[str, Any]:
    """Everything else that shapes the weights, and what is decided at the end.

    How cases are predicted does so by the choice of the best, and the decisions are made for it.
    """
    if basis.config is None:
        return {}
    config = basis.config
    settings = {key: value for name in ("sampling", "model", "training", "prediction")
                for key, value in _flat(name, getattr(config, name)).items()
                if key not in _WITHOUT_EFFECT}
    return {**settings, "brain_only": config.prediction.inside_brain(config.study)}


def _flat(name: str, section: Any) -> dict[str, Any]:
    """Values of a section by their keys, those of sections within it, too; a mapping is one value,
    or keys that one side alone has would not be compared."""
    found: dict[str, Any] = {}
    for key, value in config_to_dict(section).items():
        inner, whole = getattr(section, key), f"{name}.{key}"
        found |= _flat(whole, inner) if is_dataclass(inner) else {whole: value}
    return found


def _split(basis: Basis) -> dict[str, Any]:
    if basis.split is None:
        return {}
    return {f"split.{part}": list(getattr(basis.split, part))
            for part in ("train", "validation", "test")}


def _slices(basis: Basis) -> dict[str, Any]:
    return {} if not basis.slices else {"the prepared training slices": basis.slices[:12]}


def _weights(basis: Basis) -> dict[str, Any]:
    """Form of the network: as it was loaded, else as the configuration asks for it."""
    model, config = basis.model, basis.config
    if model is not None:
        form, channels, classes = model.config, model.channels, model.classes
    elif config is not None:
        form = config.model
        channels, classes = len(config.study.modalities), len(config.score_names)
    else:
        return {}
    return {"channels": channels, "classes": classes,
            **{f"model.{key}": value for key, value in config_to_dict(form).items()}}


@dataclass(frozen=True)
class Purpose:
    """What two sides must have in common, each with the next step where they have not."""

    compared: Mapping[Callable[[Basis], dict[str, Any]], str]
    error: type[PixelNetError] = ConfigError


_SAME_RUN = "resume with the same configuration, split and prepared study, or give a new --out"
_SAME_INPUT = ("networks are averaged only over the same input and labels, predict with each by "
               "itself")

#: A training that goes on: everything that shapes its weights.
RESUME = Purpose({each: _SAME_RUN for each in (_preparation, _labels, _scores, _training, _split,
                                               _slices)})
#: Networks whose scores are averaged.
AVERAGE = Purpose({each: _SAME_INPUT for each in (_preparation, _labels, _scores, _context)})
#: The same, on a part of the split: none may have learned from what another was kept from.
AVERAGE_ON_SPLIT = Purpose({**AVERAGE.compared, _split: (
    "leave --split out, and name cases that none of them has seen by --case")})
#: A network and the prepared slices that it is to read.
PREDICT = Purpose({_preparation: (
    "prepare the study with the model's own configuration, or give its raw images as --data. Where "
    "the model's configuration does not say how its images were prepared, as with one from Caffe, "
    "say it by --set")}, DataError)
#: A run and the weights in its folder.
WEIGHTS = Purpose({_weights: "model.keras and config.yaml are not of one training"}, ModelError)


def check_fit(mine: Basis, theirs: Basis, purpose: Purpose) -> None:
    """Raise where two sides differ in what the purpose needs; what one does not know is left out.

    Raises:
        PixelNetError: the purpose's own; it names every difference, both values and the next step.
    """
    found, advice = [], []
    against = f"{mine.name}: " if theirs.on_disk else "not "
    for values, step in purpose.compared.items():
        one, other = values(mine), values(theirs)
        different = [f"{key}={_short.repr(other[key])} ({against}{_short.repr(one[key])})"
                     for key in one.keys() & other.keys() if one[key] != other[key]]
        found += sorted(different)
        if different and step not in advice:
            advice.append(step)
    if found:
        raise purpose.error(
            f"{'' if theirs.on_disk else theirs.name + ' '}has {', '.join(found)}",
            file=theirs.name if theirs.on_disk else mine.name, hint="; ".join(advice))
