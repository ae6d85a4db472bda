"""Prototxts: of one layer each, on an input `data` of 2 x 4 x 7 x 9, and a few networks."""

from __future__ import annotations

HEAD = 'name: "net" input: "data" input_shape { dim: 2 dim: 4 dim: 7 dim: 9 }\n'


def layer(type_: str, settings: str = "", bottoms=("data",), tops=("top",), name="one") -> str:
    flow = " ".join(f'bottom: "{b}"' for b in bottoms) + " " + " ".join(f'top: "{t}"' for t in tops)
    return f'layer {{ name: "{name}" type: "{type_}" {flow} {settings} }}\n'


def second(channels=4, height=7, width=9) -> str:
    return (f'layer {{ name: "in" type: "Input" top: "other" input_param {{ shape {{ dim: 2 '
            f"dim: {channels} dim: {height} dim: {width} }} }} }}\n")


CONVOLUTION = "convolution_param {{ num_output: 6 {} }}"
SINGLE_LAYERS = {
    "convolution_stride_pad": layer("Convolution", CONVOLUTION.format(
        "kernel_size: 3 stride: 2 pad: 1")),
    "convolution_rectangular": layer("Convolution", CONVOLUTION.format(
        "kernel_h: 1 kernel_w: 4 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2")),
    "convolution_groups": layer("Convolution", CONVOLUTION.format("kernel_size: 2 group: 2")),
    "convolution_dilation_stride": layer("Convolution", CONVOLUTION.format(
        "kernel_size: 2 dilation: 3 stride: 2 bias_term: false")),
    "convolution_of_two_bottoms": second(4, 5, 6) + layer(
        "Convolution", CONVOLUTION.format("kernel_size: 3"), ("data", "other"), ("a", "b")),
    "deconvolution": layer("Deconvolution", CONVOLUTION.format(
        "kernel_size: 4 stride: 2 pad: 1")),
    "deconvolution_groups_dilation": layer("Deconvolution", CONVOLUTION.format(
        "kernel_h: 2 kernel_w: 3 group: 2 dilation: 2 stride: 3 bias_term: false")),
    "inner_product": layer("InnerProduct", "inner_product_param { num_output: 5 }"),
    "inner_product_axis_2": layer("InnerProduct", "inner_product_param { num_output: 5 axis: 2 }"),
    "inner_product_last_axis": layer(
        "InnerProduct", "inner_product_param { num_output: 5 axis: 3 bias_term: false }"),
    "inner_product_transposed": layer(
        "InnerProduct", "inner_product_param { num_output: 5 transpose: true }"),
    "pool_max_3_2": layer("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
    "pool_max_pad_clip": layer(
        "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 pad: 1 }"),
    "pool_max_floor": layer(
        "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 round_mode: FLOOR }"),
    "pool_max_rectangular": layer(
        "Pooling", "pooling_param { pool: MAX kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 }"),
    "pool_average": layer("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 2 }"),
    "pool_average_pad": layer(
        "Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    "pool_average_ceil_over_edge": layer(
        "Pooling", "pooling_param { pool: AVE kernel_size: 4 stride: 3 pad: 2 }"),
    "pool_max_global": layer("Pooling", "pooling_param { pool: MAX global_pooling: true }"),
    "pool_average_global": layer("Pooling", "pooling_param { pool: AVE global_pooling: true }"),
    "relu_slope": layer("ReLU", "relu_param { negative_slope: 0.1 }"),
    "sigmoid": layer("Sigmoid"),
    "tanh": layer("TanH"),
    "dropout_in_test": layer("Dropout", "dropout_param { dropout_ratio: 0.7 }"),
    "batch_norm": layer("BatchNorm", "batch_norm_param { eps: 0.01 }"),
    "scale": layer("Scale", "scale_param { bias_term: true }"),
    "scale_all_axes": layer("Scale", "scale_param { axis: 1 num_axes: 2 }"),
    "scale_by_second": second() + layer("Scale", "scale_param { axis: 0 }", ("data", "other")),
    "bias": layer("Bias"),
    "bias_on_rows": layer("Bias", "bias_param { axis: 2 num_axes: 1 }"),
    "concat": second(3) + layer("Concat", "", ("data", "other")),
    "concat_height": second(4, 2) + layer("Concat", "concat_param { axis: 2 }", ("data", "other")),
    "eltwise_sum": second() + layer(
        "Eltwise", "eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }", ("data", "other")),
    "eltwise_product": second() + layer(
        "Eltwise", "eltwise_param { operation: PROD }", ("data", "other")),
    "eltwise_max": second() + layer(
        "Eltwise", "eltwise_param { operation: MAX }", ("data", "other")),
    "slice_equal": layer("Slice", "", tops=("a", "b")),
    "slice_points": layer(
        "Slice", "slice_param { axis: 3 slice_point: 2 slice_point: 3 }", tops=("a", "b", "c")),
    "split": layer("Split", tops=("a", "b")),
    "flatten": layer("Flatten"),
    "flatten_middle": layer("Flatten", "flatten_param { axis: 1 end_axis: 2 }"),
    "reshape": layer("Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 3 } }"),
    "reshape_middle": layer(
        "Reshape", "reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }"),
    "crop": second(2, 3, 4) + layer("Crop", "crop_param { axis: 2 offset: 1 offset: 2 }",
                                    ("data", "other")),
    "crop_from_channels": second(2, 3, 4) + layer("Crop", "crop_param { axis: 1 offset: 2 }",
                                                  ("data", "other")),
    "lrn": layer("LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 k: 2 }"),
    "lrn_within": layer(
        "LRN", "lrn_param { local_size: 3 alpha: 0.5 norm_region: WITHIN_CHANNEL }"),
    "pool_max_ceil_mode_of_a_fork": layer(
        "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 ceil_mode: false }"),
    "pool_max_mask": layer(
        "Pooling", "pooling_param { kernel_h: 3 kernel_w: 2 stride: 2 pad_h: 1 }",
        tops=("top", "mask")),
    "pool_max_global_mask": layer(
        "Pooling", "pooling_param { global_pooling: true }", tops=("top", "mask")),
    "spp_max": layer("SPP", "spp_param { pyramid_height: 3 }"),
    "spp_average": layer("SPP", "spp_param { pyramid_height: 2 pool: AVE }"),
    "spp_one_level": layer("SPP", "spp_param { pyramid_height: 1 }"),
    "im2col": layer("Im2col", "convolution_param { kernel_h: 2 kernel_w: 3 stride: 2 pad_h: 1 "
                              "pad_w: 0 dilation: 1 dilation: 2 }"),
    "convolution_negative_axis": layer(
        "Convolution", CONVOLUTION.format("kernel_size: 3 axis: -3")),
    "inner_product_negative_axis": layer(
        "InnerProduct", "inner_product_param { num_output: 5 axis: -3 }"),
    "softmax_negative_axis": layer("Softmax", "softmax_param { axis: -3 }"),
    "concat_negative_axis": second(3) + layer(
        "Concat", "concat_param { axis: -3 }", ("data", "other")),
    "slice_negative_axis": layer("Slice", "slice_param { axis: -3 }", tops=("a", "b")),
    "flatten_negative_axis": layer("Flatten", "flatten_param { axis: -3 end_axis: -2 }"),
    "scale_negative_axis": layer("Scale", "scale_param { axis: -3 num_axes: 2 bias_term: true }"),
    "scale_of_samples": layer("Scale", "scale_param { axis: 0 num_axes: 1 bias_term: true }"),
    "scale_of_all_axes": layer("Scale", "scale_param { axis: 0 num_axes: -1 }"),
    "scale_of_columns_by_second": 'input: "row" input_shape { dim: 9 }\n' + layer(
        "Scale", "scale_param { axis: -1 bias_term: true }", ("data", "row")),
    "bias_negative_axis": layer("Bias", "bias_param { axis: -2 num_axes: 2 }"),
    "batch_norm_of_three_axes": layer(
        "Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: -1 } }", tops=("rows",),
        name="three") + layer("BatchNorm", bottoms=("rows",)),
    "batch_norm_of_five_axes": layer(
        "Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: 2 dim: 7 dim: 9 } }",
        tops=("rows",), name="five") + layer("BatchNorm", bottoms=("rows",)),
    "prelu": layer("PReLU"),
    "prelu_shared": layer("PReLU", "prelu_param { channel_shared: true }"),
    "prelu_of_vectors": layer("Flatten", tops=("rows",), name="two") + layer(
        "PReLU", bottoms=("rows",)),
    "elu": layer("ELU", "elu_param { alpha: 0.7 }"),
    "power": layer("Power", "power_param { power: 3 scale: 0.5 shift: -0.2 }"),
    "power_of_nothing": layer("Power", "power_param { power: 2 scale: 0 shift: 3 }"),
    "power_zero": layer("Power", "power_param { power: 0 }"),
    "exp": layer("Exp", "exp_param { scale: 0.5 shift: -1 }"),
    "exp_of_two": layer("Exp", "exp_param { base: 2 scale: 0.5 shift: 3 }"),
    "log": layer("Log", "log_param { shift: 12 }"),
    "log_of_ten": layer("Log", "log_param { base: 10 scale: 2 shift: 20 }"),
    "absolute_value": layer("AbsVal"),
    "bnll": layer("BNLL"),
    "threshold": layer("Threshold", "threshold_param { threshold: 0.5 }"),
    "mvn": layer("MVN"),
    "mvn_mean_alone": layer("MVN", "mvn_param { normalize_variance: false }"),
    "mvn_across_channels": layer("MVN", "mvn_param { across_channels: true }"),
    "mvn_of_three_axes": layer(
        "Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: -1 } }", tops=("rows",),
        name="three") + layer("MVN", bottoms=("rows",)),
    "arg_max": layer("ArgMax"),
    "arg_max_of_three_with_values": layer("ArgMax", "argmax_param { top_k: 3 out_max_val: true }"),
    "arg_max_of_channels": layer("ArgMax", "argmax_param { axis: 1 top_k: 2 }"),
    "arg_max_of_rows_values": layer("ArgMax", "argmax_param { axis: -2 out_max_val: true }"),
    "reduction_sum": layer("Reduction"),
    "reduction_mean": layer("Reduction", "reduction_param { operation: MEAN axis: 1 coeff: 3 }"),
    "reduction_of_absolute_values": layer(
        "Reduction", "reduction_param { operation: ASUM axis: -2 coeff: 0.5 }"),
    "reduction_of_squares": layer("Reduction", "reduction_param { operation: SUMSQ axis: 3 }"),
    "tile": layer("Tile", "tile_param { tiles: 3 }"),
    "tile_columns": layer("Tile", "tile_param { tiles: 2 axis: -1 }"),
    "parameter": layer("Parameter", "parameter_param { shape { dim: 3 dim: 2 } }", ()),
    "parameter_of_four_axes": layer(
        "Parameter", "parameter_param { shape { dim: 2 dim: 4 dim: 7 dim: 9 } }", (), ("weight",),
        "weight") + layer("Eltwise", "", ("data", "weight")),
    "constants": 'layer { name: "zeros" type: "DummyData" top: "a" top: "b" dummy_data_param { '
                 "shape { dim: 2 dim: 4 dim: 7 dim: 9 } shape { dim: 4 } data_filler { value: 2 } "
                 "data_filler { value: -3 } } }\n"
                 + layer("Eltwise", "eltwise_param { operation: PROD }", ("data", "a"), ("c",),
                         "product") + layer("Bias", "", ("c", "b")),
    "interp_to_size": layer("Interp", "interp_param { height: 5 width: 20 }"),
    "interp_zoom": layer("Interp", "interp_param { zoom_factor: 3 pad_beg: -1 pad_end: -2 }"),
    "interp_shrink_and_zoom": layer("Interp", "interp_param { shrink_factor: 4 zoom_factor: 2 }"),
    "interp_to_second": second(1, 1, 4) + layer("Interp", "", ("data", "other")),
    "segnet_bn_inference": layer("BN", "bn_param { bn_mode: INFERENCE }"),
    "segnet_bn_learn": layer("BN", "bn_param { scale_filler { value: 1 } }"),
    "pspnet_bn": layer("BN", "bn_param { frozen: true eps: 0.01 }"),
    "segnet_upsample": layer(
        "Pooling", "pooling_param { kernel_size: 2 stride: 2 }", tops=("pooled", "mask"),
        name="pool") + layer("Upsample", "upsample_param { upsample_h: 7 upsample_w: 9 }",
                             ("pooled", "mask")),
    "softmax": layer("Softmax"),
    "softmax_columns": layer("Softmax", "softmax_param { axis: -1 }"),
    "normalize": layer("Normalize", "norm_param { across_spatial: false channel_shared: false }"),
    "normalize_sample": layer("Normalize"),
}


def convolution(num_output: int, settings: str) -> str:
    return f"convolution_param {{ num_output: {num_output} {settings} }}"


def hed() -> str:
    """HED's shape of network: five side outputs, each cropped by a layer called `crop`, fused."""
    text = ('name: "hed"\nlayer { name: "in" type: "Input" top: "data" top: "label" input_param '
            "{ shape { dim: 1 dim: 3 dim: 9 dim: 12 } shape { dim: 1 dim: 1 dim: 9 dim: 12 } } }"
            "\n")
    bottom, sides = "data", []
    for stage in range(1, 6):
        pad = 7 if stage == 1 else 1
        name = f"conv{stage}_1"
        text += layer("Convolution", convolution(3, f"kernel_size: 3 pad: {pad}"),
                      (bottom,), (name,), name)
        text += layer("ReLU", "", (name,), (name,), f"relu{stage}_1")
        side, up = f"score-dsn{stage}", f"score-dsn{stage}-up"
        text += layer("Convolution", convolution(1, "kernel_size: 1"),
                      (name,), (side,), side)
        if stage > 1:
            size = 2 ** stage
            text += layer("Deconvolution", convolution(
                1, f"kernel_size: {size} stride: {size // 2}"), (side,), (up,), f"upsample_{size}")
        text += layer("Crop", "", (up if stage > 1 else side, "data"), (f"upscore-dsn{stage}",),
                      "crop")
        sides.append(f"upscore-dsn{stage}")
        text += layer("SigmoidCrossEntropyLoss", f"loss_weight: {stage}",
                      (sides[-1], "label"), (f"dsn{stage}_loss",), "loss")
        bottom = f"pool{stage}"
        text += layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", (name,), (bottom,),
                      bottom)
    text += layer("Concat", "", sides, ("concat-upscore",), "concat")
    text += layer("Convolution", convolution(1, "kernel_size: 1"), ("concat-upscore",),
                  ("upscore-fuse",), "upscore-fuse")
    text += layer("SigmoidCrossEntropyLoss", "", ("upscore-fuse", "label"), ("fuse_loss",), "loss")
    text += layer("Sigmoid", "", ("upscore-fuse",), ("sigmoid-fuse",), "sigmoid")
    return text + layer("Silence", "", ("pool5",), (), "quiet")


def shared_convolutions(second: str, specs=('param { name: "w" } param { name: "b" }',) * 2) -> str:
    """Two convolutions of one kernel and bias, the second with other settings; each has a loss."""
    first = "kernel_size: 3 pad: 1"
    return (
        HEAD + layer("Convolution", convolution(3, first) + specs[0], tops=("a",),
                     name="one")
        + layer("Convolution", convolution(3, second) + specs[1], tops=("b",), name="two")
        + layer("Reduction", "reduction_param { operation: SUMSQ } loss_weight: 0.5", ("a",),
                ("la",), "la")
        + layer("Reduction", "reduction_param { operation: SUMSQ } loss_weight: 0.25", ("b",),
                ("lb",), "lb")
    )
