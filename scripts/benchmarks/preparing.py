"""`prepare` on one case, and N4 beside SimpleITK's filter on the full grid."""

from __future__ import annotations

import time

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
    """Seconds, processor seconds and slices of one case on one core and on all of them, in turn.

    On one core its channels are corrected one after the other. ITK takes two threads for parts of
    N4 in either form.
    """
    import hashlib
    from statistics import median

    from pixelnet_tf.cases.layouts import find_cases
    from pixelnet_tf.dataset.encode import encode_case
    from pixelnet_tf.io.processor import cores, limit_cores
    config = configuration(options)
    case = find_cases(raw_study(options), config.study)[0]
    found: dict[int, list] = {1: [], cores(): []}
    for _ in range(1 if options.quick else 3):
        for count, times in found.items():
            limit_cores(count)
            wall, busy = time.perf_counter(), time.process_time()
            encoded = encode_case(case, config.study, config.prepare)
            times.append((time.perf_counter() - wall, time.process_time() - busy))
            digest = hashlib.sha256()
            for each in encoded.slices:
                digest.update(each.image + each.labels + each.brain)
            times[-1] += (digest.hexdigest(),)
    alone, beside = found[1], found[cores()]
    ratios = [[a[k] / b[k] for a, b in zip(alone, beside, strict=True)] for k in (0, 1)]
    return {"cores": cores(), "alone_seconds": median(each[0] for each in alone),
            "seconds": median(each[0] for each in beside), "times_as_fast": median(ratios[0]),
            "cpu_times": median(1 / ratio for ratio in ratios[1]),
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
