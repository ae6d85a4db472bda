"""Prototxts of the forms that the PixelNet family has, at a narrow width.

Eleven members, each as a deploy and a train file, and the tail-{train,test} files of the Python
port; written for the tests after the table of what stands in the authors' files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WIDTHS = (2, 3, 4, 4, 4)
BLOCKS = (2, 2, 3, 3, 3)
PARAMS = "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"


@dataclass(frozen=True)
class Member:
    """What distinguishes a member of the family."""

    classes: int
    taps: tuple[int, ...] = (1, 2, 3, 4, 5, 7)
    last_rate: int = 224
    fc6_pad: int = 0
    fc_suffix: str = "_conv"
    head: tuple[str, ...] = ("fc6_new", "fc7_new", "cls_score_new")
    score: str = "fc8_new"
    final: str = "f_score"
    final_type: str = "Softmax"
    batch_norm: str = ""  # "taps": beside each tap, before its ReLU; "in_place": everywhere
    drop_fc5: bool = False
    drop_fc6: bool = True
    relu_fc5: bool = False
    std: float = 0.001
    faster: bool = False
    canvas: tuple[int, int] = (224, 256)


MLP = Member(21)
LINEAR = replace(MLP, head=("cls_score_new",), relu_fc5=True)
ALIGNED = replace(MLP, last_rate=32, fc6_pad=3, canvas=(64, 96))
MEMBERS = {
    "mlp_segmentation": MLP,
    "mlp_normals": replace(MLP, classes=3, final="", std=0.0005),
    "lin_bn_segmentation": replace(LINEAR, batch_norm="taps"),
    "lin_bn_normals": replace(LINEAR, batch_norm="taps", classes=3, final=""),
    "lin_no_bn_segmentation": LINEAR,
    "lin_no_bn_normals": replace(LINEAR, classes=3, final=""),
    "final_normals": replace(ALIGNED, classes=3, final=""),
    "final_edges": replace(
        ALIGNED, classes=1, fc_suffix="o", head=("fc6n", "fc7n", "cls_score"), drop_fc5=True,
        drop_fc6=False, score="cls_score", final="cls_prob", final_type="Sigmoid", faster=True,
    ),
    "scratch_c12345": replace(
        MLP, taps=(1, 2, 3, 4, 5), head=("cls_score_new",), batch_norm="in_place", canvas=(32, 48)
    ),
    "scratch_c123457": replace(ALIGNED, head=("cls_score_new",), batch_norm="in_place"),
    "scratch_normals": replace(
        MLP, classes=3, final="", batch_norm="in_place", head=("fc6_hcol", "fc7_hcol", "fc8_hcol"),
        score="fc8_hcol",
    ),
}
TAIL = replace(
    ALIGNED, taps=(4, 5, 7), fc_suffix="o", head=("fc6n", "fc7n", "cls_score"), drop_fc5=True,
    drop_fc6=False, score="cls_score", final="cls_prob", faster=True,
)
MEMBERS["tail_21"] = TAIL
MEMBERS["tail_1"] = replace(TAIL, classes=1, final_type="Sigmoid")


def prototxt(name: str, train: bool = False, dropout: float = 0.5) -> str:
    """Text of a member's deploy or train file."""
    member = MEMBERS[name]
    lines = [f'name: "{name}"', 'input: "data"',
             "input_shape { dim: 1 dim: 3 dim: 224 dim: 224 }",
             'input: "pixels"', "input_shape { dim: 1000 dim: 3 }"]
    label = "pixel_sn" if member.classes == 3 else "labels"
    if train or name == "mlp_segmentation":
        width = member.classes if member.classes == 3 else 1
        lines += [f'input: "{label}"', f"input_shape {{ dim: 1000 dim: {width} }}"]
    lines += _trunk(member, dropout) + _head(member, dropout)
    lines += _losses(member, label) if train else _scores(member)
    return "\n".join(lines) + "\n"


