"""Helpers of the Caffe tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pixelnet_tf.caffe.blobs import blob_variables, get_blobs, set_blobs
from pixelnet_tf.caffe.layers.forks import PSPNetBN
from pixelnet_tf.caffe.reading import read_network
from pixelnet_tf.model.batch_norm import CaffeBatchNorm

# caffe_numpy, compare_numpy, pixelnet_family and layer_cases stand beside the tests.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def network_of(tmp_path):
    """A function from prototxt text to a Network."""

    def read(text: str, **options):
        path = tmp_path / "net.prototxt"
        path.write_text(text)
        return read_network(path, **options)

    return read


@pytest.fixture
def randomise():
    """A function that gives a model random weights and returns them in Caffe's form."""

    def fill(model, seed: int = 0):
        rng = np.random.default_rng(seed)
        for layer in model.layers:
            if not blob_variables(layer):
                continue
            blobs = [np.float32(rng.normal(0, 0.3, blob.shape)) for blob in get_blobs(layer)]
            if isinstance(layer, CaffeBatchNorm):
                blobs[1] = np.abs(blobs[1]) + 1
                blobs[2][:] = 2
            if isinstance(layer, PSPNetBN):
                blobs[3] = np.abs(blobs[3]) + 1
            set_blobs(layer, blobs)
        return {layer.name: get_blobs(layer) for layer in model.layers if blob_variables(layer)}

    return fill
