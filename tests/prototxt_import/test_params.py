import dataclasses

import pytest

from prototxt_import import (
    PARAMS_BY_TYPE,
    CaffeFormatError,
    Filler,
    Layer,
    Network,
    NormalizeParams,
    RandBIParams,
    load_network,
    save_prototxt,
)
from prototxt_import.layer import expected_blobs

# type, bottoms, settings, expected attributes
CASES = [
    (
        "Convolution", 1,
        "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 5 stride: 2 stride: 1 pad_w: 2 "
        "group: 3 dilation: 2 dilation: 3 bias_term: false engine: CAFFE }",
        {"num_output": 6, "kernel": (3, 5), "stride": (2, 1), "pad": (0, 2), "group": 3,
         "dilation": (2, 3), "bias_term": False, "engine": "CAFFE", "weight_filler": Filler()},
    ),
    (
        "Deconvolution", 1,
        'convolution_param { num_output: 2 kernel_size: 4 stride: 2 pad: 1 '
        'weight_filler { type: "bilinear" } }',
        {"kernel": (4, 4), "stride": (2, 2), "pad": (1, 1), "dilation": (1, 1), "group": 1,
         "bias_term": True, "weight_filler": Filler("bilinear")},
    ),
    (
        "InnerProduct", 1,
        "inner_product_param { num_output: 9 axis: 2 transpose: true weight_filler "
        '{ type: "msra" variance_norm: AVERAGE } bias_filler { value: 0.1 } }',
        {"num_output": 9, "axis": 2, "transpose": True, "bias_filler": Filler(value=0.1),
         "weight_filler": Filler("msra", variance_norm="AVERAGE")},
    ),
    ("Pooling", 1, "pooling_param { kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR }",
     {"pool": "MAX", "kernel": (3, 3), "stride": (2, 2), "pad": (1, 1), "ceil_mode": False}),
    ("Pooling", 1, "pooling_param { pool: AVE global_pooling: true }",
     {"pool": "AVE", "kernel": None, "global_pooling": True, "ceil_mode": True}),
    ("Pooling", 1, "pooling_param { kernel_h: 2 kernel_w: 4 stride_h: 1 stride_w: 3 }",
     {"kernel": (2, 4), "stride": (1, 3), "pad": (0, 0)}),
    ("ReLU", 1, "relu_param { negative_slope: 0.1 }", {"negative_slope": 0.1}),
    ("Sigmoid", 1, "", {"engine": "DEFAULT"}),
    ("TanH", 1, "tanh_param { engine: CUDNN }", {"engine": "CUDNN"}),
    ("Dropout", 1, "dropout_param { dropout_ratio: 0.3 }", {"dropout_ratio": 0.3}),
    ("BatchNorm", 1, "", {"eps": 1e-5, "moving_average_fraction": 0.999, "use_global_stats": None}),
    ("BatchNorm", 1, "batch_norm_param { use_global_stats: false eps: 0.001 }",
     {"eps": 0.001, "use_global_stats": False}),
    ("Scale", 1, "scale_param { bias_term: true }",
     {"bias_term": True, "filler": Filler(value=1.0), "bias_filler": Filler()}),
    ("Scale", 1, 'scale_param { filler { value: 0 } axis: -1 }', {"filler": Filler(), "axis": -1}),
    ("Bias", 2, "bias_param { axis: 0 num_axes: 2 }", {"axis": 0, "num_axes": 2}),
    ("Concat", 2, "", {"axis": 1}),
    ("Concat", 2, "concat_param { concat_dim: 0 }", {"axis": 0}),
    ("Eltwise", 2, "eltwise_param { coeff: 1 coeff: -0.5 }",
     {"operation": "SUM", "coeff": (1.0, -0.5)}),
    ("Eltwise", 2, "eltwise_param { operation: MAX }", {"operation": "MAX", "coeff": ()}),
    ("Slice", 1, "slice_param { slice_dim: 2 slice_point: 1 slice_point: 4 }",
     {"axis": 2, "slice_point": (1, 4)}),
    ("Split", 1, "", {}),
    ("Flatten", 1, "flatten_param { axis: 2 end_axis: 3 }", {"axis": 2, "end_axis": 3}),
    ("Reshape", 1, "reshape_param { shape { dim: 0 dim: -1 } axis: 1 }",
     {"shape": (0, -1), "axis": 1, "num_axes": -1}),
    ("Crop", 2, "crop_param { axis: 1 offset: 2 offset: 3 }", {"axis": 1, "offset": (2, 3)}),
    ("LRN", 1, "lrn_param { alpha: 0.0001 norm_region: WITHIN_CHANNEL }",
     {"local_size": 5, "alpha": 0.0001, "beta": 0.75, "norm_region": "WITHIN_CHANNEL", "k": 1.0}),
    ("Softmax", 1, "softmax_param { axis: -1 }", {"axis": -1}),
    ("RandBI", 3, "rand_comp_param { pad: true compression_rate: 1 compression_rate: 16 }",
     {"pad": True, "rates": (1, 16)}),
    ("RandComp", 2, "rand_comp_param { compression_rate: 8 }", {"pad": False, "rates": (8,)}),
    ("Normalize", 1, "",
     {"across_spatial": True, "channel_shared": True, "fix_scale": True, "eps": 1e-10,
      "scale_filler": Filler(value=1.0)}),
    ("Normalize", 1, "norm_param { channel_shared: false scale_filler { value: 20 } }",
     {"channel_shared": False, "scale_filler": Filler(value=20.0)}),
    ("SoftmaxWithLoss", 2, "", {"normalization": "VALID", "ignore_label": None, "axis": 1}),
    ("SoftmaxWithLoss", 2, "loss_param { ignore_label: 255 normalize: false }",
     {"normalization": "BATCH_SIZE", "ignore_label": 255}),
    ("SoftmaxWithLoss", 2, "loss_param { normalization: FULL normalize: false }",
     {"normalization": "FULL"}),
    ("SigmoidCrossEntropyLoss", 2, "", {"normalization": "BATCH_SIZE"}),
    ("SigmoidCrossEntropyLoss", 2, "loss_param { normalize: true }", {"normalization": "VALID"}),
    ("EuclideanLoss", 2, "", {"normalization": "VALID"}),
    ("HingeLoss", 2, "hinge_loss_param { norm: L2 }", {"norm": "L2"}),
    ("Accuracy", 2, "accuracy_param { top_k: 5 ignore_label: 255 }",
     {"top_k": 5, "axis": 1, "ignore_label": 255}),
    ("Data", 0, 'data_param { source: "db" batch_size: 4 backend: LMDB } '
     "transform_param { mean_value: 104 mean_value: 117 mirror: true scale: 0.5 }",
     {"source": "db", "batch_size": 4, "backend": "LMDB", "mean_value": (104.0, 117.0),
      "mirror": True, "scale": 0.5}),
    ("HDF5Data", 0, 'hdf5_data_param { source: "l" batch_size: 2 shuffle: true }',
     {"source": "l", "batch_size": 2, "shuffle": True}),
    ("MemoryData", 0, "memory_data_param { batch_size: 1 channels: 3 height: 4 width: 5 }",
     {"batch_size": 1, "channels": 3, "height": 4, "width": 5}),
    ("DummyData", 0, "dummy_data_param { num: 2 num: 3 channels: 4 height: 5 width: 6 "
     'data_filler { type: "uniform" max: 2 } }',
     {"shape": ((2, 4, 5, 6), (3, 4, 5, 6)), "data_filler": (Filler("uniform", max=2.0),)}),
    ("Python", 0, "python_param { module: 'm' layer: 'L' param_str: '{1: 2}' }",
     {"module": "m", "layer": "L", "param_str": "{1: 2}"}),
    ("LSTM", 2, "recurrent_param { num_output: 3 }",
     {"raw": {"recurrent_param": {"num_output": 3}}}),
    ("Pooling", 1, "pooling_param { kernel_size: 3 ceil_mode: false }", {"ceil_mode": False}),
    ("Pooling", 1, "pooling_param { kernel_size: 3 ceil_mode: true }", {"ceil_mode": True}),
    ("PReLU", 1, "", {"channel_shared": False, "filler": Filler(value=0.25)}),
    ("PReLU", 1, "prelu_param { channel_shared: true filler { value: 0 } }",
     {"channel_shared": True, "filler": Filler()}),
    ("ELU", 1, "elu_param { alpha: 0.5 }", {"alpha": 0.5}),
    ("Power", 1, "power_param { power: 2 }", {"power": 2.0, "scale": 1.0, "shift": 0.0}),
    ("Exp", 1, "exp_param { base: 2 }", {"base": 2.0, "scale": 1.0, "shift": 0.0}),
    ("Log", 1, "log_param { shift: 1 }", {"base": -1.0, "scale": 1.0, "shift": 1.0}),
    ("AbsVal", 1, "", {}),
    ("BNLL", 1, "", {}),
    ("Threshold", 1, "threshold_param { threshold: 0.5 }", {"threshold": 0.5}),
    ("MVN", 1, "mvn_param { across_channels: true }",
     {"normalize_variance": True, "across_channels": True, "eps": 1e-9}),
    ("ArgMax", 1, "", {"out_max_val": False, "top_k": 1, "axis": None}),
    ("ArgMax", 1, "argmax_param { axis: 0 top_k: 2 }", {"top_k": 2, "axis": 0}),
    ("Reduction", 1, "reduction_param { operation: SUMSQ axis: -1 coeff: 2 }",
     {"operation": "SUMSQ", "axis": -1, "coeff": 2.0}),
    ("Tile", 1, "tile_param { tiles: 3 }", {"tiles": 3, "axis": 1}),
    ("Embed", 1, "embed_param { num_output: 3 input_dim: 4 bias_term: false }",
     {"num_output": 3, "input_dim": 4, "bias_term": False}),
    ("SPP", 1, "spp_param { pyramid_height: 3 pool: AVE }", {"pyramid_height": 3, "pool": "AVE"}),
    ("Im2col", 1, "convolution_param { kernel_size: 3 dilation: 2 pad_h: 1 pad_w: 0 }",
     {"kernel": (3, 3), "dilation": (2, 2), "pad": (1, 0), "stride": (1, 1)}),
    ("Filter", 2, "", {}),
    ("BatchReindex", 2, "", {}),
    ("Parameter", 0, "parameter_param { shape { dim: 2 dim: 3 } }", {"shape": (2, 3)}),
    ("BN", 1, "bn_param { bn_mode: INFERENCE scale_filler { value: 1 } }",
     {"fork": "SegNet", "bn_mode": "INFERENCE", "scale_filler": Filler(value=1.0)}),
    ("BN", 1, "bn_param { frozen: true momentum: 0.95 }",
     {"fork": "PSPNet", "frozen": True, "momentum": 0.95, "eps": None}),
    ("BN", 1, "", {"fork": None}),
    ("Interp", 1, "interp_param { height: 60 width: 40 }", {"height": 60, "width": 40}),
    ("Interp", 1, "interp_param { zoom_factor: 8 pad_beg: -1 }",
     {"zoom_factor": 8, "shrink_factor": None, "pad_beg": -1}),
    ("Upsample", 2, "upsample_param { scale: 2 pad_out_h: true }",
     {"scale": 2, "pad_out_h": True, "upsample_h": None}),
]  # fmt: skip


