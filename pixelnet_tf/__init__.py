"""Class-Balanced PixelNet for neuro-imaging, on TensorFlow and Keras 3. For research use only."""

__version__ = "0.1.0"
