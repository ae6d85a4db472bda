"""`serving.json`: all that a client or a reader has to know of an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pixelnet_tf import __version__
from pixelnet_tf.cases.class_priors import ClassPriors
from pixelnet_tf.config import Config, Mode, Prior, config_from_json, config_to_json
from pixelnet_tf.errors import ConfigError, ModelError
from pixelnet_tf.evaluation.summary import Evaluation
from pixelnet_tf.inference.decoding import Decoding
from pixelnet_tf.io.files import digest
from pixelnet_tf.runs.folder import RunFolder
from pixelnet_tf.runs.pack import Told
from pixelnet_tf.runs.several import Runs
from pixelnet_tf.serving.signatures import brain_is_zero_free, signatures_of
from pixelnet_tf.volumes.description import describe_classes, describe_slices

RESEARCH_ONLY = ("For research use only. Not a medical device; not for diagnosis, treatment or any "
                 "other clinical decision.")
FORMAT = 1
#: Settings of `prediction` that are part of the exported graph.
_EXPORTED = ("prior", "class_offsets", "region_thresholds", "mode", "precision", "guided_filter",
             "flips")
#: What is read of a `serving.json`, and its type.
_READ_BACK = {"version": int, "prior": dict, "signatures": dict, "config": dict}


def describe_export(runs: RunFolder | Runs, config: Config, name: str, version: int,
                    evaluation: Evaluation | None = None, weights: Sequence[str] = ()
                    ) -> dict[str, Any]:
    """What `serving.json` holds: plain dictionaries, lists and scalars.

    No name of a case and no path goes out with a model.

    Args:
        runs: the trained run, or several whose scores are averaged; what is said of the training
            is that of the first.
        config: the run's configuration with the export's prior, mode and precision.
        name, version: name and version of the export.
        evaluation: scores to state, or None; only what is averaged over cases is taken.
        weights: digest of the weights of each network (`TrainedNetwork.digest`).
    """
    runs = runs if isinstance(runs, Runs) else Runs((runs,))
    run = runs.runs[0]
    priors, prediction = run.priors(), config.prediction
    if runs.strength is not None:
        priors = replace(priors, strength=runs.strength)
    training, validation = _training(run, asdict(priors)), _validation(run)
    if runs.unpacked is not None:
        training = asdict(runs.unpacked.told)
        validation = training.pop("validation")
    tree = config_to_json(config)
    if tree["training"]["initial_weights"] not in ("random", "imagenet"):
        tree["training"]["initial_weights"] = "caffemodel"
    return {
        "format": FORMAT,
        "name": name,
        "version": version,
        "use": RESEARCH_ONLY,
        "weights": _together(weights),
        "networks": list(weights),
        "channels": list(config.study.modalities),
        "normalisation": {"bias_field_in_graph": False,
                          **describe_slices(config.study, config.prepare)},
        "classified_pixels": "not zero in every channel" if brain_is_zero_free(config) else "all",
        "classes": describe_classes(config.study),
        "regions": {region: list(values) for region, values in config.study.regions.items()},
        "scores": {"of": list(config.score_names),
                   "probabilities": "sigmoid" if config.model.region_based else "softmax",
                   **_cuts(config)},
        "prior": {"kind": prediction.prior, "strength": priors.strength_under(prediction.prior),
                  "correction": [float(v) for v in runs.correction(prediction)]},
        "mode": prediction.mode,
        "precision": prediction.precision,
        "training": training,
        "metrics": {"validation": validation if len(runs.runs) == 1 else None,
                    "evaluation": _averaged(evaluation)},
        "signatures": {key: {"inputs": inputs, "outputs": outputs}
                       for key, (inputs, outputs) in signatures_of(config).items()},
        "versions": {"pixelnet_tf": __version__, "tensorflow": tf.__version__,
                     "keras": keras.__version__},
        "config": tree,
    }


def _cuts(config: Config) -> dict[str, Any]:
    """The thresholds of regions, and the label value that each gets, in this order; empty where
    the label is that of the most probable class."""
    decoding = Decoding.of(config.study, config.prediction, config.model.region_based)
    if not decoding.regions:
        return {}
    thresholds = dict(zip(config.study.regions, decoding.thresholds, strict=True))
    return {"cut": [{"region": region, "threshold": thresholds[region], "value": value}
                    for region, value in config.study.region_order().items()]}


def _together(weights: Sequence[str]) -> str:
    """The digest of a network's weights; of several, one that stands for all."""
    return weights[0] if len(weights) == 1 else digest(list(weights)) if weights else ""


def exported_config(about: dict[str, Any]) -> Config:
    """The configuration in a `serving.json`.

    about is what `describe_export` gave, read back from JSON; raises `ModelError` where it is of
    another program, or of a later version.
    """
    if not (isinstance(about, dict) and about.get("format") == FORMAT
            and all(isinstance(about.get(key), kind) for key, kind in _READ_BACK.items())
            and isinstance(about["prior"].get("correction"), list)):
        raise ModelError("serving.json was not written by this version of `pixelnet-tf export`",
                         hint="export the model again")
    return config_from_json(about["config"], source="serving.json")


