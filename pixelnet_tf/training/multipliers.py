"""Learning-rate and decay multipliers of a training: the model's own, new and frozen layers."""

from __future__ import annotations

from collections.abc import Collection

from pixelnet_tf.config import TrainingConfig
from pixelnet_tf.model.pixelnet import PixelNet


def training_multipliers(model: PixelNet, config: TrainingConfig, new_layers: Collection[str]
                         ) -> dict[str, tuple[float, float]]:
    """Variable path -> (lr_mult, decay_mult) for one training.

    The head learns `solver.new_layers_lr` times as fast (x10 and x20 in the authors' later files),
    and so do fc6_conv and fc7_conv where they are among `new_layers`, the names of the layers that
    do not come from pretrained weights; the first `frozen_blocks` blocks do not learn.
    """
    table = model.architecture
    frozen = {layer.name for block in table.blocks[:config.frozen_blocks] for layer in block}
    new = set(table.head_names) | (set(new_layers) - set(table.trunk_names))
    found = {}
    for path, (rate, decay) in model.multipliers.items():
        layer = path.split("/")[0]
        factor = 0.0 if layer in frozen else config.solver.new_layers_lr if layer in new else 1.0
        found[path] = (rate * factor, decay)
    return found
