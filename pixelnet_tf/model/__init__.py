"""The network: VGG-16, hypercolumn, head, and their fast exact forms.

Importing this room registers the network's classes with Keras, so that `keras.saving.load_model`
reads a run's model.keras.
"""

from pixelnet_tf.model.batch_norm import CaffeBatchNorm
from pixelnet_tf.model.fillers import CaffeFiller
from pixelnet_tf.model.hypercolumn import Hypercolumn
from pixelnet_tf.model.pixelnet import PixelNet

__all__ = ["CaffeBatchNorm", "CaffeFiller", "Hypercolumn", "PixelNet"]
