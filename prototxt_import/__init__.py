"""Reads and writes Caffe's networks: prototxt, caffemodel (current, V1, V0, HDF5), solver.

Needs numpy and protobuf only (h5py for HDF5 models); no Caffe and no TensorFlow.

    network = load_network("deploy.prototxt", "weights.caffemodel", phase="TEST")
    print(network)
    network.layer("conv1_1").params.kernel      # (3, 3)
    network.layer("conv1_1").blobs[0]           # float32, (out, in, height, width)
"""

from prototxt_import.errors import CaffeFormatError
from prototxt_import.filler import Filler
from prototxt_import.layer import Layer, ParamSpec
from prototxt_import.load_network import load_network
from prototxt_import.network import Input, Network
from prototxt_import.params import (
    PARAMS_BY_TYPE,
    AccuracyParams,
    BatchNormParams,
    BiasParams,
    ConcatParams,
    ConvolutionParams,
    CropParams,
    DataParams,
    DropoutParams,
    DummyDataParams,
    EltwiseParams,
    FlattenParams,
    GenericParams,
    HDF5DataParams,
    HingeLossParams,
    ImageDataParams,
    InnerProductParams,
    InputParams,
    LayerParams,
    LossParams,
    LRNParams,
    MemoryDataParams,
    NoParams,
    NormalizeParams,
    PoolingParams,
    PythonParams,
    RandBIParams,
    ReLUParams,
    ReshapeParams,
    ScaleParams,
    SigmoidCrossEntropyLossParams,
    SigmoidParams,
    SliceParams,
    SoftmaxParams,
    SoftmaxWithLossParams,
    TanHParams,
    WindowDataParams,
)
from prototxt_import.save_caffemodel import save_caffemodel
from prototxt_import.save_prototxt import save_prototxt
from prototxt_import.solver import Solver, load_solver
from prototxt_import.state_rule import StateRule

__all__ = [
    "PARAMS_BY_TYPE", "AccuracyParams", "BatchNormParams", "BiasParams", "CaffeFormatError",
    "ConcatParams", "ConvolutionParams", "CropParams", "DataParams", "DropoutParams",
    "DummyDataParams", "EltwiseParams", "Filler", "FlattenParams", "GenericParams",
    "HDF5DataParams", "HingeLossParams", "ImageDataParams", "InnerProductParams", "Input",
    "InputParams", "LRNParams", "Layer", "LayerParams", "LossParams", "MemoryDataParams",
    "Network", "NoParams", "NormalizeParams", "ParamSpec", "PoolingParams", "PythonParams",
    "RandBIParams", "ReLUParams", "ReshapeParams", "ScaleParams",
    "SigmoidCrossEntropyLossParams", "SigmoidParams", "SliceParams", "SoftmaxParams",
    "SoftmaxWithLossParams", "Solver", "StateRule", "TanHParams", "WindowDataParams",
    "load_network", "load_solver", "save_caffemodel", "save_prototxt",
]  # fmt: skip
