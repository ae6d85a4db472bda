"""Caffe's messages as protobuf classes, built at run time in a descriptor pool of their own.

Generated `_pb2` modules are bound to the protobuf release that generated them, and a second
Caffe schema in the default pool would clash. Neither happens here, so protobuf 4 to 7 all work.

The messages stand in plain tables, one entry per message: `number name type[=default]`, comma
separated. Types: `s` string, `f` float, `d` double, `i` int32, `l` int64, `u` uint32, `b` bool,
`@Enum`, or a message name; `*` marks a repeated field and `+` a repeated packed one. The numbers
are those of Caffe and of PixelNet's additions to it (fields 147 to 150 of a layer), which is what
makes files exchangeable.

Fields from 10001 on are settings of other forks (SegNet, PSPNet, DeepLab, DenseNet's pooling).
Those forks gave them numbers that clash with Caffe's and with each other's, so they are read by
name, from text, and their numbers here are this project's own.
"""

from __future__ import annotations

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

ENGINE = "DEFAULT=0 CAFFE=1 CUDNN=2"
POOL_METHOD = "MAX=0 AVE=1 STOCHASTIC=2"
SHARE_MODE = "STRICT=0 PERMISSIVE=1"

ENUMS = {
    "Phase": "TRAIN=0 TEST=1",
    "FillerParameter.VarianceNorm": "FAN_IN=0 FAN_OUT=1 AVERAGE=2",
    "ParamSpec.DimCheckMode": SHARE_MODE,
    "SolverParameter.SnapshotFormat": "HDF5=0 BINARYPROTO=1",
    "SolverParameter.SolverMode": "CPU=0 GPU=1",
    "SolverParameter.SolverType": "SGD=0 NESTEROV=1 ADAGRAD=2 RMSPROP=3 ADADELTA=4 ADAM=5",
    "LossParameter.NormalizationMode": "FULL=0 VALID=1 BATCH_SIZE=2 NONE=3",
    "BNParameter.BNMode": "LEARN=0 INFERENCE=1",
    "ConvolutionParameter.Engine": ENGINE,
    "DataParameter.DB": "LEVELDB=0 LMDB=1",
    "EltwiseParameter.EltwiseOp": "PROD=0 SUM=1 MAX=2",
    "HingeLossParameter.Norm": "L1=1 L2=2",
    "LRNParameter.NormRegion": "ACROSS_CHANNELS=0 WITHIN_CHANNEL=1",
    "LRNParameter.Engine": ENGINE,
    "PoolingParameter.PoolMethod": POOL_METHOD,
    "PoolingParameter.Engine": ENGINE,
    "PoolingParameter.RoundMode": "CEIL=0 FLOOR=1",
    "ReductionParameter.ReductionOp": "SUM=1 ASUM=2 SUMSQ=3 MEAN=4",
    "ReLUParameter.Engine": ENGINE,
    "SigmoidParameter.Engine": ENGINE,
    "SoftmaxParameter.Engine": ENGINE,
    "SPPParameter.PoolMethod": POOL_METHOD,
    "SPPParameter.Engine": ENGINE,
    "TanHParameter.Engine": ENGINE,
    "V0LayerParameter.PoolMethod": POOL_METHOD,
    "V1LayerParameter.DimCheckMode": SHARE_MODE,
    "V1LayerParameter.LayerType": (
        "NONE=0 ACCURACY=1 BNLL=2 CONCAT=3 CONVOLUTION=4 DATA=5 DROPOUT=6 EUCLIDEAN_LOSS=7 "
        "FLATTEN=8 HDF5_DATA=9 HDF5_OUTPUT=10 IM2COL=11 IMAGE_DATA=12 INFOGAIN_LOSS=13 "
        "INNER_PRODUCT=14 LRN=15 MULTINOMIAL_LOGISTIC_LOSS=16 POOLING=17 RELU=18 SIGMOID=19 "
        "SOFTMAX=20 SOFTMAX_LOSS=21 SPLIT=22 TANH=23 WINDOW_DATA=24 ELTWISE=25 POWER=26 "
        "SIGMOID_CROSS_ENTROPY_LOSS=27 HINGE_LOSS=28 MEMORY_DATA=29 ARGMAX=30 THRESHOLD=31 "
        "DUMMY_DATA=32 SLICE=33 MVN=34 ABSVAL=35 SILENCE=36 CONTRASTIVE_LOSS=37 EXP=38 "
        "DECONVOLUTION=39 RAND_CAT=40 RAND_CAT_CONV=41 NORMALIZE=42"
    ),
}