def is_average(about: dict[str, Any]) -> bool:
    """Whether an exported model averages the scores of several networks.

    about: `serving.json`.
    """
    return len(about.get("networks", ())) > 1


def offered_priors(about: dict[str, Any]) -> dict[str, np.ndarray]:
    """The priors under which an exported model can answer, its own first.

    Of a single network whose class frequencies are known, not in the adaptive mode and without the
    guided filter, which works on probabilities that have the exported prior in them.

    Args:
        about: `serving.json`.

    Returns:
        Prior -> what is added to the scores that the graph answers by, (score,) float32.
    """
    config = exported_config(about)
    prediction, study = config.prediction, config.study
    own = about["prior"]
    offered = {own["kind"]: np.zeros(len(own["correction"]), np.float32)}
    frequency = about.get("training", {}).get("class_frequency")
    if (not frequency or len(about.get("networks", ())) != 1 or prediction.guided_filter.radius
            or prediction.mode == Mode.ADAPTIVE):
        return offered
    by_region = config.model.region_based
    real, sampled = (tuple(each[side] for each in frequency.values())
                     for side in ("real", "sampled"))
    priors = ClassPriors(tuple(frequency), real, sampled, regions=tuple(
        study.region_classes.values()) if by_region else ())
    offsets = 0.0 if by_region else np.array(prediction.offsets(study))
    for prior in (Prior.SAMPLED, Prior.CORRECTED):
        if prior.value not in offered:
            offered[prior.value] = (priors.correction(prior) + offsets - own["correction"]).astype(
                np.float32)
    return offered


def served_config(about: dict[str, Any], adapt: Callable[[Config], Config]) -> Config:
    """The configuration that a served model's cases are prepared and cleaned up by.

    Args:
        about: `serving.json`.
        adapt: gives the exported configuration the caller's own settings.

    Raises:
        ConfigError: a change of what was settled when the model was exported.
        ModelError: `about` is of another program or of a later version.
    """
    exported = exported_config(about)
    config = adapt(exported)
    for key in _EXPORTED:
        settled = getattr(exported.prediction, key)
        if getattr(config.prediction, key) != settled:
            raise ConfigError(f"prediction.{key} was settled by `pixelnet-tf export` ({settled})",
                              hint="export the model with another one")
    return config


def told_of(about: dict[str, Any]) -> Told:
    """What a pack says of the training, from what `describe_export` gave."""
    return Told(**about["training"], validation=about["metrics"]["validation"])


def _training(run: RunFolder, priors: dict[str, Any]) -> dict[str, Any]:
    config, split = run.config(), run.split()
    rows = run.log_rows()
    return {
        "study": config.study.name,
        "cases": {"train": len(split.train), "validation": len(split.validation),
                  "test": len(split.test)},
        "steps": max((row["step"] for row in rows), default=0),
        "weights_step": _weights_step(run),
        "batch_slices": config.training.step_slices,
        "sampling": config.sampling.strategy,
        "pixels_per_slice": config.sampling.pixels,
        # Empty for an imported model, whose class frequencies are unknown.
        "class_frequency": {name: {"real": real, "sampled": sampled} for name, real, sampled in
                            zip(priors["class_names"], priors["real"], priors["sampled"],
                                strict=bool(priors["real"]))},
    }


def _averaged(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """Means of an evaluation, and how its predictions were made, as far as that is on record."""
    if evaluation is None:
        return None
    tree = evaluation.to_json()
    predicted_by = tree.get("predicted_by")
    return {**{key: tree[key] for key in ("protocol", "definitions", "cases", "scores")},
            "trained_on": len(tree.get("trained_on", ())),
            "predicted_by": predicted_by and {
                "prior": predicted_by["prior"], "mode": predicted_by["mode"],
                "networks": len(predicted_by["networks"])}}


def check_evaluated(evaluation: Evaluation, weights: Sequence[str]) -> None:
    """Raise `ModelError` where scores are known to be of other weights than the exported ones."""
    networks = evaluation.about.get("predicted_by", {}).get("networks", [])
    if (networks and None not in networks and not set(weights) <= set(networks)
            and _together(weights) not in networks):
        raise ModelError("--evaluation: the scored predictions were made by another network",
                         hint="predict and evaluate with the run that is exported")


def _weights_step(run: RunFolder) -> int | None:
    """Step after which the run's weights were saved: the best validated one, else the last."""
    rows = run.log_rows()
    state = run.state(run.kind or "best")
    if state is not None:
        return state["step"]
    # The checkpoints may be gone; the best is then found as the training found it.
    scored = [row for row in rows if "validation/score" in row]
    if scored:
        return max(scored, key=lambda row: row["validation/score"])["step"]
    return max((row["step"] for row in rows), default=None)


def _validation(run: RunFolder) -> dict[str, float] | None:
    """Scores of the exported weights on validation cases, as the log has them; None without any."""
    prefix, step = "validation/", _weights_step(run)
    for row in run.log_rows():
        scores = {key.removeprefix(prefix): value for key, value in row.items()
                  if key.startswith(prefix)}
        if scores and row["step"] == step:
            return {"step": step, **scores}
    return None
