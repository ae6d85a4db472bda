"""The figures as Markdown."""

from __future__ import annotations

GOALS = "| what | measured | goal | |\n|---|---|---|---|"


def render(found: dict) -> str:
    """Markdown of everything that was measured; parts that were not are left out."""
    sections = [_machine(found), _results(found), _floors(found), _growth(found)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _machine(found: dict) -> str:
    about = found.get("machine")
    if not about:
        return ""
    loads = [part["load_before"] for part in found.values()
             if isinstance(part, dict) and "load_before" in part]
    return (f"{about['processor']} ({about['instructions']}), {about['cores']} cores, "
            f"{about['memory_gb']} GB; "
            f"Python {about['python']}, TensorFlow {about['tensorflow']}, Keras {about['keras']}, "
            f"SimpleITK {about['simpleitk']}. Load before the parts {min(loads)} to {max(loads)}.\n"
            "Measured peaks: products {} GFLOP/s in float32, {} in bfloat16; convolutions {} and "
            "{}; reading {} GB/s.".format(
                about["product_float32_gflops"], about["product_bfloat16_gflops"],
                about["convolution_float32_gflops"], about["convolution_bfloat16_gflops"],
                about["reading_gb_per_s"]))


def _results(found: dict) -> str:
    rows = [*_modes(found), *_agreement(found), *_peer(found), *_steps(found),
            *_pixels(found), *_context(found), *_data(found)]
    if not rows:
        return ""
    lines = []
    for what, value, goal, met in rows:
        verdict = "" if goal == "none" else "met" if met else "missed"
        lines.append(f"| {what} | {value} | {goal} | {verdict} |")
    return "\n".join([GOALS, *lines])


def _modes(found: dict) -> list:
    rows, reference, answers = [], found.get("reference"), found.get("answers", {})
    for name, text, goal in (("exact", "exact mode, whole volume", 12),
                             ("adaptive", "adaptive mode", 40),
                             ("adaptive_bfloat16", "adaptive mode, bfloat16", 60)):
        part = found.get(name)
        if part and reference:
            slice_seconds = reference["seconds"] / reference["slices"]
            # The reference, like the original, knows no slice that it need not look at.
            whole = slice_seconds * part["volume_slices"]
            busy = slice_seconds * part["slices"] / part["seconds"]
            ratio = whole / part["seconds"]
            rows.append((f"{text} ({part['slices']} slices with brain, {part['pixels']} voxels)",
                         f"{part['seconds']:.1f} s against {whole:.0f} s ({slice_seconds:.2f} s a "
                         f"slice, extrapolated from {reference['slices']}): {ratio:.1f} times as "
                         f"fast ({busy:.1f} counting slices with brain alone)",
                         f"{goal} times", ratio >= goal))
        if part:
            rows.append((f"peak memory, {text}", f"{part['peak_gb']:.2f} GB", "2.5 GB",
                         part["peak_gb"] <= 2.5))
    if "exact" in answers:
        own = answers["exact"]
        rows.append(("exact mode, logits against the largest logit",
                     f"{own['largest_logit_error']:.1e}", "1e-3",
                     own["largest_logit_error"] <= 1e-3))
        rows.append(("exact mode, identical labels", f"{own['identical_labels']:.5%}", "99.999%",
                     own["identical_labels"] >= 0.99999))
    for name in ("adaptive_float32", "adaptive_bfloat16"):
        if name in answers:
            own, text = answers[name], name.replace("_", " ")
            rows.append((f"{text}, brain voxels equal to exact",
                         f"{own['equal_brain_voxels']:.3%}", "99.9%",
                         own["equal_brain_voxels"] >= 0.999))
            rows.append((f"{text}, Dice of " + ", ".join(
                f"{region} {value:.4f}" for region, value in own["dice"].items()),
                f"{own['largest_dice_difference']:.5f} from exact", "0.002",
                own["largest_dice_difference"] <= 0.002))
    return rows


def _agreement(found: dict) -> list:
    rows = []
    for name in ("agreement", "agreement_stroke"):
        part = found.get(name, {"cases": {}})
        for case, own in part["cases"].items():
            rows.append((f"adaptive against exact mode, {part['precision']}, {case}, "
                         f"{own['adaptive_seconds']:.1f} s against {own['exact_seconds']:.1f} s",
                         f"{own['equal']:.3%} of the brain's voxels equal, lowest Dice of a class "
                         f"{own['dice']:.4f}, {own['lost']} lesions of 10 voxels lost",
                         "99.9%, 0.995, none", own["equal"] >= 0.999 and own["dice"] >= 0.995
                         and not own["lost"]))
    return rows


def _peer(found: dict) -> list:
    rows = []
    for precision, goal in (("float32", 0.8), ("bfloat16", 1.0)):
        own = found.get(f"peer_{precision}")
        if own:
            times = "; ".join(
                f"{name} {own[name]['seconds']:.1f} s ({own[name]['range'][0]:.1f} to "
                f"{own[name]['range'][1]:.1f}, {own[name]['cpu_seconds']:.1f} CPU s)"
                for name in ("pixelnet", "unet eager", "unet compiled"))
            rows.append((f"adaptive mode against nnU-Net's 2-D U-Net, {precision}, {own['slices']} "
                         f"slices, {own['cores']} cores ({own['instructions']}), median of "
                         f"{own['rounds']} in turns", f"{times}: {own['ratio_seconds']:.2f} of its "
                         f"time ({own['ratio_cpu_seconds']:.2f} in CPU seconds)",
                         f"{goal:.1f} of {own['best_unet']}", own["ratio_seconds"] <= goal))
    return rows


def _steps(found: dict) -> list:
    rows, plain = [], found.get("step_plain")
    for name, text, goal in (("step_fast", "training step, float32", 2.5),
                             ("step_fast_bfloat16", "training step, bfloat16", 4)):
        part = found.get(name)
        if part and plain:
            ratio = plain["seconds"] / part["seconds"]
            rows.append((text, f"{part['seconds']:.2f} s against {plain['seconds']:.2f} s: "
                         f"{ratio:.2f} times as fast", f"{goal} times", ratio >= goal))
        if part:
            rows.append((f"peak memory, {text}", f"{part['peak_gb']:.2f} GB", "3.2 GB",
                         part["peak_gb"] <= 3.2))
    if plain:
        rows.append(("peak memory, plain step", f"{plain['peak_gb']:.2f} GB", "none", True))
    if "gradients" in found:
        own = found["gradients"]
        rows.append((f"gradients against the layer's largest (worst: {own['layer']}, "
                     f"{own['columns_over']} of {own['columns']} columns beyond the goal, the rest "
                     f"{own['rest']:.1e})", f"{own['difference']:.1e}", "1e-4",
                     own["difference"] <= 1e-4))
    return rows


def _pixels(found: dict) -> list:
    rows, sampled = [], found.get("best_step_sampled")
    for name, text, goal in (("drawn", "its own draw", None),
                             ("all", "every pixel on a lattice of two", 1.4)):
        part = found.get(f"best_step_{name}")
        if part and sampled:
            ratio = part["seconds"] / sampled["seconds"]
            rows.append((f"training step of the preset `best`, {text} ({part['pixels']} pixels, "
                         f"{part['precision']}) against {sampled['pixels']} balanced ones",
                         f"{part['seconds']:.2f} s against {sampled['seconds']:.2f} s: "
                         f"{ratio:.2f} times; peak memory {part['peak_gb']:.2f} GB against "
                         f"{sampled['peak_gb']:.2f} GB", f"{goal} times" if goal else "none",
                         not goal or ratio <= goal))
    return rows


def _context(found: dict) -> list:
    rows = []
    for name, text, goal in (
            ("context_exact", "exact mode, hypercolumns of three slices", 1.25),
            ("context_adaptive", "adaptive mode, hypercolumns of three slices", 1.25),
            ("context_step", "training step of five slices, hypercolumns of three", 1.6)):
        part = found.get(name)
        if part:
            what = (f"{part['slices']} slices" if "slices" in part else
                    f"{part['context_3_trunk_slices']} slices through the trunk")
            rows.append((f"{text} ({what})", f"{part['context_3_seconds']:.2f} s against "
                         f"{part['context_1_seconds']:.2f} s of one: {part['ratio']:.2f} times",
                         f"{goal} times", part["ratio"] <= goal))
    return rows


def _data(found: dict) -> list:
    rows, own = [], found.get("sampler")
    if own and "step_fast" in found:
        share = own["sampler_seconds"] / found["step_fast"]["seconds"]
        rows.append(("sampler, share of the fast float32 step",
                     f"{share:.2%}; {1 / own['sampler_seconds']:.0f} slices/s, whole pipeline "
                     f"{1 / own['pipeline_seconds']:.0f}", "1%", share < 0.01))
    own = found.get("prepare_side_by_side")
    if own:
        rows.append((f"prepare, one case on {own['cores']} cores against channel by channel, N4 on "
                     "a grid coarser by 3",
                     f"{own['seconds']:.1f} s against {own['before_seconds']:.1f} s: "
                     f"{own['times_as_fast']:.2f} times as fast; than channel by channel on the "
                     f"same grid {own['than_alone']:.2f} times, {own['cpu_times']:.2f} times the "
                     f"processor's seconds, {'the same' if own['same_bytes'] else 'other'} bytes",
                     "1.5 times, 1.1 times, the same",
                     own["times_as_fast"] >= 1.5 and own["cpu_times"] <= 1.1
                     and own["same_bytes"]))
    for name, text, goal in (("evaluate", "`evaluate` of one case", 0.3),
                             ("predict", "`predict` to its first slice", 1.3)):
        own = found.get("start", {}).get(name)
        if own:
            rows.append((f"start: {text} against `import tensorflow`",
                         f"{own['seconds']:.1f} s, {own['times_import']:.2f} times "
                         f"(processor's seconds: {own['times_import_cpu']:.2f} times)",
                         f"{goal} times", own["times_import"] <= goal))
    own = found.get("prepare")
    if own:
        rows.append(("prepare, one case against N4 at full resolution",
                     f"{own['case_seconds']:.1f} s, {own['times_as_fast']:.1f} times as fast "
                     f"(N4 of a modality {own['n4_seconds']:.2f} s on one core against "
                     f"{own['plain_n4_seconds']:.1f} s on all)", "8 times",
                     own["times_as_fast"] >= 8))
        rows.append(("N4 on the coarser grid, mean difference over brain voxels",
                     f"{own['mean_difference']:.3%}", "0.5%", own["mean_difference"] <= 0.005))
    return rows


def _floors(found: dict) -> str:
    if "floors" not in found:
        return ""
    own = found["floors"]["volume"]
    lines = ["| multiply-adds | |", "|---|---|",
             *(f"| {what} | {value / 1e6:,.1f} M |" for what, value in own["macs"].items()), "",
             "| floor at the measured peaks | float32 | bfloat16 | measured |", "|---|---|---|---|"]
    measured = {"exact_volume_seconds": ("exact",),
                "lattice_volume_seconds": ("adaptive", "adaptive_bfloat16")}
    for key in own["float32"]:
        seconds = ", ".join(f"{found[name]['seconds']:.1f} s" for name in measured.get(key, ())
                            if name in found)
        lines.append(f"| {key.replace('_', ' ')} | {own['float32'][key]:.1f} | "
                     f"{own['bfloat16'][key]:.1f} | {seconds} |")
    for name, seconds in found["floors"].get("step", {}).items():
        if part := found.get(f"step_{name}"):
            lines.append(f"| step, {name.replace('_', ' ')}, s | {seconds:.2f} | | "
                         f"{part['seconds']:.2f} s |")
    return "\n".join(lines)


def _growth(found: dict) -> str:
    lines = []
    own = found.get("growth_step")
    for key in ("pixels", "classes") if own else ():
        lines.append(f"Fast float32 step by {key}: " + ", ".join(
            f"{count}: {seconds:.2f} s" for count, seconds in own[key].items()) + ".")
    volumes = {key: value for key, value in found.get("growth_volumes", {}).items()
               if key.isdigit()}
    if volumes:
        lines.append("Volumes, adaptive bfloat16, read to written: " + ", ".join(
            f"{count}: {value['seconds']:.1f} s (peak {value['peak_gb']:.2f} GB)"
            for count, value in volumes.items()) + ".")
    return "\n\n".join(lines)
