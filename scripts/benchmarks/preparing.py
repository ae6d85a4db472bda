"""`prepare` on one case, and N4 beside SimpleITK's filter on the full grid."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from benchmarks.study import Options, configuration, raw_study


def prepare(options: Options) -> dict:
    """Seconds of one case, and of its first modality's N4 here and by the plain filter.

    The plain filter (full resolution, the same iterations and threshold, all cores) takes minutes,
    so it runs on one modality; the case's other modalities are taken to cost the same.
    """
    from pixelnet_tf.cases.layouts import find_cases
    from pixelnet_tf.volumes.bias_field import correct_bias_field
    from pixelnet_tf.volumes.case_volume import prepare_case
    from pixelnet_tf.volumes.nifti import read_volume
    from pixelnet_tf.volumes.normalize import brain_mask
    config = configuration(options)
    case = find_cases(raw_study(options), config.study)[0]
    start = time.perf_counter()
    prepare_case(case, config.study, config.prepare)
    whole = time.perf_counter() - start
    field = config.prepare.bias_field
    array, geometry = read_volume(case.volumes[config.study.modalities[0]])
    array = array.astype(np.float32)
    mask = brain_mask(array[..., None], config.study.skull_stripped)
    start = time.perf_counter()
    mine = correct_bias_field(array, geometry.spacing_mm, mask, field)
    own = time.perf_counter() - start
    if options.quick:
        array, mask, mine = (a[::2, ::2, ::2] for a in (array, mask, mine))
    start = time.perf_counter()
    theirs = _plain_n4(array, geometry.spacing_mm, mask & (array > 0), field)
    full = time.perf_counter() - start
    inside = mask & (array > 0)
    # N4 leaves the field's scale to chance.
    theirs *= np.exp(np.log(mine[inside] / theirs[inside]).mean(dtype=np.float64))
    error = np.abs(mine[inside] / theirs[inside] - 1)
    count = len(config.study.modalities)
    return {"case_seconds": whole, "n4_seconds": own, "plain_n4_seconds": full,
            "modalities": count, "times_as_fast": (whole + count * (full - own)) / whole,
            "n4_times_as_fast": full / own, "mean_difference": float(error.mean()),
            "largest_difference": float(error.max())}


def side_by_side(options: Options) -> dict:
    """Seconds, processor seconds and slices of one case in three forms, in turn.

    As it was before: its channels are corrected one after the other, on a grid that is coarser by
    3. Likewise on the grid of today; and so on all cores. ITK takes two threads for parts of N4 in
    every form.
    """
    import hashlib
    from statistics import median

    from pixelnet_tf.cases.layouts import find_cases
    from pixelnet_tf.dataset.encode import encode_case
    from pixelnet_tf.io.processor import cores, limit_cores
    config = configuration(options)
    case = find_cases(raw_study(options), config.study)[0]
    own = config.prepare
    before = replace(own, bias_field=replace(own.bias_field, shrink_factor=3))
    forms = {"before": (before, 1), "alone": (own, 1), "beside": (own, cores())}
    found: dict[str, list] = {name: [] for name in forms}
    for _ in range(1 if options.quick else 3):
        for name, times in found.items():
            prepare, count = forms[name]
            limit_cores(count)
            wall, busy = time.perf_counter(), time.process_time()
            encoded = encode_case(case, config.study, prepare)
            times.append((time.perf_counter() - wall, time.process_time() - busy))
            digest = hashlib.sha256()
            for each in encoded.slices:
                digest.update(each.image + each.labels + each.brain)
            times[-1] += (digest.hexdigest(),)
    past, alone, beside = found.values()
    limit_cores(forms["beside"][1])

    def times(one: list, other: list, which: int) -> float:
        return median(a[which] / b[which] for a, b in zip(one, other, strict=True))

    return {"cores": forms["beside"][1], "before_seconds": median(each[0] for each in past),
            "alone_seconds": median(each[0] for each in alone),
            "seconds": median(each[0] for each in beside), "times_as_fast": times(past, beside, 0),
            "than_alone": times(alone, beside, 0), "cpu_times": times(beside, alone, 1),
            "same_bytes": len({each[2] for each in alone + beside}) == 1}


def _plain_n4(array: np.ndarray, spacing_mm, mask: np.ndarray, field) -> np.ndarray:
    import SimpleITK as sitk
    image, inside = (sitk.GetImageFromArray(np.ascontiguousarray(a.T))
                     for a in (array, mask.astype(np.uint8)))
    for each in (image, inside):
        each.SetSpacing([float(s) for s in spacing_mm])
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(field.iterations))
    n4.SetConvergenceThreshold(field.convergence)
    return sitk.GetArrayFromImage(n4.Execute(image, inside)).T.copy()
