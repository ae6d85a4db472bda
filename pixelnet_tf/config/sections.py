"""The configuration: one frozen dataclass per section of the YAML file.

Defaults are the paper's values where the paper states one, else the original PixelNet's.
Every section checks itself in `__post_init__` and raises `ConfigError`. The `#:` above a field is
its line in docs/configuration.md, and a last `[...]` says where it comes from;
scripts/make_configuration_reference.py writes that file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Literal, TypeVar, get_type_hints

from pixelnet_tf.errors import ConfigError, nearest_hint

#: Names of the classes that BraTS' rule of the small enhancing tumour turns one into the other.
ENHANCING, NECROSIS = "enhancing", "necrosis"

#: `training.solver.base_lr`: the rate is to be found by a trial.
AUTO: Literal["auto"] = "auto"
#: What a case's brain mask is called beside the modalities, in `study.files` and elsewhere.
BRAIN_MASK = "mask"

#: Channels that VGG-16's first kernels have, and that `model.mix_channels` mixes modalities to.
MIXED_CHANNELS = 3
#: Planes that a volume is cut along (`model.planes`): across slices as they are prepared, and the
#: two upright ones.
PLANES = ("axial", "coronal", "sagittal")
#: `sampling.hard_pixels`: candidates that are drawn for each hard pixel.
HARD_CANDIDATES = 4

C = TypeVar("C", bound="Choice")


class Choice(str, Enum):
    """A setting that takes one of a few values; a member is the plain text of the YAML file.

    It compares, prints and is written to JSON as that text, on every Python from 3.10 on (which
    has no `enum.StrEnum` yet).
    """

    __str__ = str.__str__
    __repr__ = str.__repr__
    __format__ = str.__format__  # type: ignore[assignment]

    @classmethod
    def texts(cls) -> list[str]:
        """Every value as plain text: what the command line offers."""
        return [member.value for member in cls]

    @classmethod
    def of(cls: type[C], text: str, key: str) -> C:
        """The member of a plain text; raises `ConfigError`, which names the key, for any other."""
        if text not in cls.texts():
            raise ConfigError(f"{key} must be one of {cls.texts()}, got {text!r}", value=text)
        return cls(text)


class Layout(Choice):
    """`study.layout`: how the folder of a study is laid out."""

    BRATS = "brats"
    ISLES = "isles"
    PATTERN = "pattern"
    DICOM = "dicom"
    FLAT = "flat"
    NNUNET = "nnunet"
    MSD = "msd"
    BIDS = "bids"


class Register(Choice):
    """`study.register`: how the images of a case are laid on each other."""

    NONE = "none"
    RIGID = "rigid"


class Unlabelled(Choice):
    """`split.unlabelled`: what becomes of cases without a segmentation."""

    REFUSE = "refuse"
    TEST = "test"


class NormRegion(Choice):
    """`prepare.region`: the voxels that mean and standard deviation are taken over."""

    BRAIN = "brain"
    CORE = "core"
    VOLUME = "volume"


class Strategy(Choice):
    """`sampling.strategy`: which pixels of a slice are trained on."""

    BALANCED = "balanced"
    UNIFORM = "uniform"
    ALL = "all"


class Fc7(Choice):
    """`model.fc7`: how fc6 is padded and read, or that the network has no fc6 and fc7."""

    FAITHFUL = "faithful"
    ALIGNED = "aligned"
    NONE = "none"


class Head(Choice):
    """`model.head`: what classifies a hypercolumn."""

    MLP = "mlp"
    LINEAR = "linear"


class HeadFiller(Choice):
    """`model.head_filler`: what the head's kernels are drawn by."""

    CAFFE = "caffe"
    HE = "he"


class SolverType(Choice):
    """`training.solver.type`: Caffe's solvers, and Keras' AdamW."""

    SGD = "SGD"
    NESTEROV = "Nesterov"
    ADAGRAD = "AdaGrad"
    RMSPROP = "RMSProp"
    ADADELTA = "AdaDelta"
    ADAM = "Adam"
    ADAMW = "adamw"


class LrPolicy(Choice):
    """`training.solver.lr_policy`: Caffe's learning-rate policies, and the cosine."""

    FIXED = "fixed"
    STEP = "step"
    EXP = "exp"
    INV = "inv"
    MULTISTEP = "multistep"
    POLY = "poly"
    SIGMOID = "sigmoid"
    COSINE = "cosine"


class LossKind(Choice):
    """`training.loss`: what the solver minimises."""

    CROSS_ENTROPY = "cross_entropy"
    DICE = "dice"
    CROSS_ENTROPY_DICE = "cross_entropy_dice"


class ExtraChannels(Choice):
    """`training.extra_channels`: what pretrained kernels of three channels become of more."""

    AVERAGE = "average"
    REPEAT = "repeat"
    KEEP = "keep"


class Precision(Choice):
    """`training.precision` and `prediction.precision`: the number type of the matrix products."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Prior(Choice):
    """`prediction.prior`: the class frequencies that the scores are brought to."""

    SAMPLED = "sampled"
    CORRECTED = "corrected"
    FITTED = "fitted"


class Mode(Choice):
    """`prediction.mode`: how the scores of a volume are computed."""

    EXACT = "exact"
    ADAPTIVE = "adaptive"
    REFERENCE = "reference"


class OutputForm(Choice):
    """`predict --output`: the form that segmentations are written in."""

    NIFTI = "nifti"
    DICOM_SEG = "dicom-seg"
    BIDS = "bids"


class Distribute(Choice):
    """`train --distribute`: the devices that share each mini-batch."""

    AUTO = "auto"
    NONE = "none"
    MIRRORED = "mirrored"
    MULTIWORKER = "multiworker"


#: `train --join-seconds`: how long the workers of a training wait for each other at the start.
JOIN_SECONDS = 20


class FollowDecisions(Choice):
    """`prediction.decisions`: whether what validation cases decided is followed."""

    APPLY = "apply"
    IGNORE = "ignore"


class BrainOnly(Choice):
    """`prediction.brain_only`: whether pixels outside the brain are background."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


class ProtocolName(Choice):
    """`evaluation.protocol`: the challenge whose rules score a prediction."""

    BRATS = "brats"
    ISLES = "isles"
    BRATS2023 = "brats2023"


