"""Caffe networks as Keras models, and weights from Caffe and to it.

No other part of the package imports `prototxt_import`.
"""
