"""Training: Caffe's solver, the loop, checkpoints, logs.

Importing this room registers Caffe's solver and its learning rates with Keras, so that
`keras.saving.load_model` reads a model that was compiled with them.
"""

from pixelnet_tf.training.lr_policy import CaffePolicy
from pixelnet_tf.training.solver import CaffeSGD

__all__ = ["CaffePolicy", "CaffeSGD"]