_NET = {
    "BlobShape": "1 dim l+",
    "BlobProto": (
        "7 shape BlobShape, 5 data f+, 6 diff f+, 8 double_data d+, 9 double_diff d+, "
        "1 num i=0, 2 channels i=0, 3 height i=0, 4 width i=0"
    ),
    "FillerParameter": (
        "1 type s=constant, 2 value f=0, 3 min f=0, 4 max f=1, 5 mean f=0, 6 std f=1, "
        "7 sparse i=-1, 8 variance_norm @FillerParameter.VarianceNorm=FAN_IN"
    ),
    "NetState": "1 phase @Phase=TEST, 2 level i=0, 3 stage s*",
    "NetStateRule": "1 phase @Phase, 2 min_level i, 3 max_level i, 4 stage s*, 5 not_stage s*",
    "ParamSpec": (
        "1 name s, 2 share_mode @ParamSpec.DimCheckMode, 3 lr_mult f=1, 4 decay_mult f=1"
    ),
    "NetParameter": (
        "1 name s, 3 input s*, 8 input_shape BlobShape*, 4 input_dim i*, 5 force_backward b=false, "
        "6 state NetState, 7 debug_info b=false, 100 layer LayerParameter*, "
        "2 layers V1LayerParameter*"
    ),
    "SolverParameter": (
        "24 net s, 25 net_param NetParameter, 1 train_net s, 2 test_net s*, "
        "21 train_net_param NetParameter, 22 test_net_param NetParameter*, "
        "26 train_state NetState, 27 test_state NetState*, 3 test_iter i*, 4 test_interval i=0, "
        "19 test_compute_loss b=false, 32 test_initialization b=true, 5 base_lr f, 6 display i, "
        "33 average_loss i=1, 7 max_iter i, 36 iter_size i=1, 8 lr_policy s, 9 gamma f, "
        "10 power f, 11 momentum f, 12 weight_decay f, 29 regularization_type s=L2, 13 stepsize i, "
        "34 stepvalue i*, 35 clip_gradients f=-1, 14 snapshot i=0, 15 snapshot_prefix s, "
        "16 snapshot_diff b=false, "
        "37 snapshot_format @SolverParameter.SnapshotFormat=BINARYPROTO, "
        "17 solver_mode @SolverParameter.SolverMode=GPU, 18 device_id i=0, 20 random_seed l=-1, "
        "40 type s=SGD, 31 delta f=1e-8, 39 momentum2 f=0.999, 38 rms_decay f=0.99, "
        "23 debug_info b=false, 28 snapshot_after_train b=true, "
        "30 solver_type @SolverParameter.SolverType=SGD, 41 layer_wise_reduce b=true, 42 weights s*"
    ),
    "SolverState": (
        "1 iter i, 2 learned_net s, 3 history BlobProto*, 4 current_step i=0"
    ),
    "LayerParameter": (
        "1 name s, 2 type s, 3 bottom s*, 4 top s*, 10 phase @Phase, 5 loss_weight f*, "
        "6 param ParamSpec*, 7 blobs BlobProto*, 11 propagate_down b*, 8 include NetStateRule*, "
        "9 exclude NetStateRule*, 100 transform_param TransformationParameter, "
        "101 loss_param LossParameter, 102 accuracy_param AccuracyParameter, "
        "103 argmax_param ArgMaxParameter, 139 batch_norm_param BatchNormParameter, "
        "141 bias_param BiasParameter, 104 concat_param ConcatParameter, "
        "105 contrastive_loss_param ContrastiveLossParameter, "
        "106 convolution_param ConvolutionParameter, 144 crop_param CropParameter, "
        "107 data_param DataParameter, 108 dropout_param DropoutParameter, "
        "109 dummy_data_param DummyDataParameter, 110 eltwise_param EltwiseParameter, "
        "140 elu_param ELUParameter, 137 embed_param EmbedParameter, 111 exp_param ExpParameter, "
        "135 flatten_param FlattenParameter, 112 hdf5_data_param HDF5DataParameter, "
        "113 hdf5_output_param HDF5OutputParameter, 114 hinge_loss_param HingeLossParameter, "
        "115 image_data_param ImageDataParameter, 116 infogain_loss_param InfogainLossParameter, "
        "117 inner_product_param InnerProductParameter, 143 input_param InputParameter, "
        "134 log_param LogParameter, 118 lrn_param LRNParameter, "
        "119 memory_data_param MemoryDataParameter, 120 mvn_param MVNParameter, "
        "149 norm_param NormalizeParameter, 145 parameter_param ParameterParameter, "
        "121 pooling_param PoolingParameter, 122 power_param PowerParameter, "
        "131 prelu_param PReLUParameter, 130 python_param PythonParameter, "
        "147 rand_cat_conv_param RandCatConvParameter, 148 rand_cat_param RandCatParameter, "
        "150 rand_comp_param RandCompParameter, 146 recurrent_param RecurrentParameter, "
        "136 reduction_param ReductionParameter, 123 relu_param ReLUParameter, "
        "133 reshape_param ReshapeParameter, 142 scale_param ScaleParameter, "
        "124 sigmoid_param SigmoidParameter, 125 softmax_param SoftmaxParameter, "
        "132 spp_param SPPParameter, 126 slice_param SliceParameter, 127 tanh_param TanHParameter, "
        "128 threshold_param ThresholdParameter, 138 tile_param TileParameter, "
        "129 window_data_param WindowDataParameter, "
        "10001 bn_param BNParameter, 10002 interp_param InterpParameter, "
        "10003 upsample_param UpsampleParameter"
    ),
}

