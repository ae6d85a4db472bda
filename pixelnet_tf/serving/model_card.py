"""`model_card.md`: what a reader should know before using an exported model."""

from __future__ import annotations

from typing import Any

from pixelnet_tf.config import Strategy


def model_card(about: dict[str, Any], packed: bool = False) -> str:
    """Markdown of a model card, from what `describe_export` gave.

    packed: the model goes out as runs in one file, without a version and without signatures.
    """
    return "\n".join([
        f"# {about['name']}" + f", version {about['version']}" * (not packed), "",
        f"**{about['use']}**", "",
        "A class-balanced PixelNet: VGG-16, hypercolumns of single pixels, a perceptron. It labels "
        "each pixel of axial MRI slices.", "", *_average(about),
        *_input(about), *_output(about), *([] if packed else _signatures(about)),
        *_training(about), *_metrics(about),
        "## Made with", "",
        ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ". "
        f"The whole configuration is in `{'config.yaml' if packed else 'serving.json'}`.", "",
    ])


def _average(about: dict[str, Any]) -> list[str]:
    count = len(about["networks"])
    return [] if count < 2 else [
        f"Its scores are the mean of those of {count} such networks, each under its own prior. "
        "What is said below of the training is that of the first.", ""]


def _input(about: dict[str, Any]) -> list[str]:
    normal = about["normalisation"]
    field = ("N4 bias field correction is **not part of the graph**: correct the volumes before, "
             f"with the settings {normal['bias_field']}, as `pixelnet-tf prepare`, `predict` and "
             "`serve` do." if normal["bias_field"]["enabled"] else
             "The volumes are not corrected for a bias field.")
    lines = ["## Input", "",
             f"Channels, in this order: {', '.join(about['channels'])}. View: {normal['view']}.",
             "", field, "",
             f"{normal['z_score'][0].upper()}{normal['z_score'][1:]}."]
    if normal["z_score_over"] != "volume":
        lines += ["", f"The brain mask is {normal['brain']}."]
    if normal["slice_size"]:
        lines += ["", f"Slices are then scaled (linear, pixel centres on one scale) until the "
                  f"longer side has {normal['slice_size']} pixels, and zero-padded to a square. "
                  "`segment_raw` takes means and deviations from the slices that it is given: for "
                  "the same numbers as the training's, send normalised slices to "
                  "`serving_default`."]
    reach = (about["config"]["model"].get("context_slices", 1)) // 2
    if reach:
        lines += ["", "The slices of a request are one stack: consecutive slices of one volume, "
                  f"the lowest first. The scores of a slice depend on up to {reach} on each side "
                  "of it; where one is not in the request, the nearest is taken in its place."]
    planes = about["config"]["model"].get("planes", [])
    if len(planes) > 1:
        lines += ["", f"The scores of a voxel are the mean of those of its {', '.join(planes)} "
                  "slices. `segment_raw` takes the volume's axial slices and its spacing and does "
                  "all of it; the other signatures answer for the slices that they are sent, which "
                  "may be of any one of these planes."]
    if about["classified_pixels"] == "all":
        rule = "Every pixel is classified; set what lies outside the brain to background."
    else:
        rule = ("Pixels that are 0 in every channel lie outside the brain and are background; the "
                "others are classified.")
    return [*lines, "", rule, ""]


def _output(about: dict[str, Any]) -> list[str]:
    prior = about["prior"]
    added = ", ".join(f"{value:+.4f}" for value in prior["correction"])
    scores = about["scores"]
    sigmoid, cut = scores["probabilities"] == "sigmoid", scores.get("cut", ())
    table = ["| score | label value | class |", "|---|---|---|",
             *(f"| {c['index']} | {c['value']} | {c['name']} |" for c in about["classes"])]
    if sigmoid:
        table = ["| score | region | label values |", "|---|---|---|",
                 *(f"| {index} | {name} | {', '.join(map(str, about['regions'][name]))} |"
                   for index, name in enumerate(scores["of"]))]
    labels = ("Labels are the arg max of these scores, probabilities their softmax." if not cut else
              "Probabilities are " + ("the sigmoid of each score" if sigmoid else
                                      "the softmax of these scores, of a region their sum over its "
                                      "classes")
              + ". A pixel is background, and then, one after the other, " + "; ".join(
                  f"{each['value']} where {each['region']} has more than {each['threshold']:g}"
                  for each in cut) + ".")
    return ["## Output", "", *table, "",
            f"Prior: {prior['kind']}; added to the scores: {added}. {labels} Mode: "
            f"{about['mode']}; precision: {about['precision']}.", *_smoothing(about), ""]


