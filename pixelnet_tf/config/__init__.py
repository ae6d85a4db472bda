"""Configuration: frozen dataclasses, one per YAML section, checked on load."""

from pixelnet_tf.config.load import (
    config_from_dict,
    config_from_json,
    config_to_dict,
    config_to_json,
    config_to_yaml,
    load_config,
)
from pixelnet_tf.config.sections import (
    BiasFieldConfig,
    Config,
    EvaluationConfig,
    GuidedFilterConfig,
    ModelConfig,
    PostprocessConfig,
    PredictionConfig,
    PrepareConfig,
    SamplingConfig,
    SolverConfig,
    SplitConfig,
    StudyConfig,
    TrainingConfig,
)

__all__ = [
    "BiasFieldConfig",
    "Config",
    "EvaluationConfig",
    "GuidedFilterConfig",
    "ModelConfig",
    "PostprocessConfig",
    "PredictionConfig",
    "PrepareConfig",
    "SamplingConfig",
    "SolverConfig",
    "SplitConfig",
    "StudyConfig",
    "TrainingConfig",
    "config_from_dict",
    "config_from_json",
    "config_to_dict",
    "config_to_json",
    "config_to_yaml",
    "load_config",
]
