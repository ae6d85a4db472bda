"""The configuration: one frozen dataclass per section of the YAML file.

Defaults are the paper's values where the paper states one, else the original PixelNet's.
Every section checks itself in `__post_init__` and raises `ConfigError`. The `#:` above a field is
its line in docs/configuration.md, and a last `[...]` says where it comes from;
scripts/make_configuration_reference.py writes that file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pixelnet_tf.config.data_sections import (
    PrepareConfig,
    SamplingConfig,
    SplitConfig,
    StudyConfig,
)
from pixelnet_tf.config.result_sections import EvaluationConfig, PredictionConfig
from pixelnet_tf.config.training_sections import ModelConfig, TrainingConfig
from pixelnet_tf.errors import ConfigError, nearest_hint


@dataclass(frozen=True)
class Config:
    """The whole configuration of a study, as a YAML file holds it."""

    study: StudyConfig = field(default_factory=StudyConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        weights, labels = self.training.class_weights, self.study.labels
        if weights and len(weights) != len(labels):
            raise ConfigError(f"training.class_weights needs one number for each of study.labels "
                              f"{list(labels.values())}, got {list(weights)}")
        self.prediction.postprocess.check_study(self.study)
        for modality in self.prepare.bias_field.modalities:
            if modality not in self.study.modalities:
                raise ConfigError(
                    f"prepare.bias_field.modalities names {modality!r}"
                    f"{nearest_hint(modality, self.study.modalities)}; study.modalities has "
                    f"{list(self.study.modalities)}")

    @property
    def brain_only(self) -> bool:
        """Whether pixels outside the brain are background unseen (`prediction.brain_only`)."""
        choice = self.prediction.brain_only
        return choice == "yes" or (choice == "auto" and self.study.skull_stripped)

    def slice_settings(self) -> dict[str, Any]:
        """Every setting that shapes a prepared slice, by its key; equal ones give equal slices.

        Where volumes lie, what classes and regions are called and the number of workers do not.
        `study.resample` is not among them: it decides whether a case can be read at all.
        """
        prepare, field_ = self.prepare, self.prepare.bias_field
        correction: dict[str, Any] = {"enabled": field_.enabled}
        if field_.enabled:
            corrected = sorted(field_.modalities or self.study.modalities)
            correction = asdict(field_) | {"modalities": corrected}
        return {
            "study.modalities": self.study.modalities,
            "study.skull_stripped": self.study.skull_stripped,
            "study.label_values": self.study.label_values,
            **{f"prepare.{key}": value for key, value in asdict(prepare).items()
               if key not in ("workers", "bias_field")},
            **{f"prepare.bias_field.{key}": value for key, value in correction.items()},
        }