_LAYERS = {
    "TransformationParameter": (
        "1 scale f=1, 2 mirror b=false, 3 crop_size u=0, 4 mean_file s, 5 mean_value f*, "
        "6 force_color b=false, 7 force_gray b=false"
    ),
    "LossParameter": (
        "1 ignore_label i, 3 normalization @LossParameter.NormalizationMode=VALID, 2 normalize b"
    ),
    "AccuracyParameter": "1 top_k u=1, 2 axis i=1, 3 ignore_label i",
    "ArgMaxParameter": "1 out_max_val b=false, 2 top_k u=1, 3 axis i",
    "ConcatParameter": "2 axis i=1, 1 concat_dim u=1",
    "BatchNormParameter": "1 use_global_stats b, 2 moving_average_fraction f=0.999, 3 eps f=1e-5",
    "BiasParameter": "1 axis i=1, 2 num_axes i=1, 3 filler FillerParameter",
    "ContrastiveLossParameter": "1 margin f=1, 2 legacy_version b=false",
    "ConvolutionParameter": (
        "1 num_output u, 2 bias_term b=true, 3 pad u*, 4 kernel_size u*, 6 stride u*, "
        "18 dilation u*, 9 pad_h u=0, 10 pad_w u=0, 11 kernel_h u, 12 kernel_w u, 13 stride_h u, "
        "14 stride_w u, 5 group u=1, 7 weight_filler FillerParameter, "
        "8 bias_filler FillerParameter, 15 engine @ConvolutionParameter.Engine=DEFAULT, "
        "16 axis i=1, 17 force_nd_im2col b=false"
    ),
    "CropParameter": "1 axis i=2, 2 offset u*",
    "DataParameter": (
        "1 source s, 4 batch_size u, 7 rand_skip u=0, 8 backend @DataParameter.DB=LEVELDB, "
        "2 scale f=1, 3 mean_file s, 5 crop_size u=0, 6 mirror b=false, "
        "9 force_encoded_color b=false, 10 prefetch u=4"
    ),
    "DropoutParameter": "1 dropout_ratio f=0.5",
    "DummyDataParameter": (
        "1 data_filler FillerParameter*, 6 shape BlobShape*, 2 num u*, 3 channels u*, "
        "4 height u*, 5 width u*"
    ),
    "EltwiseParameter": (
        "1 operation @EltwiseParameter.EltwiseOp=SUM, 2 coeff f*, 3 stable_prod_grad b=true"
    ),
    "ELUParameter": "1 alpha f=1",
    "EmbedParameter": (
        "1 num_output u, 2 input_dim u, 3 bias_term b=true, 4 weight_filler FillerParameter, "
        "5 bias_filler FillerParameter"
    ),
    "ExpParameter": "1 base f=-1, 2 scale f=1, 3 shift f=0",
    "FlattenParameter": "1 axis i=1, 2 end_axis i=-1",
    "HDF5DataParameter": "1 source s, 2 batch_size u, 3 shuffle b=false",
    "HDF5OutputParameter": "1 file_name s",
    "HingeLossParameter": "1 norm @HingeLossParameter.Norm=L1",
    "ImageDataParameter": (
        "1 source s, 4 batch_size u=1, 7 rand_skip u=0, 8 shuffle b=false, 9 new_height u=0, "
        "10 new_width u=0, 11 is_color b=true, 2 scale f=1, 3 mean_file s, 5 crop_size u=0, "
        "6 mirror b=false, 12 root_folder s"
    ),
    "InfogainLossParameter": "1 source s, 2 axis i=1",
    "InnerProductParameter": (
        "1 num_output u, 2 bias_term b=true, 3 weight_filler FillerParameter, "
        "4 bias_filler FillerParameter, 5 axis i=1, 6 transpose b=false"
    ),
    "InputParameter": "1 shape BlobShape*",
    "LogParameter": "1 base f=-1, 2 scale f=1, 3 shift f=0",
    "LRNParameter": (
        "1 local_size u=5, 2 alpha f=1, 3 beta f=0.75, "
        "4 norm_region @LRNParameter.NormRegion=ACROSS_CHANNELS, 5 k f=1, "
        "6 engine @LRNParameter.Engine=DEFAULT"
    ),
    "MemoryDataParameter": "1 batch_size u, 2 channels u, 3 height u, 4 width u",
    "MVNParameter": "1 normalize_variance b=true, 2 across_channels b=false, 3 eps f=1e-9",
    "NormalizeParameter": (
        "1 across_spatial b=true, 2 scale_filler FillerParameter, 3 channel_shared b=true, "
        "4 fix_scale b=true, 5 eps f=1e-10"
    ),
    "ParameterParameter": "1 shape BlobShape",
    "PoolingParameter": (
        "1 pool @PoolingParameter.PoolMethod=MAX, 4 pad u=0, 9 pad_h u=0, 10 pad_w u=0, "
        "2 kernel_size u, 5 kernel_h u, 6 kernel_w u, 3 stride u=1, 7 stride_h u, 8 stride_w u, "
        "11 engine @PoolingParameter.Engine=DEFAULT, 12 global_pooling b=false, "
        "13 round_mode @PoolingParameter.RoundMode=CEIL, 10001 ceil_mode b"
    ),
    "PowerParameter": "1 power f=1, 2 scale f=1, 3 shift f=0",
    "PReLUParameter": "1 filler FillerParameter, 2 channel_shared b=false",
    "PythonParameter": "1 module s, 2 layer s, 3 param_str s, 4 share_in_parallel b=false",
    "RandCatParameter": "1 rand_selection b=true, 2 num_output u=1000",
    "RandCatConvParameter": (
        "1 rand_selection b=true, 2 num_output u=1000, 3 pooling_factor i*, 4 pad_factor u=0"
    ),
    "RandCompParameter": "1 compression_rate i*, 2 pad b=false",
    "RecurrentParameter": (
        "1 num_output u=0, 2 weight_filler FillerParameter, 3 bias_filler FillerParameter, "
        "4 debug_info b=false, 5 expose_hidden b=false"
    ),
    "ReductionParameter": (
        "1 operation @ReductionParameter.ReductionOp=SUM, 2 axis i=0, 3 coeff f=1"
    ),
    "ReLUParameter": "1 negative_slope f=0, 2 engine @ReLUParameter.Engine=DEFAULT",
    "ReshapeParameter": "1 shape BlobShape, 2 axis i=0, 3 num_axes i=-1",
    "ScaleParameter": (
        "1 axis i=1, 2 num_axes i=1, 3 filler FillerParameter, 4 bias_term b=false, "
        "5 bias_filler FillerParameter"
    ),
    "SigmoidParameter": "1 engine @SigmoidParameter.Engine=DEFAULT",
    "SliceParameter": "3 axis i=1, 2 slice_point u*, 1 slice_dim u=1",
    "SoftmaxParameter": "1 engine @SoftmaxParameter.Engine=DEFAULT, 2 axis i=1",
    "TanHParameter": "1 engine @TanHParameter.Engine=DEFAULT",
    "TileParameter": "1 axis i=1, 2 tiles i",
    "ThresholdParameter": "1 threshold f=0",
    "WindowDataParameter": (
        "1 source s, 2 scale f=1, 3 mean_file s, 4 batch_size u, 5 crop_size u=0, "
        "6 mirror b=false, 7 fg_threshold f=0.5, 8 bg_threshold f=0.5, 9 fg_fraction f=0.25, "
        "10 context_pad u=0, 11 crop_mode s=warp, 12 cache_images b=false, 13 root_folder s"
    ),
    "SPPParameter": (
        "1 pyramid_height u, 2 pool @SPPParameter.PoolMethod=MAX, "
        "6 engine @SPPParameter.Engine=DEFAULT"
    ),
}

