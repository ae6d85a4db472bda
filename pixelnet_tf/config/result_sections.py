"""Sections of the results: prediction with its clean-up, and evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from pixelnet_tf.config.checks import in_range, one_of
from pixelnet_tf.config.data_sections import StudyConfig
from pixelnet_tf.errors import ConfigError, nearest_hint

#: Names of the classes that BraTS' rule of the small enhancing tumour turns one into the other.
ENHANCING, NECROSIS = "enhancing", "necrosis"


@dataclass(frozen=True)
class PostprocessConfig:
    """Clean-up of a predicted volume; every step is off by default."""

    #: Region -> smallest connected component that stays, in voxels.
    minimum_component: dict[str, int] = field(default_factory=dict)
    #: Regions of which only the largest connected component stays: for one lesion a patient.
    largest_component: tuple[str, ...] = ()
    #: Fill holes of the union of all lesion classes.
    fill_holes: bool = False
    #: BraTS: an enhancing tumour of fewer voxels than this becomes necrosis (0: off).
    small_enhancing_tumour: int = 0
    #: Set everything outside the brain mask to background.
    restrict_to_brain: bool = False

    def __post_init__(self) -> None:
        key = "prediction.postprocess"
        in_range(f"{key}.small_enhancing_tumour", self.small_enhancing_tumour, 0)
        for region, size in self.minimum_component.items():
            in_range(f"{key}.minimum_component.{region}", size, 0)

    def check_study(self, study: StudyConfig) -> None:
        """Raise `ConfigError` for a region or class that the study does not have."""
        for key in ("minimum_component", "largest_component"):
            for region in getattr(self, key):
                if region not in study.regions:
                    raise ConfigError(
                        f"prediction.postprocess.{key} names the region {region!r}"
                        f"{nearest_hint(region, study.regions)}; study.regions has "
                        f"{list(study.regions)}")
        if self.small_enhancing_tumour:
            for name in (ENHANCING, NECROSIS):
                if name not in study.class_names:
                    raise ConfigError(
                        f"prediction.postprocess.small_enhancing_tumour needs a class {name!r}; "
                        f"study.labels has {list(study.class_names)}")


@dataclass(frozen=True)
class GuidedFilterConfig:
    """Probabilities smoothed up to the image's edges before the arg max (He, Sun, Tang, 2013)."""

    #: Of the square windows, pixels; 0 is off.
    radius: int = 0
    #: Variance of the normalised image, within a window, below which it counts as flat.
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        in_range("prediction.guided_filter.radius", self.radius, 0, 256)
        in_range("prediction.guided_filter.epsilon", self.epsilon, 1e-6, 1e6)


@dataclass(frozen=True)
class PredictionConfig:
    """From a trained model to label volumes (paper section 3.3)."""

    #: `sampled`: the arg max of the paper, under the prior of the sampled pixels; `corrected`:
    #: log(real class frequency / sampled class frequency) is added to the scores; `fitted`: that
    #: correction times a strength fitted on the validation cases (see training.md). [paper 2.1]
    prior: str = "corrected"
    #: `exact`, `adaptive` (faster, not exact), or `reference` (the plain hypercolumn of every
    #: pixel, slow: the yardstick).
    mode: str = "exact"
    #: `float32`, or `bfloat16` for the matrix products.
    precision: str = "float32"
    #: Pixels outside the brain (or head) are background: `yes`, `no`, or `auto`: when the study is
    #: skull-stripped.
    brain_only: str = "auto"
    #: Slices computed together; more need more memory and are hardly faster.
    batch_slices: int = 2
    #: Also write the probability of every class.
    probability_maps: bool = False
    guided_filter: GuidedFilterConfig = field(default_factory=GuidedFilterConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)

    def __post_init__(self) -> None:
        one_of("prediction.prior", self.prior, ("sampled", "corrected", "fitted"))
        one_of("prediction.mode", self.mode, ("exact", "adaptive", "reference"))
        one_of("prediction.precision", self.precision, ("float32", "bfloat16"))
        one_of("prediction.brain_only", self.brain_only, ("auto", "yes", "no"))
        in_range("prediction.batch_slices", self.batch_slices, 1, 1024)


@dataclass(frozen=True)
class EvaluationConfig:
    """How predictions are scored (paper tables 1 to 4)."""

    #: `brats` (Dice, sensitivity, specificity, Hausdorff95) or `isles` (Dice, Hausdorff,
    #: average distance, precision, recall). [paper 3.3]
    protocol: str = "brats"
    #: BraTS when one mask is empty: `brats2020` (the image diagonal) or `exclude`. [BraTS]
    empty_policy: str = "brats2020"
    #: Cases scored at once; 0 means one per processor core.
    workers: int = 0

    def __post_init__(self) -> None:
        one_of("evaluation.protocol", self.protocol, ("brats", "isles"))
        one_of("evaluation.empty_policy", self.empty_policy, ("brats2020", "exclude"))
        in_range("evaluation.workers", self.workers, 0, 256)
