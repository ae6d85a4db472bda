"""What `precision: auto` stands for: bfloat16 where the hardware multiplies it and it pays.

Elsewhere bfloat16 is several times slower than float32: each number is turned to and fro.
"""

from __future__ import annotations

import tensorflow as tf

from pixelnet_tf.config import ModelConfig, Precision
from pixelnet_tf.io.processor import bfloat16_instructions

#: A network whose widest layer of the trunk has fewer channels stays float32: convolutions of 64
#: channels and less take between two thirds and twice as long in either type on a processor with
#: AMX, those of 128 and more a third as long in bfloat16.
WIDE = 128
#: The first generation of NVIDIA's cards that multiplies bfloat16 (Ampere).
_CAPABILITY = (8, 0)


def bfloat16_by() -> str:
    """What multiplies bfloat16 here, as a name for messages; empty: nothing does.

    Where there are GPUs, all of them must.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return bfloat16_instructions()
    about = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    if any(each.get("compute_capability", (0, 0)) < _CAPABILITY for each in about):
        return ""
    return str(about[0].get("device_name", "the GPU"))


def auto_precision(model: ModelConfig) -> Precision:
    """The number type that `precision: auto` stands for, of a network on this machine."""
    return (Precision.BFLOAT16 if max(model.widths) >= WIDE and bfloat16_by()
            else Precision.FLOAT32)


def number_type(asked: str, model: ModelConfig) -> tf.DType:
    """The type that a setting `precision` names, of a network on this machine."""
    return tf.as_dtype(str(auto_precision(model) if asked == Precision.AUTO else asked))