class EmptyPolicy(Choice):
    """`evaluation.empty_policy`: what BraTS' rules do where one mask is empty."""

    BRATS2020 = "brats2020"
    EXCLUDE = "exclude"


def choices(section: Any, where: str) -> None:
    """Turn the plain texts of a section's `Choice` fields into members.

    Raises `ConfigError` for a value outside the allowed set; `where` is the section's key.
    """
    for name, kind in get_type_hints(type(section)).items():
        if isinstance(kind, type) and issubclass(kind, Choice):
            member = kind.of(getattr(section, name), f"{where}.{name}")
            object.__setattr__(section, name, member)


def in_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raise `ConfigError` where a number does not lie in [low, high]."""
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in [{low}, {high}], got {value!r}", value=value)


def _numbers(tree: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested dictionaries and lists, with its place."""
    if isinstance(tree, dict):
        for name, item in tree.items():
            yield from _numbers(item, f"{key}.{name}".lstrip("."))
    elif isinstance(tree, (list, tuple)):
        for place, item in enumerate(tree):
            yield from _numbers(item, f"{key}[{place}]")
    elif isinstance(tree, (int, float)):
        yield key, tree


@dataclass(frozen=True)
class StudyConfig:
    """Where the volumes of a case are and what their labels mean (paper section 3.1)."""

    #: Name of the study; an exported model is called so.
    name: str = "study"
    #: How the folder is laid out: `brats`, `isles`, `flat`, `nnunet`, `msd`, `bids`,
    #: `dicom` or `pattern` (see own_data.md).
    layout: Layout = Layout.BRATS
    #: Volumes of a case that the network sees, one channel each, in this order. [paper 3.3]
    modalities: tuple[str, ...] = ("flair", "t1ce", "t2")
    #: Modality (and `seg`) -> file pattern inside the case's folder, which layout `pattern` needs;
    #: `{case}` stands for the folder's name and `*` matches as in a shell. In the other layouts,
    #: where a name alone does not tell: the modality's word in the file's name, the channel's
    #: number in `nnunet` and `msd`, or a pattern of the file's name. With
    #: an entry `mask` each case has a brain mask, which is taken in place of the one that is found.
    files: dict[str, str] = field(default_factory=dict)
    #: Layout `dicom` only: modality -> pattern of its series' description, in which `*` matches as
    #: in a shell and capitals count as small letters; a modality without one is looked for as
    #: `*NAME*` (see dicom_bids.md).
    series: dict[str, str] = field(default_factory=dict)
    #: Label value -> the code that a DICOM segmentation names it by: value, coding scheme, meaning.
    #: A label without one is told by its class name, where that is a common one.
    codes: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    #: Value in the segmentation file -> class name, each another one. The order gives the class
    #: index; the first one is the background. [paper 3.1]
    labels: dict[int, str] = field(
        default_factory=lambda: {0: "background", 1: "necrosis", 2: "edema", 4: "enhancing"}
    )
    #: Value in the segmentation file of voxels that nobody has judged: they are neither trained on
    #: nor scored, and are no class. `null`: there are none.
    ignore_label: int | None = None
    #: Region -> the label values that it unites, 0 not among them, as the challenge scores it.
    #: [BraTS]
    regions: dict[str, tuple[int, ...]] = field(
        default_factory=lambda: {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}
    )
    #: Region -> the label value that its voxels get, in the order in which they get it: what is
    #: named later is laid over what is named before, as by nnU-Net's list of that name. Where
    #: regions are cut out (`model.region_based`, `prediction.region_thresholds`), they are turned
    #: back into labels so. Empty: the larger region first, each with the label that is in no later
    #: one, as in `{WT: 2, TC: 1, ET: 4}`. [nnU-Net]
    regions_class_order: dict[str, int] = field(default_factory=dict)
    #: Skull-stripped volumes are exactly zero outside the brain; with `false` the head is found by
    #: its intensity. Where `files` names a `mask`, the brain is what that says.
    skull_stripped: bool = True
    #: Bring every volume of a case to the grid of its first modality instead of refusing it; voxels
    #: that coincide are put in order, others interpolated.
    resample: bool = False
    #: `rigid`: turn and shift every other image of a case until it lies on the first modality, and
    #: bring it there; `none`: images lie where their headers say.
    register: Register = Register.NONE

    def __post_init__(self) -> None:
        choices(self, "study")
        if not self.modalities:
            raise ConfigError("study.modalities must name at least one modality")
        if len(set(self.modalities)) != len(self.modalities):
            raise ConfigError(f"study.modalities names one twice: {list(self.modalities)}")
        if len(self.labels) < 2:
            raise ConfigError("study.labels needs the background and at least one more class")
        if len(self.labels) > 255:
            raise ConfigError(f"study.labels may name 255 values, got {len(self.labels)}",
                              value=len(self.labels))
        if 0 not in self.labels or next(iter(self.labels)) != 0:
            raise ConfigError("study.labels must begin with 0, the background")
        if any(not 0 <= value <= 255 for value in self.labels):
            raise ConfigError(f"study.labels must be 0 to 255, got {list(self.labels)}",
                              value=list(self.labels))
        for value, name in self.labels.items():
            if same := [other for other, called in self.labels.items()
                        if called == name and other != value]:
                raise ConfigError(f"study.labels calls both {value} and {same[0]} {name!r}",
                                  value=name, hint="give each its own name; study.regions unites "
                                                   "several values under one")
        if self.ignore_label is not None:
            in_range("study.ignore_label", self.ignore_label, 0, 255)
            if self.ignore_label in self.labels:
                raise ConfigError(
                    f"study.ignore_label is {self.ignore_label}, which study.labels names as the "
                    f"class {self.labels[self.ignore_label]!r}", value=self.ignore_label,
                    hint="leave it out of study.labels, or set study.ignore_label to null")
        for region, values in self.regions.items():
            unknown = sorted(set(values) - set(self.labels))
            if unknown:
                raise ConfigError(
                    f"study.regions.{region} names label {unknown[0]}, which is not among "
                    f"study.labels {list(self.labels)}"
                )
            if 0 in values:
                raise ConfigError(f"study.regions.{region} must name lesion labels alone, and 0 "
                                  f"is the background, got {list(values)}", value=region,
                                  hint="leave 0 out")
        if self.regions_class_order:
            self.region_order()
        for modality in self.series:
            if modality not in self.modalities:
                raise ConfigError(f"study.series names {modality!r}, which is not among "
                                  f"study.modalities {list(self.modalities)}"
                                  + nearest_hint(modality, self.modalities), value=modality)
        strange = [value for value in self.codes if value not in self.labels or value == 0]
        if strange:
            raise ConfigError(f"study.codes names label {strange[0]}, which is no lesion among "
                              f"study.labels {list(self.labels)}", value=strange[0])
        if empty := [value for value, code in self.codes.items() if not all(map(str.strip, code))]:
            raise ConfigError(f"study.codes.{empty[0]} needs a value, a coding scheme and a "
                              "meaning, as in ['79654002', SCT, Edema]", value=empty[0])
        if self.layout == Layout.PATTERN:
            missing = [m for m in self.modalities if m not in self.files]
            if missing:
                raise ConfigError(
                    f"study.files has no pattern for {missing}: with `layout: pattern` every "
                    "modality needs one, as in `flair: '{case}_flair.nii.gz'`"
                )

    @property
    def has_brain_mask(self) -> bool:
        """Whether each case has a brain mask of its own."""
        return BRAIN_MASK in self.files and BRAIN_MASK not in self.modalities

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a case's volumes: the modalities, then the brain mask where there is one."""
        return (*self.modalities, *((BRAIN_MASK,) if self.has_brain_mask else ()))

    @property
    def label_values(self) -> tuple[int, ...]:
        """File label values in the order of the class indices."""
        return tuple(self.labels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the class indices."""
        return tuple(self.labels.values())

    @property
    def region_classes(self) -> dict[str, tuple[int, ...]]:
        """Region -> the indices of the classes that it unites, in their order."""
        return {region: tuple(index for index, value in enumerate(self.labels) if value in values)
                for region, values in self.regions.items()}

    def region_order(self) -> dict[str, int]:
        """Region -> the label value that its voxels get, in the order in which they get it.

        It is `regions_class_order`, or what follows from the regions alone.

        Raises:
            ConfigError: none follows, or the given one does not lead from the regions of a label
                back to these regions.
        """
        if not self.regions:
            raise ConfigError("study.regions names no region")
        if empty := [region for region, values in self.regions.items() if not values]:
            raise ConfigError(f"study.regions.{empty[0]} must name lesion labels alone to be cut "
                              "out, and names none", value=empty[0])
        order = dict(self.regions_class_order) or self._derived_order()
        key = "study.regions_class_order"
        if set(order) != set(self.regions):
            strange = sorted(set(order) ^ set(self.regions))[0]
            words = ("does not name the region" if strange in self.regions else
                     "names, and study.regions does not,")
            raise ConfigError(f"{key} {words} {strange!r}{nearest_hint(strange, self.regions)}; "
                              f"study.regions has {list(self.regions)}", value=strange)
        for region, value in order.items():
            if value not in self.regions[region]:
                raise ConfigError(f"{key}.{region} is {value}, which is none of the region's "
                                  f"labels {list(self.regions[region])}", value=value)
        for value, name in self.labels.items():
            inside = {region for region, values in self.regions.items() if value in values}
            found = ([label for region, label in order.items() if region in inside] or [0])[-1]
            theirs = {region for region, values in self.regions.items() if found in values}
            if theirs != inside:
                raise ConfigError(
                    f"{key} {order} makes label {found} of label {value} ({name}), which is in the "
                    f"regions {sorted(inside)} and not {sorted(theirs)}", value=value,
                    hint="name the larger regions first, each with a label that is in no smaller "
                         "one")
            if found != value and not self.regions_class_order:
                raise ConfigError(
                    f"the regions {list(self.regions)} do not tell label {value} ({name}) from "
                    f"{found} ({self.labels[found]})", value=value,
                    hint=f"name a region for it, or say by {key} that one becomes the other")
        return order

    def _derived_order(self) -> dict[str, int]:
        """The larger region first, each with the one label that is in no later region."""
        names = sorted(self.regions, key=lambda region: -len(set(self.regions[region])))
        left = {region: set(self.regions[region]).difference(
            *(self.regions[later] for later in names[place + 1:]))
            for place, region in enumerate(names)}
        unclear = [region for region in names if len(left[region]) != 1]
        if unclear:
            raise ConfigError(
                f"which label the region{'s' * (len(unclear) > 1)} {', '.join(unclear)} of "
                "study.regions become cannot be told: a region needs one label that is in no "
                f"smaller region, {unclear[0]} has {sorted(left[unclear[0]])}", value=unclear,
                hint="say it by study.regions_class_order, as in {WT: 2, TC: 1, ET: 4}, the larger "
                     "regions first, or leave the region out")
        return {region: left[region].pop() for region in names}


@dataclass(frozen=True)
class BiasFieldConfig:
    """N4 bias field correction (paper section 3.2)."""

    #: Correct the bias field at all. [paper 3.2]
    enabled: bool = True
    #: The field is estimated on a grid that is coarser by this factor along each axis. On four
    #: BraTS volumes 4 differs from the full grid by 0.42 to 0.67% (mean over the brain), as 3 does
    #: (0.29 to 0.75%) and 2 (0.26 to 0.65%), and is far cheaper. A volume of more than 256 x 256 x
    #: 256 voxels is shrunk further, in proportion to its side.
    shrink_factor: int = 4
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
    region: NormRegion = NormRegion.BRAIN
    #: Slices are scaled up to this many pixels and zero-padded to a square (the ISLES rule);
    #: 0 keeps the volume's own grid. [paper 3.3.2]
    slice_size: int = 0
    #: Cases prepared at once; 0 means one per processor core.
    workers: int = 0

    def __post_init__(self) -> None:
        choices(self, "prepare")
        in_range("prepare.slice_size", self.slice_size, 0, 4096)
        in_range("prepare.workers", self.workers, 0, 256)

    def slice_settings(self, study: StudyConfig) -> dict[str, Any]:
        """Every setting that shapes a prepared slice, by its key; equal ones give equal slices.

        Where volumes lie, what classes and regions are called and the number of workers do not.
        `study.resample` is not among them: it decides whether a case can be read at all.
        """
        correction: dict[str, Any] = {"enabled": self.bias_field.enabled}
        if self.bias_field.enabled:
            corrected = sorted(self.bias_field.modalities or study.modalities)
            correction = asdict(self.bias_field) | {"modalities": corrected}
        return {
            "study.modalities": study.modalities,
            "study.skull_stripped": study.skull_stripped,
            "study.files.mask": study.has_brain_mask or None,
            "study.label_values": study.label_values,
            "study.ignore_label": study.ignore_label,
            **{f"prepare.{key}": value for key, value in asdict(self).items()
               if key not in ("workers", "bias_field")},
            **{f"prepare.bias_field.{key}": value for key, value in correction.items()},
        }


@dataclass(frozen=True)
class SplitConfig:
    """The case-level split, drawn once from `seed`; numbers below 1 are fractions, else counts."""

    #: A split of one's own instead of a drawn one: a file that names the cases of its parts or
    #: folds, nnU-Net's splits_final.json among them (see own_data.md); empty draws one.
    file: str = ""
    #: Cases set aside and never trained on.
    test: float = 0.2
    #: Cases that choose the best checkpoint and fit the prior; 0: none.
    validation: float = 0.1
    #: With `folds: k` the cases that are not set aside as `test` are cut into k folds; 0: none.
    folds: int = 0
    #: Cases without a segmentation, where others have one: `refuse` counts them as faulty, `test`
    #: sets them aside beside the test cases, to be segmented and not scored.
    unlabelled: Unlabelled = Unlabelled.REFUSE
    #: Seed of the draw; the same seed and cases give the same split.
    seed: int = 0
    #: Regular expression: cases for which its first group (or the whole match) is equal are of
    #: one patient and stay together; empty means that every case is a patient.
    patient: str = ""

    def __post_init__(self) -> None:
        choices(self, "split")
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
            raise ConfigError(f"split.folds must be 0 or at least 2, got {self.folds}",
                              value=self.folds)


@dataclass(frozen=True)
class SamplingConfig:
    """Which pixels of a slice are trained on (paper section 2.1)."""

    #: `balanced` is the paper's N/K of each class; `uniform` is the original PixelNet; `all` takes
    #: every pixel of the lattice (see `lattice`). [paper 2.1]
    strategy: Strategy = Strategy.BALANCED
    #: Number of pixels drawn from a slice, the paper's N. The strategy `all` does not use it.
    #: [paper 3.3.1]
    pixels: int = 2000
    #: Share of the pixels that are the worst of four times as many: all are scored as
    #: the network stands, and of each class of a slice those with the largest cross-entropy are
    #: trained on; 0 is off. Not with the strategy `all`.
    hard_pixels: float = 0.0
    #: Strategy `all` alone: it takes every n-th pixel of every n-th row, from a corner drawn anew
    #: for every step; 1 takes every pixel.
    lattice: int = 2
    #: Draw background pixels inside the brain mask only.
    background_in_brain: bool = False
    #: How often a slice without lesion is drawn, as a share of how often a slice with one is; with
    #: 1.0 both are drawn equally often.
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
    #: brain (CarveMix' idea); 0 is off. Not with `model.context_slices` above 1: such a lesion
    #: would end within its slice.
    lesion_mixing: float = 0.0
    #: Share of the slices in which some channels, never all of them, are set to 0, the value of the
    #: background and the mean of the brain: a network that is to be used where a modality is
    #: missing (`predict --allow-missing`) learns to do without; 0 is off.
    modality_dropout: float = 0.0
    #: With `model.context_slices` above 1: slices of one case that are drawn one after the other,
    #: neighbours where there are any, so that those of a mini-batch share what is beside them. They
    #: are varied alike. Best as many as, or a divisor of, `training.batch_slices`.
    slab_slices: int = 5

    def __post_init__(self) -> None:
        choices(self, "sampling")
        in_range("sampling.lattice", self.lattice, 1, 16)
        in_range("sampling.pixels", self.pixels, 1, 10**7)
        in_range("sampling.hard_pixels", self.hard_pixels, 0.0, 1.0)
        if self.hard_pixels and self.strategy == Strategy.ALL:
            raise ConfigError("sampling.hard_pixels chooses among drawn pixels, and the strategy "
                              "all takes every one", value=self.hard_pixels,
                              hint="set sampling.strategy=uniform, or sampling.hard_pixels=0")
        in_range("sampling.intensity_jitter", self.intensity_jitter, 0.0, 0.9)
        in_range("sampling.rotation", self.rotation, 0.0, 180.0)
        in_range("sampling.scaling", self.scaling, 0.0, 4.0)
        in_range("sampling.blur", self.blur, 0.0, 10.0)
        in_range("sampling.noise", self.noise, 0.0, 10.0)
        in_range("sampling.lesion_mixing", self.lesion_mixing, 0.0, 1.0)
        in_range("sampling.modality_dropout", self.modality_dropout, 0.0, 1.0)
        in_range("sampling.slab_slices", self.slab_slices, 1, 1024)
        in_range("sampling.lesion_free_slices", self.lesion_free_slices, 0.0, 1.0)

    @property
    def drawn_pixels(self) -> int:
        """Pixels drawn from a slice: `pixels`, and the candidates of the hard ones."""
        return self.pixels + (HARD_CANDIDATES - 1) * round(self.hard_pixels * self.pixels)

    @property
    def words(self) -> str:
        """What a step takes of each slice, as a training tells it."""
        if self.strategy == Strategy.ALL:
            return ("every pixel each" if self.lattice == 1 else
                    f"every pixel on a lattice of {self.lattice} each")
        return f"{self.pixels} pixels each ({self.strategy})"


@dataclass(frozen=True)
class ModelConfig:
    """The network: VGG-16, hypercolumn, perceptron (paper section 2)."""

    #: Score the overlapping regions of `study.regions`, each with a sigmoid of its own, in place of
    #: the paper's softmax over the classes (see training.md). [nnU-Net]
    region_based: bool = False
    #: Slices that a pixel's hypercolumn is read from: its own (1, the paper's), and with 3 or 5
    #: those one or two below and above it (see training.md). [paper 2]
    context_slices: int = 1
    #: Planes whose slices the network learns from and whose scores of a voxel are averaged: `axial`
    #: (the paper's), and with it `coronal`, `sagittal` or both (see training.md). `prepare` writes
    #: the slices of each. [paper 3.3]
    planes: tuple[str, ...] = (PLANES[0],)
    #: Mix the modalities to three channels by a trained 1x1 layer before conv1_1, whose pretrained
    #: kernels then stay as they are: at the start the first three modalities pass untouched and
    #: the others have no part. Needs more than three modalities (see training.md).
    mix_channels: bool = False
    #: Channels of the five convolution blocks. [VGG-16]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    #: Channels of fc6_conv and fc7_conv. [VGG-16]
    fc_width: int = 4096
    #: `faithful`: fc6 without padding, read at rate 224, as the original; `aligned`: fc6 padded
    #: by 3, read at rate 32; `none`: no fc6/fc7, the hypercolumn ends with conv5_3 (see caffe.md).
    #: [original]
    fc7: Fc7 = Fc7.FAITHFUL
    #: `mlp`, or `linear` (one layer after a ReLU on the hypercolumn). [paper 2]
    head: Head = Head.MLP
    #: Hidden layers of the `mlp` head. [paper 2]
    head_widths: tuple[int, ...] = (4096, 4096)
    #: Caffe's BatchNorm on every tap (the original's linear variant). [original]
    batch_norm: bool = False
    #: Share of the numbers dropped after fc6, fc7 and each hidden layer of the head. [original]
    dropout: float = 0.5
    #: Zero pixels around the image; pixel coordinates move with it. [original]
    border: int = 100
    #: Start of the head: `caffe` is a Gaussian of `filler_std`; `he` is scaled to the fan-in and
    #: starts faster where the head is small. [original]
    head_filler: HeadFiller = HeadFiller.CAFFE
    #: Standard deviation of the `caffe` filler. [original]
    filler_std: float = 0.001

    def __post_init__(self) -> None:
        choices(self, "model")
        if self.context_slices not in (1, 3, 5):
            raise ConfigError("model.context_slices must be 1, 3 or 5, got "
                              f"{self.context_slices!r}", value=self.context_slices)
        if (not self.planes or self.planes[0] != PLANES[0] or set(self.planes) - set(PLANES)
                or len(set(self.planes)) != len(self.planes)):
            raise ConfigError(f"model.planes must be {PLANES[0]}, and may name some of "
                              f"{list(PLANES[1:])} after it, each once, got {list(self.planes)}",
                              value=list(self.planes), hint="set model.planes=[axial]")
        if len(self.widths) != 5 or min(self.widths) < 1:
            raise ConfigError(f"model.widths needs five positive numbers, got {self.widths}",
                              value=self.widths)
        in_range("model.fc_width", self.fc_width, 1, 10**6)
        in_range("model.filler_std", self.filler_std, 0.0, 1e3)
        in_range("model.dropout", self.dropout, 0.0, 0.99)
        in_range("model.border", self.border, 0, 1024)
        if self.head == Head.MLP and not self.head_widths:
            raise ConfigError("model.head_widths needs at least one number for the mlp head")
        if len(self.head_widths) > 32:
            raise ConfigError("model.head_widths may have 32 numbers, a layer each, got "
                              f"{len(self.head_widths)}", value=len(self.head_widths))
        if min(self.head_widths, default=1) < 1:
            raise ConfigError(f"model.head_widths must be positive, got {list(self.head_widths)}",
                              value=list(self.head_widths))

    @property
    def reach(self) -> int:
        """How many slices on each side of its own a hypercolumn is read from."""
        return self.context_slices // 2

    @property
    def offsets(self) -> tuple[int, ...]:
        """The slices that a hypercolumn is read from, counted from its own: 0 first, then -1 (the
        one below), 1 (above), and so on."""
        return (0, *(sign * distance for distance in range(1, self.reach + 1)
                     for sign in (-1, 1)))


@dataclass(frozen=True)
class SolverConfig:
    """The solver and its learning-rate policy; the defaults are the authors', Caffe's SGD."""

    #: Caffe's `SGD`, `Nesterov`, `AdaGrad`, `RMSProp`, `AdaDelta` or `Adam`, or `adamw`: Keras'
    #: AdamW, whose decay acts on the weights themselves. [original]
    type: SolverType = SolverType.SGD
    #: Learning rate at the start; `auto` takes the one that a short trial on the training slices
    #: finds (see training.md). [original]
    base_lr: float | Literal["auto"] = 0.001
    #: The learning rate is inside the momentum: `h = momentum * h + lr * g`. `AdaGrad` and
    #: `RMSProp` have none: 0. [original]
    momentum: float = 0.9
    #: Share of its running mean of squared gradients that `Adam` or `adamw` keeps at each step.
    #: [Caffe]
    momentum2: float = 0.999
    #: Share of its running mean of squared gradients that `RMSProp` keeps at each step. [Caffe]
    rms_decay: float = 0.99
    #: Added to what `AdaGrad`, `RMSProp`, `AdaDelta`, `Adam` and `adamw` divide by. [Caffe]
    delta: float = 1e-8
    #: L2 decay, added to the gradient before the momentum. With `adamw` the share by which a step
    #: of rate 1 lowers the kernels, the gradient left alone; 0.01 is common there. [original]
    weight_decay: float = 0.0005
    #: Scale the gradients down where their L2 norm over all layers exceeds this, that of their sum
    #: over `iter_size` mini-batches; 0: never. [Caffe]
    clip_gradients: float = 0.0
    #: Mini-batches of a step, whose gradients are averaged: a larger batch in the memory of a small
    #: one. [Caffe]
    iter_size: int = 1
    #: `fixed`, `step`, `exp`, `inv`, `multistep`, `poly` or `sigmoid`, or `cosine`: half a wave
    #: from base_lr down to 0 at the last step. [original]
    lr_policy: LrPolicy = LrPolicy.STEP
    #: Steps at the start in which the rate rises in a straight line to the policy's; 0: none.
    warmup_steps: int = 0
    #: Factor of `step`, `exp`, `multistep`; slope of `inv` and `sigmoid`. [original]
    gamma: float = 0.1
    #: Exponent of `inv` and `poly`. [Caffe]
    power: float = 0.9
    #: Number of steps between two falls of the rate (`step`), or the step at the middle of the
    #: curve (`sigmoid`). [original]
    stepsize: int = 100000
    #: Steps at which `multistep` falls. [Caffe]
    stepvalues: tuple[int, ...] = ()
    #: Learning-rate multiplier of the new layers (head, and fc6/fc7 when they start at random); 10
    #: in the authors' later files. [original]
    new_layers_lr: float = 1.0

    def __post_init__(self) -> None:
        choices(self, "training.solver")
        in_range("training.solver.momentum", self.momentum, 0.0, 1.0)
        if self.base_lr != AUTO:
            in_range("training.solver.base_lr", self.base_lr, 0.0, 1e6)
        for name in ("weight_decay", "clip_gradients", "new_layers_lr"):
            in_range(f"training.solver.{name}", getattr(self, name), 0.0, 1e6)
        for name in ("gamma", "power"):
            in_range(f"training.solver.{name}", getattr(self, name), -1e6, 1e6)
        in_range("training.solver.stepsize", self.stepsize, int(self.lr_policy == LrPolicy.STEP))
        if self.lr_policy == LrPolicy.MULTISTEP and not self.stepvalues:
            raise ConfigError("training.solver.stepvalues needs at least one step for the policy "
                              "multistep")
        if min(self.stepvalues, default=0) < 0:
            raise ConfigError("training.solver.stepvalues must not be negative, got "
                              f"{list(self.stepvalues)}", value=list(self.stepvalues))
        if self.momentum and self.type in (SolverType.ADAGRAD, SolverType.RMSPROP):
            raise ConfigError(f"training.solver.type={self.type} has no momentum",
                              hint="set training.solver.momentum=0")
        for name in ("momentum2", "rms_decay"):
            in_range(f"training.solver.{name}", getattr(self, name), 0.0, 1.0)
        shares = {SolverType.RMSPROP: ("rms_decay",), SolverType.ADADELTA: ("momentum",),
                  SolverType.ADAM: ("momentum", "momentum2"),
                  SolverType.ADAMW: ("momentum", "momentum2")}
        for name in shares.get(self.type, ()):
            if getattr(self, name) == 1:
                raise ConfigError(f"training.solver.{name} must be below 1 with {self.type}")
        in_range("training.solver.delta", self.delta, 0.0, 1e6)
        in_range("training.solver.iter_size", self.iter_size, 1)
        in_range("training.solver.warmup_steps", self.warmup_steps, 0)


@dataclass(frozen=True)
class TrainingConfig:
    """The training loop (paper section 3.3)."""

    solver: SolverConfig = field(default_factory=SolverConfig)
    #: `cross_entropy` (Caffe's SoftmaxWithLoss), `dice` (one minus the soft Dice of the lesion
    #: classes over all pixels of a mini-batch), or their sum `cross_entropy_dice`. [paper 2]
    loss: LossKind = LossKind.CROSS_ENTROPY
    #: Weight of each class in the loss, in the order of `study.labels`; empty: all weigh the same.
    class_weights: tuple[float, ...] = ()
    #: Share of themselves that averaged weights keep at each step (0.99 to 0.9999). They are what
    #: is validated, kept as the best and written as the final model; 0: the solver's own weights.
    average_weights: float = 0.0
    #: Passes over the training slices. [original]
    epochs: int = 80
    #: Number of solver steps; replaces `epochs` when it is not 0.
    steps: int = 0
    #: Slices in a mini-batch. [original]
    batch_slices: int = 5
    #: Seed of the start weights, the order of the slices, the sampled pixels, the flips and the
    #: dropout. [original]
    seed: int = 1989
    #: `random`, `imagenet` (Keras' VGG-16), or the path of a .caffemodel or a .keras model; the
    #: paper starts from VGG-16. With Caffe's .solverstate the training goes on from its step, with
    #: its weights as they are and its momentum (see caffe.md). [paper 3.3]
    initial_weights: str = "random"
    #: What pretrained kernels of three channels become where there are more modalities: `average`
    #: gives each the mean of the three, `repeat` gives them in turn, `keep` leaves them to the
    #: first three modalities, and the others begin at 0 (see training.md).
    extra_channels: ExtraChannels = ExtraChannels.AVERAGE
    #: Gray levels, as the pretrained kernels know them, that one unit of the normalised image
    #: stands for (ImageNet's standard deviation is near 58). The network is homogeneous: dividing
    #: the pretrained biases by it makes every response the original's, divided by it.
    pretrained_intensity: float = 58.0
    #: Rescale the start weights so that every map of the hypercolumn has the same strength; the
    #: network computes the same maps, each times a number.
    balance_taps: bool = False
    #: Let pretrained layers learn as fast as in the scale that they came in: `pretrained_intensity`
    #: and `balance_taps` rescale their weights, and at one rate a weight that was made small by a
    #: factor of ten learns a hundred times as fast (see training.md).
    native_rates: bool = False
    #: Blocks of VGG-16 that stay as they are, from the first on (0: all are trained).
    frozen_blocks: int = 0
    #: Solver steps between two validations; 0: once an epoch.
    validate_every: int = 0
    #: Solver steps between two checkpoints; 0: once an epoch, and at least every 200 steps.
    checkpoint_every: int = 0
    #: `float32`, or `bfloat16` for the matrix products with float32 weights; `auto`: bfloat16 where
    #: the hardware multiplies it and the network is wide, else float32; chosen when the training
    #: begins, and kept by the run (see training.md).
    precision: Precision = Precision.AUTO
    #: Compute only what the image and the sampled pixels need (the same gradients).
    fast: bool = True
    #: TensorFlow's deterministic kernels: a resumed run ends with the same weights.
    deterministic: bool = True

    @property
    def step_slices(self) -> int:
        """Slices of a solver step."""
        return self.batch_slices * self.solver.iter_size

    def __post_init__(self) -> None:
        choices(self, "training")
        if self.class_weights and (min(self.class_weights) < 0 or not sum(self.class_weights[1:])):
            raise ConfigError("training.class_weights must not be negative, and some lesion class "
                              f"must weigh something, got {list(self.class_weights)}",
                              value=list(self.class_weights))
        in_range("training.average_weights", self.average_weights, 0.0, 0.999999)
        in_range("training.pretrained_intensity", self.pretrained_intensity, 1e-3, 1e6)
        # TensorFlow takes it as an int32.
        in_range("training.seed", self.seed, 0, 2**31 - 1)
        in_range("training.batch_slices", self.batch_slices, 1, 1024)
        in_range("training.frozen_blocks", self.frozen_blocks, 0, 5)
        for name in ("epochs", "steps", "validate_every", "checkpoint_every"):
            in_range(f"training.{name}", getattr(self, name), 0)
        if not (self.epochs or self.steps):
            raise ConfigError("training.epochs and training.steps are both 0: nothing to do")


@dataclass(frozen=True)
class PostprocessConfig:
    """Clean-up of a predicted volume; every step is off by default."""

    #: Region -> smallest connected component that stays, in voxels.
    minimum_component: dict[str, int] = field(default_factory=dict)
    #: Regions of which only the largest connected component stays; right where a patient has one
    #: lesion at most.
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

    #: Radius of the filter's square windows in pixels; 0 switches the filter off.
    radius: int = 0
    #: Variance of the normalised image, within a window, below which it counts as flat.
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        in_range("prediction.guided_filter.radius", self.radius, 0, 256)
        in_range("prediction.guided_filter.epsilon", self.epsilon, 1e-6, 1e6)


@dataclass(frozen=True)
class LatticeConfig:
    """Where the adaptive mode looks first, and when it looks closer."""

    #: Distance in pixels of the pixels that are looked at first, along both axes of a slice: 2, 4
    #: or 8.
    stride: int = 4
    #: Of a volume only every so many slices are looked at first: 1, 2 or 4. Not with
    #: `model.context_slices`, the guided filter, several planes or the average of several networks,
    #: where it counts as 1.
    slices: int = 1
    #: Pixels that agree fill what lies between them only if the best score of each leads, or each
    #: region lies from its threshold, by this much (in logits).
    margin: float = 2.0

    def __post_init__(self) -> None:
        for name, value, allowed in (("stride", self.stride, (2, 4, 8)),
                                     ("slices", self.slices, (1, 2, 4))):
            if value not in allowed:
                raise ConfigError(f"prediction.lattice.{name} must be one of {list(allowed)}, got "
                                  f"{value}", value=value)
        in_range("prediction.lattice.margin", self.margin, 0.0, 1000.0)


@dataclass(frozen=True)
class PredictionConfig:
    """From a trained model to label volumes (paper section 3.3)."""

    #: `sampled`: the arg max of the paper, under the prior of the sampled pixels; `corrected`:
    #: log(real class frequency / sampled class frequency) is added to the scores; `fitted`: that
    #: correction times a strength fitted on the validation cases (see training.md). [paper 2.1]
    prior: Prior = Prior.CORRECTED
    #: `exact`, `adaptive` (faster, not exact), or `reference` (the plain hypercolumn of every
    #: pixel, slow: the yardstick).
    mode: Mode = Mode.EXACT
    #: `float32`, or `bfloat16` for the matrix products; `auto`: as chosen when the training began.
    precision: Precision = Precision.AUTO
    #: Pixels outside the brain (or head) are background: `yes`, `no`, or `auto`: when the study is
    #: skull-stripped or has brain masks.
    brain_only: BrainOnly = BrainOnly.AUTO
    #: Slices computed together; more are faster and need more memory. `auto`: 8 of up to 256 x 256
    #: pixels, fewer of larger ones.
    batch_slices: int | Literal["auto"] = AUTO
    #: Also write the probability of every class.
    probability_maps: bool = False
    #: Also write how unsure each voxel is (measures.md): the entropy, and for several networks the
    #: mutual information.
    uncertainty_maps: bool = False
    #: Segment a case of raw images that lacks a modality with that channel at 0; otherwise it is
    #: refused. See `sampling.modality_dropout`.
    allow_missing: bool = False
    #: Lesion class -> number that is added to its score, on top of the prior's correction: a
    #: threshold's place in log-odds. Above 0 more of the class is found.
    class_offsets: dict[str, float] = field(default_factory=dict)
    #: Region -> the probability above which a voxel is in it; others are cut at 0.5, and
    #: `study.regions_class_order` turns regions into labels. Of a softmax a region's probability is
    #: the sum of its classes', and without any threshold the most probable class is taken.
    region_thresholds: dict[str, float] = field(default_factory=dict)
    #: Take the mean of the scores of each slice and of its mirror image; twice the time.
    flips: bool = False
    #: `apply`: follow what `train` decided on the validation cases (RUN/decisions.json) about
    #: `prior`, `class_offsets`, `guided_filter`, `flips`, `region_thresholds`, `postprocess` and
    #: `lattice`, and choose the checkpoint under that prior; `ignore`: take them as they stand
    #: here. See training.md.
    decisions: FollowDecisions = FollowDecisions.APPLY
    #: The adaptive mode's lattice. Where `mode` is adaptive, `train` decides it on the validation
    #: cases: the cheapest that keeps to `adaptive_bound`.
    lattice: LatticeConfig = field(default_factory=LatticeConfig)
    #: The share of a case's brain voxels that the adaptive mode must label as the exact mode does,
    #: on the validation cases that decide the lattice. Dice may differ by twice what is left to 1.
    adaptive_bound: float = 0.999
    guided_filter: GuidedFilterConfig = field(default_factory=GuidedFilterConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)

    def __post_init__(self) -> None:
        choices(self, "prediction")
        in_range("prediction.adaptive_bound", self.adaptive_bound, 0.5, 1.0)
        if self.batch_slices != AUTO:
            in_range("prediction.batch_slices", self.batch_slices, 1, 1024)
        for name, offset in self.class_offsets.items():
            in_range(f"prediction.class_offsets.{name}", offset, -100.0, 100.0)
        for name, threshold in self.region_thresholds.items():
            in_range(f"prediction.region_thresholds.{name}", threshold, 0.001, 0.999)

    def offsets(self, study: StudyConfig) -> list[float]:
        """`class_offsets` in the order of the class indices, 0 for a class not in it."""
        return [self.class_offsets.get(name, 0.0) for name in study.class_names]

    def inside_brain(self, study: StudyConfig) -> bool:
        """Whether pixels outside the brain are background unseen, as `brain_only` has it."""
        return self.brain_only == BrainOnly.YES or (
            self.brain_only == BrainOnly.AUTO
            and (study.skull_stripped or study.has_brain_mask))


@dataclass(frozen=True)
class EvaluationConfig:
    """How predictions are scored (paper tables 1 to 4)."""

    #: `brats` (Dice, sensitivity, specificity, Hausdorff95), `isles` (Dice, Hausdorff, average
    #: distance, precision, recall) or `brats2023` (Dice and Hausdorff95 of each lesion; see
    #: measures.md). [paper 3.3]
    protocol: ProtocolName = ProtocolName.BRATS
    #: BraTS when one mask is empty: `brats2020` (the image diagonal) or `exclude`. [BraTS]
    empty_policy: EmptyPolicy = EmptyPolicy.BRATS2020
    #: `brats2023`: what the reference's dilation by so many voxels joins is one lesion; 3 for
    #: gliomas, 1 for meningiomas and metastases. [BraTS 2023]
    lesion_dilation: int = 3
    #: `brats2023`: lesions of the reference of this volume or less are left out; 50, for metastases
    #: 2. [BraTS 2023]
    lesion_threshold_mm3: float = 50.0
    #: Surfaces of reference and prediction agree where they are no farther apart, for the surface
    #: Dice.
    surface_tolerance_mm: float = 1.0
    #: Cases scored at once; 0 means one per processor core.
    workers: int = 0

    def __post_init__(self) -> None:
        choices(self, "evaluation")
        in_range("evaluation.lesion_dilation", self.lesion_dilation, 0, 20)
        in_range("evaluation.lesion_threshold_mm3", self.lesion_threshold_mm3, 0.0, 1e6)
        in_range("evaluation.surface_tolerance_mm", self.surface_tolerance_mm, 0.0, 1000.0)
        in_range("evaluation.workers", self.workers, 0, 256)


@dataclass(frozen=True)
class Config:
    """The whole configuration of a study, as a YAML file holds it.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> config = px.Config()
    >>> config.sampling.pixels, config.study.class_names
    (2000, ('background', 'necrosis', 'edema', 'enhancing'))
    """

    study: StudyConfig = field(default_factory=StudyConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        for key, number in _numbers(asdict(self)):
            if not math.isfinite(number):
                raise ConfigError(f"{key} must be a finite number, got {number}", value=number)
        weights, labels = self.training.class_weights, self.study.labels
        if weights and len(weights) != len(labels):
            raise ConfigError("training.class_weights needs one number for each of study.labels "
                              f"{list(labels.values())}, got {list(weights)}", value=list(weights))
        if self.model.reach and self.sampling.lesion_mixing:
            raise ConfigError("sampling.lesion_mixing lays a lesion into one slice alone, and with "
                              f"model.context_slices={self.model.context_slices} those beside it "
                              "are seen, too", value=self.sampling.lesion_mixing,
                              hint="set sampling.lesion_mixing=0 or model.context_slices=1")
        if len(self.model.planes) > 1 and self.prepare.slice_size:
            raise ConfigError(f"model.planes {list(self.model.planes)} are cut on the volume's own "
                              f"grid, and prepare.slice_size={self.prepare.slice_size} scales the "
                              "axial slices", value=self.prepare.slice_size,
                              hint="set prepare.slice_size=0 or model.planes=[axial]")
        self.prediction.postprocess.check_study(self.study)
        for name in self.prediction.class_offsets:
            if name not in self.study.class_names[1:]:
                raise ConfigError(
                    f"prediction.class_offsets names {name!r}"
                    f"{nearest_hint(name, self.study.class_names[1:])}; the lesion classes of "
                    f"study.labels are {list(self.study.class_names[1:])}")
        self._check_regions()
        for modality in self.prepare.bias_field.modalities:
            if modality not in self.study.modalities:
                raise ConfigError(
                    f"prepare.bias_field.modalities names {modality!r}"
                    f"{nearest_hint(modality, self.study.modalities)}; study.modalities has "
                    f"{list(self.study.modalities)}")

    def _check_regions(self) -> None:
        """See that regions can be cut out where they are to be."""
        thresholds = self.prediction.region_thresholds
        if self.model.region_based or thresholds:
            self.study.region_order()
        for name in thresholds:
            if name not in self.study.regions:
                raise ConfigError(
                    f"prediction.region_thresholds names {name!r}"
                    f"{nearest_hint(name, self.study.regions)}; study.regions has "
                    f"{list(self.study.regions)}", value=name)
        if self.model.region_based and self.prediction.class_offsets:
            raise ConfigError("prediction.class_offsets are added to the scores of classes, and "
                              "with model.region_based the network scores regions",
                              value=dict(self.prediction.class_offsets),
                              hint="set prediction.region_thresholds")

    def with_precision(self, training: Precision, prediction: Precision | None = None) -> Config:
        """This configuration with what `precision: auto` stands for; the other values stay.

        prediction: of the prediction, where it is another one than the training's.
        """
        found = {"training": training, "prediction": prediction or training}
        return replace(self, **{name: replace(getattr(self, name), precision=precision)
                                for name, precision in found.items()
                                if getattr(self, name).precision == Precision.AUTO})

    @property
    def score_names(self) -> tuple[str, ...]:
        """What the scores of a pixel are those of: the classes, or the regions."""
        return tuple(self.study.regions) if self.model.region_based else self.study.class_names

    @property
    def scored_regions(self) -> tuple[tuple[int, ...], ...]:
        """The class indices of each region where the network scores regions, else empty."""
        return tuple(self.study.region_classes.values()) if self.model.region_based else ()