def _smoothing(about: dict[str, Any]) -> list[str]:
    """Mirrored slices and the guided filter, where on; what classifies single pixels has none."""
    prediction = about["config"]["prediction"]
    smoothing = prediction.get("guided_filter", {"radius": 0})
    if set(about["signatures"]) == {"classify_pixels"}:
        return []
    mirrored = ["", "Scores are the mean of those of each slice and of its mirror image; those of "
                "`classify_pixels` are of the slice as it is."] * bool(prediction.get("flips"))
    if not smoothing["radius"]:
        return mirrored
    return [*mirrored, "", "Probabilities pass a guided filter over the slice (radius "
            f"{smoothing['radius']} pixels, epsilon {smoothing['epsilon']}) before labels are "
            "taken; scores of `classify_pixels` do not."]


def _signatures(about: dict[str, Any]) -> list[str]:
    lines = ["## Signatures", ""]
    for name, sides in about["signatures"].items():
        lines.append(f"- `{name}`")
        for side, tensors in sides.items():
            lines += [f"    - {side.removesuffix('s')} `{key}`: {text}"
                      for key, text in tensors.items()]
    return [*lines, ""]


def _training(about: dict[str, Any]) -> list[str]:
    training = about["training"]
    if not training["class_frequency"]:
        return ["## Training", "", "The weights were imported from Caffe and not trained here: "
                "images must be normalised as they were for the training there.", ""]
    cases = ", ".join(f"{count} {part}" for part, count in training["cases"].items())
    pixels = ("every pixel of a lattice" if training["sampling"] == Strategy.ALL else
              f"{training['pixels_per_slice']} pixels")
    steps = f"{training['steps']} steps"
    if training["weights_step"] not in (None, training["steps"]):
        steps += f" (the weights are those after step {training['weights_step']})"
    return ["## Training", "",
            f"Study `{training['study']}`, cases: {cases}. {steps} of "
            f"{training['batch_slices']} slices, {pixels} each, {training['sampling']} "
            "sampling.", "",
            "| class | share of pixels | share of sampled pixels |", "|---|---|---|",
            *(f"| {name} | {share['real']:.4%} | {share['sampled']:.2%} |"
              for name, share in training["class_frequency"].items()), ""]


def _metrics(about: dict[str, Any]) -> list[str]:
    validation, evaluation = about["metrics"]["validation"], about["metrics"]["evaluation"]
    lines = ["## Measured", ""]
    if validation:
        lines += ["On the validation cases, under the prior of the validation, these weights "
                  f"(after step {validation['step']}): " + ", ".join(
                      f"{key} {value:.4f}" for key, value in validation.items() if key != "step")
                  + ".", ""]
    if evaluation:
        measures = list(evaluation["definitions"])
        made = _predicted_by(evaluation, len(about["networks"]))
        lines += [f"On {evaluation['cases']} evaluated cases, by the protocol of "
                  f"`{evaluation['protocol']}` (mean){made}:", "",
                  "| region | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|",
                  *("| " + " | ".join([region, *(_number(row[m]["mean"]) for m in measures)]) + " |"
                    for region, row in evaluation["scores"].items()), ""]
    if not validation and not evaluation:
        lines += ["Nothing: the run had no validation cases, and no evaluation was given.", ""]
    return lines


def _predicted_by(evaluation: dict[str, Any], exported: int) -> str:
    """How the scored predictions were made; `exported` is the number of networks in the model."""
    known = evaluation["predicted_by"]
    if known is None:
        return "; what they were predicted by is not on record"
    words = f", predicted with the prior {known['prior']} in mode {known['mode']}"
    if known["networks"] > 1:
        own = "those of this model" if exported > 1 else "of which this is one"
        words += f" by {known['networks']} networks, {own}"
    if evaluation["trained_on"]:
        words += (f"; the network was trained on, or chosen by, {evaluation['trained_on']} of "
                  "them, whose scores say nothing about new cases")
    return words


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
