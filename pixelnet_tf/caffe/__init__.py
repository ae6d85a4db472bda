"""Caffe networks as Keras models, and weights both ways; knows `prototxt_import` alone."""
