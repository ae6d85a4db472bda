"""What each setting of the preset `best` is worth: one changed at a time, on validation cases.

    python scripts/ablations.py OUT --data PREPARED --references STUDY --steps 300 \\
        [--validation CASES --folds 0] [--set KEY=VALUE]
    python scripts/ablations.py OUT --list
    python scripts/ablations.py OUT                     # every job that is left, then the table

A job is one change on one fold, resumable as those of head_to_head.py, whose options these are.
Without --validation the validation cases of the prepared study's folds judge, or what each fold
holds out where it has none, or the validation cases of its split; test cases are neither segmented
nor opened. OUT/ablations.md has the table: Dice of the validation cases by the arg max, and with a
cut and a clean-up that the other validation cases choose for each (so that no case chooses for
itself), both as differences to `best` with their interval. Short runs tell large effects, not small
ones; the same --steps for all favours dear steps, `--time --minutes M` gives all the same CPU time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from head_to_head import begin, script
from race import ablation
from race.plan import Race, preset_overrides

from pixelnet_tf.errors import ConfigError

#: One change each; `best` is the preset as it is.
ARMS: dict[str, tuple[str, ...]] = {
    "best": (),
    "loss-cross-entropy": ("training.loss=cross_entropy",),
    "pixels-uniform-2000": ("sampling.strategy=uniform", "sampling.pixels=2000"),
    "pixels-uniform-16384": ("sampling.strategy=uniform", "sampling.pixels=16384"),
    "pixels-all": ("sampling.strategy=all", "sampling.lattice=2"),
    "pixels-balanced-2000": ("sampling.strategy=balanced", "sampling.pixels=2000"),
    "hard-pixels": ("sampling.hard_pixels=0.5",),
    "sgd": ("training.solver={type: SGD, base_lr: 0.002, lr_policy: poly, power: 0.9}",),
    "rate-half": ("training.solver.base_lr=0.00005",),
    "rate-quarter": ("training.solver.base_lr=0.000025",),
    "rate-double": ("training.solver.base_lr=0.0002",),
    "rate-auto": ("training.solver.base_lr=auto",),
    "rates-as-stored": ("training.native_rates=false",),
    "average-weights": ("training.average_weights=0.99",),
    "no-augmentation": ("sampling.flips=false", "sampling.intensity_jitter=0",
                        "sampling.rotation=0", "sampling.scaling=0", "sampling.blur=0",
                        "sampling.noise=0", "sampling.lesion_mixing=0"),
    "no-mixing": ("sampling.lesion_mixing=0",),
    "no-dropout": ("model.dropout=0",),
    "trunk-free": ("training.frozen_blocks=0",),
    "frozen-3": ("training.frozen_blocks=3",),
    "slices-1": ("training.batch_slices=1",),
    "channels-average": ("training.extra_channels=average",),
    "channels-keep": ("training.extra_channels=keep",),
    "channels-mixed": ("model.mix_channels=true",),
    "context-3": ("model.context_slices=3", "sampling.slab_slices=2", "sampling.lesion_mixing=0"),
    "planes": ("model.planes=[axial, coronal, sagittal]", "sampling.lesion_mixing=0"),
}


def start(given: argparse.Namespace) -> Race:
    """Begin the arms of `--contestants`, or all."""
    names = given.contestants.split(",") if given.contestants else list(ARMS)
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ConfigError(f"no arm {unknown[0]!r}", value=unknown[0],
                          hint=f"known are {list(ARMS)}")
    return begin(given, {name: (given.config, (
        *preset_overrides("best"), *given.overrides, *ARMS[name])) for name in names}, tested=False)


def main(argv: list[str] | None = None) -> int:
    """Run the ablations, or a part of them."""
    return script(argv, __doc__, __file__, start, ablation.write_table)


if __name__ == "__main__":
    sys.exit(main())
