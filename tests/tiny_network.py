"""Small Caffe networks as text; one has a layer of each kind that has weights in PixelNet."""

from __future__ import annotations

import dataclasses

import numpy as np

from prototxt_import import Network

NET = """
name: "tiny"
layer {
  name: "data" type: "Input" top: "data" top: "pixels"
  input_param { shape { dim: 1 dim: 3 dim: 8 dim: 9 } shape { dim: 5 dim: 3 } }
}
layer {
  name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } }
}
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "relu" type: "ReLU" bottom: "bn" top: "bn" relu_param { negative_slope: 0.1 } }
layer {
  name: "taps" type: "RandBI" bottom: "conv" bottom: "bn" bottom: "pixels" top: "fc5"
  rand_comp_param { pad: true compression_rate: 1 compression_rate: 224 }
}
layer {
  name: "norm" type: "Normalize" bottom: "fc5" top: "norm"
  norm_param { across_spatial: false fix_scale: false }
}
layer {
  name: "score" type: "InnerProduct" bottom: "norm" top: "score"
  inner_product_param { num_output: 2 }
}
"""
#: Of the first generation's format.
V0 = """
name: "old"
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers {
  layer { name: "pad1" type: "padding" pad: 2 }
  bottom: "data" top: "padded"
}
layers {
  layer {
    name: "conv1" type: "conv" num_output: 4 kernelsize: 5 stride: 2 group: 1 biasterm: false
    weight_filler { type: "gaussian" std: 0.01 sparse: 3 }
    blobs_lr: 1 weight_decay: 0.5 dropout_ratio: 0.3
  }
  bottom: "padded" top: "conv1"
}
layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 }
  bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.0001 }
  bottom: "pool1" top: "norm1" }
layers { layer { name: "cat" type: "concat" concat_dim: 0 } bottom: "norm1" top: "cat" }
layers { layer { name: "fc" type: "innerproduct" num_output: 7 } bottom: "cat" top: "fc" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.25 } bottom: "fc" top: "fc" }
layers { layer { name: "loss" type: "softmax_loss" } bottom: "fc" bottom: "data" }
"""
SOLVER = ('net: "n" base_lr: 0.1 lr_policy: "step" gamma: 0.1 stepsize: 5 momentum: 0.9 '
          "max_iter: 50 test_iter: 2 test_interval: 5\n")
_SHAPES = {
    "conv": ((4, 3, 3, 3), (4,)),
    "bn": ((4,), (4,), (1,)),
    "norm": ((),),
    "score": ((2, 8), (2,)),
}


def with_weights(network: Network) -> Network:
    """The network of `NET` with the weights 0, 1, 2, ... in each blob."""
    return dataclasses.replace(network, layers=tuple(
        dataclasses.replace(layer, blobs=tuple(
            np.arange(np.prod(shape, dtype=int), dtype="f4").reshape(shape)
            for shape in _SHAPES.get(layer.name, ())))
        for layer in network.layers))