def layer_text(kind: str, bottoms: int, settings: str) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "x" type: "{kind}" {names} top: "x" {settings} }}\n'


@pytest.mark.parametrize(("kind", "bottoms", "settings", "expected"), CASES)
def test_settings_read_written_and_read_again(write, tmp_path, kind, bottoms, settings, expected):
    network = load_network(write(layer_text(kind, bottoms, settings)))
    params = network.layer("x").params
    for name, value in expected.items():
        assert getattr(params, name) == value, name
    save_prototxt(tmp_path / "again.prototxt", network)
    assert load_network(tmp_path / "again.prototxt").layer("x").params == params


def test_every_type_has_a_case():
    tested = {case[0] for case in CASES}
    rest = {"Input", "ImageData", "WindowData", "Silence", "MultinomialLogisticLoss"}
    assert tested | rest >= set(PARAMS_BY_TYPE)


@pytest.mark.parametrize(
    ("kind", "bottoms", "settings", "text"),
    [
        ("Convolution", 1, "convolution_param { kernel_size: 3 }", "num_output must be given"),
        ("Convolution", 1, "convolution_param { num_output: 3 }", "kernel_size .* must be given"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_h: 3 }", "both be given"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_h: 3 kernel_w: 3 "
         "kernel_size: 3 }", "not both"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_size: [1, 2, 3] }", "3 axes"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_size: 0 }", "at least 1"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_size: 1 stride: 0 }",
         "stride must be at least 1"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_size: 1 group: 2 }",
         "multiple of group"),
        ("Convolution", 1, "convolution_param { num_output: 3 kernel_size: 1 weight_filler "
         '{ type: "gauss" } }', "constant, uniform, gaussian.*got 'gauss'"),
        ("InnerProduct", 1, "", "num_output"),
        ("Pooling", 1, "", "kernel_size"),
        ("Pooling", 1, "pooling_param { global_pooling: true kernel_size: 2 }", "global_pooling"),
        ("Pooling", 1, "pooling_param { kernel_size: 2 pad: 2 }", "less than kernel"),
        ("Concat", 2, "concat_param { axis: 1 concat_dim: 1 }", "not both"),
        ("Eltwise", 2, "eltwise_param { coeff: 1 }", "once for each bottom"),
        ("LRN", 1, "lrn_param { local_size: 4 }", "odd"),
        ("RandBI", 3, "rand_comp_param { compression_rate: 1 }", "got 1 for 2 maps"),
        ("Pooling", 1, "pooling_param { kernel_size: 2 ceil_mode: true round_mode: FLOOR }",
         "either round_mode or ceil_mode"),
        ("Exp", 1, "exp_param { base: 0 }", "base must be positive"),
        ("Log", 1, "log_param { base: 1 }", "base must not be 1"),
        ("ArgMax", 1, "argmax_param { top_k: 0 }", "top_k must be given and at least 1"),
        ("Tile", 1, "", "tiles must be given"),
        ("SPP", 1, "", "pyramid_height must be given"),
        ("Embed", 1, "embed_param { num_output: 2 }", "input_dim must be given"),
        ("Interp", 1, "", "height and width, or zoom_factor"),
        ("Interp", 1, "interp_param { height: 3 }", "height and width, or zoom_factor"),
        ("Interp", 1, "interp_param { height: 3 width: 3 zoom_factor: 2 }", "only one of these"),
        ("Interp", 2, "interp_param { zoom_factor: 2 }", "only one of these"),
        ("Interp", 1, "interp_param { zoom_factor: 2 pad_beg: 1 }", "must be 0 or negative"),
        ("Upsample", 2, "upsample_param { scale: 1 }", "scale must be at least 2"),
        ("Upsample", 2, "upsample_param { scale: 3 pad_out_h: true }", "needs a scale of 2"),
        ("Upsample", 2, "upsample_param { upsample_h: 7 }", "must both be given"),
        ("BN", 1, "bn_param { bn_mode: LEARN frozen: true }", "bn_mode is SegNet's, frozen is not"),
        ("RandBI", 2, "rand_comp_param { compression_rate: 0 }", "at least 1"),
    ],
)  # fmt: skip
def test_settings_that_caffe_refuses(write, kind, bottoms, settings, text):
    with pytest.raises(CaffeFormatError, match=text) as caught:
        load_network(write("\n\n" + layer_text(kind, bottoms, settings)))
    assert caught.value.line == 3
    assert f"'x' ({kind})" in str(caught.value)