def _trunk(member: Member, dropout: float) -> list[str]:
    lines, bottom, depth = [], "data", 5 if max(member.taps) == 5 else 7
    for block, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True), start=1):
        for i in range(1, count + 1):
            top = f"conv{block}_{i}"
            lines.append(_conv(top, bottom, width, "kernel_size: 3 pad: 1", PARAMS))
            bottom = _activate(lines, member, top, f"{block}_{i}", tap=i == count)
        if block < 5 or depth == 7:
            lines.append(
                f'layer {{ name: "pool{block}" type: "Pooling" bottom: "{bottom}" '
                f'top: "pool{block}" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}'
            )
            bottom = f"pool{block}"
    if depth == 7:
        for number, geometry in ((6, f"kernel_size: 7 pad: {member.fc6_pad}"),
                                 (7, "kernel_size: 1")):
            top = f"fc{number}{member.fc_suffix}"
            lines.append(_conv(top, bottom, 6, geometry, ""))
            bottom = _activate(lines, member, top, str(number), tap=number == 7)
            if (number == 6 and not member.drop_fc6) or (number == 7 and member.relu_fc5):
                continue
            lines.append(_dropout(f"drop{number}", top, dropout))
    return lines


def _activate(lines: list[str], member: Member, top: str, number: str, tap: bool) -> str:
    """BatchNorm and ReLU after a convolution; returns the blob that goes on."""
    if member.batch_norm == "in_place":
        lines.append(_batch_norm(f"bn{number}", top, top))
    elif member.batch_norm == "taps" and tap:
        lines.append(_batch_norm(f"bn_{top}", top, f"{top}_bn"))
        if number == "7":
            return top
        lines.append(_relu(f"relu{number}", top, f"{top}_re"))
        return f"{top}_re"
    if number == "7" and member.relu_fc5:
        return top
    lines.append(_relu(f"relu{number}", top, top))
    return top


def _head(member: Member, dropout: float) -> list[str]:
    rates = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 7: member.last_rate}
    suffix = "_bn" if member.batch_norm == "taps" else ""
    taps = [f"conv{tap}_{BLOCKS[tap - 1]}" if tap < 7 else f"fc7{member.fc_suffix}"
            for tap in member.taps]
    lines = ['layer { name: "rand_concat" type: "RandBI" '
             + " ".join(f'bottom: "{tap}{suffix}"' for tap in taps)
             + ' bottom: "pixels" top: "fc5" rand_comp_param { pad: true '
             + " ".join(f"compression_rate: {rates[tap]}" for tap in member.taps) + " } }"]
    if member.drop_fc5:
        lines.append(_dropout("drop5", "fc5", dropout))
    if member.relu_fc5:
        lines.append(_relu("relu_fc5", "fc5", "fc5"))
    params = PARAMS
    if member.faster:
        params = "param { lr_mult: 10 decay_mult: 1 } param { lr_mult: 20 decay_mult: 0 }"
    bottom = "fc5"
    for name in member.head[:-1]:
        lines += [_product(name, bottom, name, 5, member.std, params), _relu(f"relu_{name}", name,
                  name), _dropout(f"drop_{name}", name, dropout)]
        bottom = name
    lines.append(
        _product(member.head[-1], bottom, member.score, member.classes, member.std, params)
    )
    return lines


def _scores(member: Member) -> list[str]:
    if not member.final:
        return []
    return [f'layer {{ name: "loss_opt" type: "{member.final_type}" bottom: "{member.score}" '
            f'top: "{member.final}" }}']


def _losses(member: Member, label: str) -> list[str]:
    if member.classes == 3:
        return [f'layer {{ name: "norm" type: "Normalize" bottom: "{member.score}" top: "fc8_n" '
                "norm_param { across_spatial: false } }",
                f'layer {{ name: "loss" type: "EuclideanLoss" bottom: "fc8_n" bottom: "{label}" '
                'top: "loss" }']
    kind = "SigmoidCrossEntropyLoss" if member.classes == 1 else "SoftmaxWithLoss"
    return [f'layer {{ name: "loss" type: "{kind}" bottom: "{member.score}" bottom: "{label}" '
            'top: "loss" }']


def _conv(name, bottom, width, geometry, params):
    return (f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {params}'
            f" convolution_param {{ num_output: {width} {geometry} }} }}")


def _product(name, bottom, top, width, std, params):
    return (f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {params}'
            f' inner_product_param {{ num_output: {width} weight_filler {{ type: "gaussian" '
            f"std: {std} }} }} }}")


def _batch_norm(name, bottom, top):
    zeros = "param { lr_mult: 0 } " * 3
    return (f'layer {{ name: "{name}" type: "BatchNorm" bottom: "{bottom}" top: "{top}" {zeros} }}')


def _relu(name, bottom, top):
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "{bottom}" top: "{top}" }}'


def _dropout(name, blob, ratio):
    return (f'layer {{ name: "{name}" type: "Dropout" bottom: "{blob}" top: "{blob}" '
            f"dropout_param {{ dropout_ratio: {ratio} }} }}")
