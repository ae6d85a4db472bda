"""Sections of the data: study, prepare, split and sampling."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pixelnet_tf.config.checks import in_range, one_of
from pixelnet_tf.errors import ConfigError


@dataclass(frozen=True)
class StudyConfig:
    """Where the volumes of a case are and what their labels mean (paper section 3.1)."""

    #: Name of the study; an exported model is called so.
    name: str = "study"
    #: How the folder is laid out: `brats`, `isles` or `pattern` (see own_data.md).
    layout: str = "brats"
    #: Volumes of a case that the network sees, one channel each, in this order. [paper 3.3]
    modalities: tuple[str, ...] = ("flair", "t1ce", "t2")
    #: Layout `pattern` only: modality (and `seg`) -> file pattern inside the case's folder;
    #: `{case}` stands for the folder's name and `*` matches as in a shell.
    files: dict[str, str] = field(default_factory=dict)
    #: Value in the segmentation file -> class name. The order gives the class index; the first
    #: one is the background. [paper 3.1]
    labels: dict[int, str] = field(
        default_factory=lambda: {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
    )
    #: Region -> the label values that it unites, as the challenge scores it. [BraTS]
    regions: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}
    )
    #: Skull-stripped volumes are exactly zero outside the brain; with `false` the head is found by
    #: its intensity.
    skull_stripped: bool = True
    #: Bring every volume of a case to the grid of its first modality instead of refusing it.
    resample: bool = False

    def __post_init__(self) -> None:
        one_of("study.layout", self.layout, ("brats", "isles", "pattern"))
        if not self.modalities:
            raise ConfigError("study.modalities must name at least one modality")
        if len(set(self.modalities)) != len(self.modalities):
            raise ConfigError(f"study.modalities names one twice: {list(self.modalities)}")
        if len(self.labels) < 2:
            raise ConfigError("study.labels needs the background and at least one more class")
        if 0 not in self.labels or next(iter(self.labels)) != 0:
            raise ConfigError("study.labels must begin with 0, the background")
        if any(not 0 <= value <= 255 for value in self.labels):
            raise ConfigError(f"study.labels must be 0 to 255, got {list(self.labels)}")
        for region, values in self.regions.items():
            unknown = sorted(set(values) - set(self.labels))
            if unknown:
                raise ConfigError(
                    f"study.regions.{region} names label {unknown[0]}, which is not among "
                    f"study.labels {list(self.labels)}"
                )
        if self.layout == "pattern":
            missing = [m for m in self.modalities if m not in self.files]
            if missing:
                raise ConfigError(
                    f"study.files has no pattern for {missing}: with `layout: pattern` every "
                    "modality needs one, as in `flair: '{case}_flair.nii.gz'`"
                )

    @property
    def label_values(self) -> tuple[int, ...]:
        """File label values in the order of the class indices."""
        return tuple(self.labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the class indices."""
        return tuple(self.labels.values())


@dataclass(frozen=True)
class BiasFieldConfig:
    """N4 bias field correction (paper section 3.2)."""

    #: Correct the bias field at all. [paper 3.2]
    enabled: bool = True
    #: The field is estimated on a grid that is coarser by this factor along each axis. On a BraTS
    #: volume, 3 stays within 0.5% of the full grid (mean over the brain) in a fortieth of its time.
    shrink_factor: int = 3
    #: Largest number of iterations at each of the fitting levels; each level halves the distance
    #: of the field's knots. A fourth one would reach the size of a lesion and flatten it.
    iterations: tuple[int, ...] = (50, 50, 50)
    #: A level ends earlier once the field changes by less than this.
    convergence: float = 0.001
    #: Modalities to correct; empty means all of them.
    modalities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        in_range("prepare.bias_field.shrink_factor", self.shrink_factor, 1, 16)
        in_range("prepare.bias_field.convergence", self.convergence, 0.0, 1.0)
        if not self.iterations or min(self.iterations) < 1:
            raise ConfigError("prepare.bias_field.iterations needs one positive number per level")


