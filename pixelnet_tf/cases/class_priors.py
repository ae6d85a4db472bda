"""Class frequencies, real and sampled: what the correction of the scores is made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pixelnet_tf.config import Prior
from pixelnet_tf.errors import ConfigError
from pixelnet_tf.io.plain import PlainError, build


@dataclass(frozen=True)
class ClassPriors:
    """Class frequencies over the training slices, each summing to 1.

    Both are empty where they are unknown.

    Attributes:
        class_names: names of the classes, in the order of the class indices.
        real: frequency of each class among all pixels that may be drawn.
        sampled: frequency of each class among the pixels that the sampler draws.
        strength: factor on the correction, fitted on validation cases; 1 is Bayes' rule.
        regions: class indices of each region, where the network scores regions; empty where it
            scores the classes.
    """

    class_names: tuple[str, ...]
    real: tuple[float, ...]
    sampled: tuple[float, ...]
    strength: float = 1.0
    regions: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def unknown(cls, class_names: tuple[str, ...]) -> ClassPriors:
        """Those of a model that was not trained here."""
        return cls(class_names, (), ())

    def correction(self, prior: str) -> np.ndarray:
        """What is added to the scores, (class,) float32, or (region,) where regions are scored.

        `sampled` adds nothing: the arg max under the sampler's prior, as in the paper.
        `corrected` adds log(real / sampled), `fitted` the same times the fitted strength. The score
        of a region is its log-odds, to which the difference of the log-odds is added: with r and s
        the sums of its classes' frequencies, real and sampled, log(r / (1 - r)) - log(s / (1 - s)).
        That is Bayes' rule where the sampler draws a region's classes in their true proportion, and
        those outside it; else it is right for the region as a whole.

        Raises:
            ConfigError: the frequencies are unknown and the prior is not `sampled`.
        """
        if prior == Prior.SAMPLED:
            return np.zeros(len(self.regions or self.class_names), np.float32)
        if not self.real:
            raise ConfigError(f"prior {prior}: the class frequencies of an imported model are "
                              "unknown", hint="give --prior sampled, or train it on a study first")
        real, sampled = np.array(self.real), np.array(self.sampled)
        # How often a class is drawn that was met in no drawn slice is not known: it gets no say
        # either way, no more than one that never occurs in training.
        sampled = np.where(sampled > 0, sampled, real)
        real, sampled = np.maximum(real, 1e-12), np.maximum(sampled, 1e-12)
        if self.regions:
            inside = np.array([[index in region for index in range(len(real))]
                               for region in self.regions])
            real, sampled = ((inside @ side) / (~inside @ side) for side in (real, sampled))
        return (self.strength_under(prior) * np.log(real / sampled)).astype(np.float32)

    def strength_under(self, prior: str) -> float:
        """Factor on log(real / sampled) that a prior stands for: 0, 1, or the fitted one."""
        return {Prior.SAMPLED: 0.0, Prior.CORRECTED: 1.0, Prior.FITTED: self.strength}[Prior(prior)]

    def lines(self) -> list[str]:
        """Both frequencies of each class, in words."""
        return [f"  {name}: {100 * real:.3f}% of the pixels, {100 * sampled:.2f}% of the sampled "
                "ones" for name, real, sampled in
                zip(self.class_names, self.real, self.sampled, strict=True)]

    def to_json(self) -> dict[str, Any]:
        tree = asdict(self)
        if not self.regions:
            del tree["regions"]
        return tree

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClassPriors:
        """Build them from what `to_json` gave; raises `PlainError` for anything else."""
        priors = build(cls, data)
        sides = (priors.real, priors.sampled)
        if any(len(side) not in (0, len(priors.class_names)) for side in sides) or not all(
                0 <= value <= 1 for side in sides for value in side):
            raise PlainError(f"real and sampled must give each of the {len(priors.class_names)} "
                             f"classes a frequency from 0 to 1, got {sides}", value=sides)
        if any(not 0 < index < len(priors.class_names) for each in priors.regions
               for index in each) or not all(priors.regions):
            raise PlainError("regions must name lesion classes by their indices, got "
                             f"{priors.regions}", value=priors.regions)
        return priors
