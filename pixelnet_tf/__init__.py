"""Class-Balanced PixelNet for neuro-imaging, on TensorFlow and Keras 3. For research use only.

The names below are the public interface. They are loaded when they are first used, so that
`import pixelnet_tf` is quick and starts no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_HOMES = {
    "Segmenter": "pixelnet_tf.api.segmenter",
    "Segmentation": "pixelnet_tf.api.segmenter",
    "Study": "pixelnet_tf.api.study",
    "plan": "pixelnet_tf.api.plan",
    "Job": "pixelnet_tf.api.job",
    "PreparedStudy": "pixelnet_tf.dataset.prepared",
    "train": "pixelnet_tf.api.study",
    "evaluate": "pixelnet_tf.api.scoring",
    "Scores": "pixelnet_tf.api.scoring",
    "write_phantom": "pixelnet_tf.api.study",
    "check_folder": "pixelnet_tf.api.check",
    "sample_pixels": "pixelnet_tf.api.sampling",
    "PixelNet": "pixelnet_tf.model.pixelnet",
    "Hypercolumn": "pixelnet_tf.model.hypercolumn",
    "CaffeSGD": "pixelnet_tf.training.solver",
    "Config": "pixelnet_tf.config",
    "load_config": "pixelnet_tf.config",
    "Reporter": "pixelnet_tf.reporting",
    "PixelNetError": "pixelnet_tf.errors",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from pixelnet_tf.api.check import check_folder as check_folder
    from pixelnet_tf.api.job import Job as Job
    from pixelnet_tf.api.plan import plan as plan
    from pixelnet_tf.api.sampling import sample_pixels as sample_pixels
    from pixelnet_tf.api.scoring import Scores as Scores
    from pixelnet_tf.api.scoring import evaluate as evaluate
    from pixelnet_tf.api.segmenter import Segmentation as Segmentation
    from pixelnet_tf.api.segmenter import Segmenter as Segmenter
    from pixelnet_tf.api.study import Study as Study
    from pixelnet_tf.api.study import train as train
    from pixelnet_tf.api.study import write_phantom as write_phantom
    from pixelnet_tf.config import Config as Config
    from pixelnet_tf.config import load_config as load_config
    from pixelnet_tf.dataset.prepared import PreparedStudy as PreparedStudy
    from pixelnet_tf.errors import PixelNetError as PixelNetError
    from pixelnet_tf.model.hypercolumn import Hypercolumn as Hypercolumn
    from pixelnet_tf.model.pixelnet import PixelNet as PixelNet
    from pixelnet_tf.reporting import Reporter as Reporter
    from pixelnet_tf.training.solver import CaffeSGD as CaffeSGD


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelnet_tf' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