_FORKS = {
    "BNParameter": (
        "1 scale_filler FillerParameter, 2 shift_filler FillerParameter, "
        "3 bn_mode @BNParameter.BNMode, 4 slope_filler FillerParameter, "
        "5 bias_filler FillerParameter, 6 momentum f, 7 eps f, 8 frozen b"
    ),
    "InterpParameter": (
        "1 height i, 2 width i, 3 zoom_factor i, 4 shrink_factor i, 5 pad_beg i=0, 6 pad_end i=0"
    ),
    "UpsampleParameter": (
        "1 scale u=2, 2 scale_h u, 3 scale_w u, 4 pad_out_h b=false, 5 pad_out_w b=false, "
        "6 upsample_h u, 7 upsample_w u"
    ),
}

_OLD = {
    "V1LayerParameter": (
        "2 bottom s*, 3 top s*, 4 name s, 32 include NetStateRule*, 33 exclude NetStateRule*, "
        "5 type @V1LayerParameter.LayerType, 6 blobs BlobProto*, 1001 param s*, "
        "1002 blob_share_mode @V1LayerParameter.DimCheckMode*, 7 blobs_lr f*, 8 weight_decay f*, "
        "35 loss_weight f*, 27 accuracy_param AccuracyParameter, 23 argmax_param ArgMaxParameter, "
        "9 concat_param ConcatParameter, 40 contrastive_loss_param ContrastiveLossParameter, "
        "10 convolution_param ConvolutionParameter, 11 data_param DataParameter, "
        "12 dropout_param DropoutParameter, 26 dummy_data_param DummyDataParameter, "
        "24 eltwise_param EltwiseParameter, 41 exp_param ExpParameter, "
        "13 hdf5_data_param HDF5DataParameter, 14 hdf5_output_param HDF5OutputParameter, "
        "29 hinge_loss_param HingeLossParameter, 15 image_data_param ImageDataParameter, "
        "16 infogain_loss_param InfogainLossParameter, "
        "17 inner_product_param InnerProductParameter, 18 lrn_param LRNParameter, "
        "22 memory_data_param MemoryDataParameter, 34 mvn_param MVNParameter, "
        "45 norm_param NormalizeParameter, 19 pooling_param PoolingParameter, "
        "21 power_param PowerParameter, 44 rand_cat_conv_param RandCatConvParameter, "
        "43 rand_cat_param RandCatParameter, 30 relu_param ReLUParameter, "
        "38 sigmoid_param SigmoidParameter, 39 softmax_param SoftmaxParameter, "
        "31 slice_param SliceParameter, 37 tanh_param TanHParameter, "
        "25 threshold_param ThresholdParameter, 20 window_data_param WindowDataParameter, "
        "36 transform_param TransformationParameter, 42 loss_param LossParameter, "
        "1 layer V0LayerParameter"
    ),
    "V0LayerParameter": (
        "1 name s, 2 type s, 3 num_output u, 4 biasterm b=true, 5 weight_filler FillerParameter, "
        "6 bias_filler FillerParameter, 7 pad u=0, 8 kernelsize u, 9 group u=1, 10 stride u=1, "
        "11 pool @V0LayerParameter.PoolMethod=MAX, 12 dropout_ratio f=0.5, 13 local_size u=5, "
        "14 alpha f=1, 15 beta f=0.75, 22 k f=1, 16 source s, 17 scale f=1, 18 meanfile s, "
        "19 batchsize u, 20 cropsize u=0, 21 mirror b=false, 50 blobs BlobProto*, 51 blobs_lr f*, "
        "52 weight_decay f*, 53 rand_skip u=0, 54 det_fg_threshold f=0.5, "
        "55 det_bg_threshold f=0.5, 56 det_fg_fraction f=0.25, 58 det_context_pad u=0, "
        "59 det_crop_mode s=warp, 60 new_num i=0, 61 new_channels i=0, 62 new_height i=0, "
        "63 new_width i=0, 64 shuffle_images b=false, 65 concat_dim u=1, "
        "1001 hdf5_output_param HDF5OutputParameter"
    ),
}

