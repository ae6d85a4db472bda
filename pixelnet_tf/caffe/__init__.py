"""Caffe networks as Keras models, and weights both ways; only this package knows prototxt_import."""