def test_layers_made_in_python_are_written(tmp_path):
    layers = (
        Layer("taps", "RandBI", ("a", "b", "pixels"), ("fc5",), RandBIParams(True, (1, 224))),
        Layer("norm", "Normalize", ("fc5",), ("norm",), NormalizeParams(across_spatial=False)),
    )
    save_prototxt(tmp_path / "made.prototxt", Network("made", layers))
    text = (tmp_path / "made.prototxt").read_text()
    assert "rand_comp_param" in text
    assert "norm_param" in text
    again = load_network(tmp_path / "made.prototxt")
    assert [layer.params for layer in again.layers] == [layer.params for layer in layers]


def test_everything_is_immutable(tiny_prototxt):
    layer = load_network(tiny_prototxt).layer("conv")
    for target, name in ((layer, "name"), (layer.params, "pad"), (layer.param_specs[0], "lr_mult")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(target, name, 1)


def test_settings_are_had_as_their_own_class_only():
    layer = Layer("norm", "Normalize", params=NormalizeParams(eps=0.5))
    assert layer.params_as(NormalizeParams).eps == 0.5
    with pytest.raises(TypeError, match=r"'norm' .* NormalizeParams, but .* RandBIParams"):
        layer.params_as(RandBIParams)


def test_layers_with_settings_of_another_type_are_not_taken_for_layers_without_weights():
    with pytest.raises(TypeError, match="has NormalizeParams, but such a layer needs Conv"):
        expected_blobs(Layer("conv", "Convolution", params=NormalizeParams()))