@dataclass(frozen=True)
class PrepareConfig:
    """From raw volumes to normalised slices (paper sections 3.2 and 3.3)."""

    bias_field: BiasFieldConfig = field(default_factory=BiasFieldConfig)
    #: Where mean and standard deviation are taken: `brain` voxels, their `core` 10 pixels and more
    #: from the outline (for images with skull, whose fat outshines the brain), or the whole
    #: `volume` (the paper's literal reading). [paper 3.2]
    region: str = "brain"
    #: Slices are scaled up to this many pixels and zero-padded to a square (the ISLES rule);
    #: 0 keeps the volume's own grid. [paper 3.3.2]
    slice_size: int = 0
    #: Cases prepared at once; 0 means one per processor core.
    workers: int = 0

    def __post_init__(self) -> None:
        one_of("prepare.region", self.region, ("brain", "core", "volume"))
        in_range("prepare.slice_size", self.slice_size, 0, 4096)
        in_range("prepare.workers", self.workers, 0, 256)


@dataclass(frozen=True)
class SplitConfig:
    """The case-level split, drawn once from `seed`; numbers below 1 are fractions, else counts."""

    #: Cases set aside and never trained on.
    test: float = 0.2
    #: Cases that choose the best checkpoint and fit the prior; 0: none.
    validation: float = 0.1
    #: With `folds: k` the cases that are not set aside as `test` are cut into k folds; 0: none.
    folds: int = 0
    #: Of the draw; the same seed and cases give the same split.
    seed: int = 0
    #: Regular expression: cases for which its first group (or the whole match) is equal are of
    #: one patient and stay together; empty means that every case is a patient.
    patient: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.patient)
        except re.error as error:
            raise ConfigError(f"split.patient is no regular expression: {error}") from None
        for name in ("test", "validation"):
            value = getattr(self, name)
            in_range(f"split.{name}", value, 0, 10**9)
            if value >= 1 and value != int(value):
                raise ConfigError(f"split.{name} must be a fraction below 1 or a count: {value}")
        in_range("split.seed", self.seed, 0, 2**63 - 1)
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(f"split.folds must be 0 or at least 2, got {self.folds}")


@dataclass(frozen=True)
class SamplingConfig:
    """Which pixels of a slice are trained on (paper section 2.1)."""

    #: `balanced` is the paper's N/K of each class; `uniform` is the original PixelNet; `all` takes
    #: every pixel of the lattice (see `lattice`). [paper 2.1]
    strategy: str = "balanced"
    #: Pixels drawn from a slice: N. Without effect on the strategy `all`. [paper 3.3.1]
    pixels: int = 2000
    #: Strategy `all` alone: it takes every n-th pixel of every n-th row, from a corner drawn anew
    #: for every step; 1 takes every pixel.
    lattice: int = 2
    #: Draw background pixels inside the brain mask only.
    background_in_brain: bool = False
    #: How often a slice without lesion is drawn, against a slice with one (1.0: as often).
    lesion_free_slices: float = 1.0
    #: Mirror left and right with probability 1/2. [original]
    flips: bool = True
    #: Multiply each channel by 1 - a to 1 + a and shift it by -a to a standard deviations, drawn
    #: anew for every slice; 0 is off. (The original's training scales channels by 0.8 to 1.3.)
    intensity_jitter: float = 0.0
    #: Rotate each slice about its centre by up to this angle to either side, degrees; 0 is off.
    rotation: float = 0.0
    #: Scale each slice by a factor between 1 / (1 + a) and 1 + a; 0 is off.
    scaling: float = 0.0
    #: Blur each slice by a Gaussian of a standard deviation up to this, pixels; 0 is off.
    blur: float = 0.0
    #: Add noise of a standard deviation up to this to each normalised slice; 0 is off.
    noise: float = 0.0
    #: Share of the slices that receive the lesions of another one, moved at random within the
    #: brain (CarveMix' idea); 0 is off.
    lesion_mixing: float = 0.0

    def __post_init__(self) -> None:
        one_of("sampling.strategy", self.strategy, ("balanced", "uniform", "all"))
        in_range("sampling.lattice", self.lattice, 1, 16)
        in_range("sampling.pixels", self.pixels, 1, 10**7)
        in_range("sampling.intensity_jitter", self.intensity_jitter, 0.0, 0.9)
        in_range("sampling.rotation", self.rotation, 0.0, 180.0)
        in_range("sampling.scaling", self.scaling, 0.0, 4.0)
        in_range("sampling.blur", self.blur, 0.0, 10.0)
        in_range("sampling.noise", self.noise, 0.0, 10.0)
        in_range("sampling.lesion_mixing", self.lesion_mixing, 0.0, 1.0)
        in_range("sampling.lesion_free_slices", self.lesion_free_slices, 0.0, 1.0)
