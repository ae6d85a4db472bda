"""Prediction of many cases by a server: prepared here, labelled there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelnet_tf.config import Config
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.inference.predict import CaseSource, PredictionSummary, write_cases
from pixelnet_tf.serving.about import exported_config
from pixelnet_tf.serving.client import ServedModel
from pixelnet_tf.serving.remote_volume import segment_remotely

#: Settings of `prediction` that are part of the exported graph.
_EXPORTED = ("prior", "mode", "precision", "guided_filter")


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
            raise ConfigError(f"prediction.{key} was settled by `pixelnet-tf export` ({settled}); "
                              "export the model with another one")
    return config


def predict_remotely(model: ServedModel, about: dict[str, Any], source: CaseSource,
                     config: Config, out: Path, **options: Any) -> PredictionSummary:
    """Segment every case of a source with a served model.

    The files are those of local prediction with the same run and settings.

    Args:
        about: `serving.json`.
        options: as `write_cases` takes them.
    """
    maps = config.prediction.probability_maps
    # Models that an earlier version exported find the domain by themselves.
    with_domain = "segment_domain" in about["signatures"]
    # Nor do they say what their weights are.
    name = model.url if "weights" in about else f"{model.url} version {about['version']}"
    record = {"networks": [{"model": name, "version": about["version"],
                            "weights": about.get("weights"),
                            "correction": about["prior"]["correction"]}]}
    return write_cases(lambda volume: segment_remotely(
        lambda images, domain: model.segment_slices(
            images, config.study.label_values, domain if with_domain else None, maps),
        volume, config, maps),
        record, source, config, out, **options)
