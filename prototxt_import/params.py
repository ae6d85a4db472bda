"""Which class holds the settings of which layer type."""

from __future__ import annotations

from prototxt_import.params_base import GenericParams, LayerParams, NoParams
from prototxt_import.params_data import (
    DataParams,
    DummyDataParams,
    HDF5DataParams,
    ImageDataParams,
    InputParams,
    MemoryDataParams,
    PythonParams,
    WindowDataParams,
)
from prototxt_import.params_linear import (
    BatchNormParams,
    BiasParams,
    ConvolutionParams,
    InnerProductParams,
    NormalizeParams,
    PoolingParams,
    ScaleParams,
)
from prototxt_import.params_loss import (
    AccuracyParams,
    HingeLossParams,
    LossParams,
    SigmoidCrossEntropyLossParams,
    SoftmaxWithLossParams,
)
from prototxt_import.params_shape import (
    ConcatParams,
    CropParams,
    DropoutParams,
    EltwiseParams,
    FlattenParams,
    LRNParams,
    RandBIParams,
    ReLUParams,
    ReshapeParams,
    SigmoidParams,
    SliceParams,
    SoftmaxParams,
    TanHParams,
)

PARAMS_BY_TYPE: dict[str, type[LayerParams]] = {
    "Input": InputParams,
    "Data": DataParams,
    "ImageData": ImageDataParams,
    "HDF5Data": HDF5DataParams,
    "MemoryData": MemoryDataParams,
    "WindowData": WindowDataParams,
    "DummyData": DummyDataParams,
    "Python": PythonParams,
    "Convolution": ConvolutionParams,
    "Deconvolution": ConvolutionParams,
    "InnerProduct": InnerProductParams,
    "Pooling": PoolingParams,
    "BatchNorm": BatchNormParams,
    "Scale": ScaleParams,
    "Bias": BiasParams,
    "Normalize": NormalizeParams,
    "ReLU": ReLUParams,
    "Sigmoid": SigmoidParams,
    "TanH": TanHParams,
    "Dropout": DropoutParams,
    "Softmax": SoftmaxParams,
    "LRN": LRNParams,
    "Concat": ConcatParams,
    "Slice": SliceParams,
    "Split": NoParams,
    "Silence": NoParams,
    "Eltwise": EltwiseParams,
    "Flatten": FlattenParams,
    "Reshape": ReshapeParams,
    "Crop": CropParams,
    "RandBI": RandBIParams,
    "RandComp": RandBIParams,
    "SoftmaxWithLoss": SoftmaxWithLossParams,
    "SigmoidCrossEntropyLoss": SigmoidCrossEntropyLossParams,
    "EuclideanLoss": LossParams,
    "HingeLoss": HingeLossParams,
    "MultinomialLogisticLoss": LossParams,
    "Accuracy": AccuracyParams,
}


def params_class(layer_type: str) -> type[LayerParams]:
    """Return the class of a type's settings, GenericParams for types without one."""
    return PARAMS_BY_TYPE.get(layer_type, GenericParams)
