"""Reads and writes Caffe's networks: prototxt, caffemodel (current, V1, V0, HDF5), solver, state.

Needs numpy and protobuf only (h5py for HDF5 models); no Caffe and no TensorFlow.

    network = load_network("deploy.prototxt", "weights.caffemodel", phase="TEST")
    print(network)
    network.layer("conv1_1").params.kernel      # (3, 3)
    network.layer("conv1_1").blobs[0]           # float32, (out, in, height, width)
"""

from prototxt_import.errors import CaffeFormatError
from prototxt_import.hdf5 import hdf5_layer_names, is_hdf5
from prototxt_import.hdf5_file import count_values, open_hdf5
from prototxt_import.layer import Layer, ParamSpec, StateRule
from prototxt_import.load_network import attach_weights, load_network
from prototxt_import.network import Input, Network
from prototxt_import.params import (
    PARAMS_BY_TYPE,
    AccuracyParams,
    ArgMaxParams,
    BatchNormParams,
    BiasParams,
    BNParams,
    ConcatParams,
    ConvolutionParams,
    CropParams,
    DataParams,
    DropoutParams,
    DummyDataParams,
    EltwiseParams,
    ELUParams,
    EmbedParams,
    ExpParams,
    FlattenParams,
    GenericParams,
    HDF5DataParams,
    HingeLossParams,
    Im2colParams,
    ImageDataParams,
    InnerProductParams,
    InputParams,
    InterpParams,
    LayerParams,
    LogParams,
    LossParams,
    LRNParams,
    MemoryDataParams,
    MVNParams,
    NoParams,
    NormalizeParams,
    ParameterParams,
    PoolingParams,
    PowerParams,
    PReLUParams,
    PythonParams,
    RandBIParams,
    ReductionParams,
    ReLUParams,
    ReshapeParams,
    ScaleParams,
    SigmoidCrossEntropyLossParams,
    SigmoidParams,
    SliceParams,
    SoftmaxParams,
    SoftmaxWithLossParams,
    SPPParams,
    TanHParams,
    ThresholdParams,
    TileParams,
    TransformParams,
    UpsampleParams,
    WindowDataParams,
)
from prototxt_import.params_base import Filler
from prototxt_import.save_network import save_caffemodel, save_prototxt
from prototxt_import.solver import Solver, load_solver
from prototxt_import.solverstate import SolverState, load_solverstate, save_solverstate

__all__ = [
    "PARAMS_BY_TYPE", "AccuracyParams", "ArgMaxParams", "BNParams", "BatchNormParams",
    "BiasParams", "CaffeFormatError", "ConcatParams", "ConvolutionParams", "CropParams",
    "DataParams", "DropoutParams", "DummyDataParams", "ELUParams", "EltwiseParams",
    "EmbedParams", "ExpParams", "Filler", "FlattenParams", "GenericParams", "HDF5DataParams",
    "HingeLossParams", "Im2colParams", "ImageDataParams", "InnerProductParams", "Input",
    "InputParams", "InterpParams", "LRNParams", "Layer", "LayerParams", "LogParams",
    "LossParams", "MVNParams", "MemoryDataParams", "Network", "NoParams", "NormalizeParams",
    "PReLUParams", "ParamSpec", "ParameterParams", "PoolingParams", "PowerParams",
    "PythonParams", "RandBIParams", "ReLUParams", "ReductionParams", "ReshapeParams",
    "SPPParams", "ScaleParams", "SigmoidCrossEntropyLossParams", "SigmoidParams", "SliceParams",
    "SoftmaxParams", "SoftmaxWithLossParams", "Solver", "SolverState", "StateRule",
    "TanHParams", "ThresholdParams", "TileParams", "TransformParams", "UpsampleParams",
    "WindowDataParams",
    "attach_weights", "count_values", "hdf5_layer_names", "is_hdf5", "load_network",
    "load_solver", "load_solverstate", "open_hdf5", "save_caffemodel", "save_prototxt",
    "save_solverstate",
]  # fmt: skip