MESSAGES = {**_NET, **_LAYERS, **_FORKS, **_OLD}


PACKAGE = "caffe"
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "s": _Field.TYPE_STRING,
    "f": _Field.TYPE_FLOAT,
    "d": _Field.TYPE_DOUBLE,
    "i": _Field.TYPE_INT32,
    "l": _Field.TYPE_INT64,
    "u": _Field.TYPE_UINT32,
    "b": _Field.TYPE_BOOL,
}


def new_message(name: str) -> Message:
    """Return an empty message of Caffe's schema, e.g. `new_message("NetParameter")`."""
    return _message_class(name)()


@functools.cache
def _message_class(name: str) -> type[Message]:
    descriptor = _pool().FindMessageTypeByName(f"{PACKAGE}.{name}")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_pool()).GetPrototype(descriptor)  # protobuf < 4.22


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="prototxt_import/caffe.proto", package=PACKAGE, syntax="proto2"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for entry in fields.split(", "):
            _add_field(message, entry)
    messages = {message.name: message for message in file.message_type}
    for full_name, values in ENUMS.items():
        parent, _, name = full_name.rpartition(".")
        enum = (messages[parent] if parent else file).enum_type.add(name=name)
        for value in values.split():
            value_name, _, number = value.partition("=")
            enum.value.add(name=value_name, number=int(number))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(message: descriptor_pb2.DescriptorProto, entry: str) -> None:
    number, name, kind = entry.split(" ")
    kind, has_default, default = kind.partition("=")
    field = message.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind[-1] in "*+":
        field.label = _Field.LABEL_REPEATED
        field.options.packed = kind[-1] == "+"
        kind = kind[:-1]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    elif kind.startswith("@"):
        field.type = _Field.TYPE_ENUM
        field.type_name = f".{PACKAGE}.{kind[1:]}"
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
    if has_default:
        field.default_value = default
