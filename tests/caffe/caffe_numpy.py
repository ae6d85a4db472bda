"""Caffe's layers in plain numpy and float64, written from Caffe's documentation for the tests.

Slow and simple on purpose: loops over windows and pixels, Caffe's own axis order, nothing shared
with the package but the network's description.
"""

from __future__ import annotations

import math

import numpy as np


def run(network, weights, inputs, training=False):
    """All blobs of a network, from weights by layer name and inputs by blob name."""
    blobs = {name: np.asarray(array, np.float64) for name, array in inputs.items()}
    for layer in network.layers:
        if layer.type in ("Input", "Data", "Silence", "Accuracy"):
            continue
        bottoms = [blobs[name] for name in layer.bottoms]
        own = [np.asarray(blob, np.float64) for blob in weights.get(layer.name, ())]
        tops = globals()[f"_{layer.type.lower()}"](layer.params, bottoms, own, layer, training)
        tops = tops if isinstance(tops, list) else [tops]
        blobs.update(zip(layer.tops, tops, strict=True))
    return blobs


def total_loss(network, weights, inputs, training=False):
    """Sum over all tops that carry a loss weight, of each the sum of its numbers times it."""
    blobs = run(network, weights, inputs, training)
    total = 0.0
    for layer in network.layers:
        given = layer.loss_weights or ((1.0,) if layer.type.endswith("Loss") else ())
        total += sum(w * np.sum(blobs[top]) for w, top in zip(given, layer.tops, strict=False))
    return total


def gradients(network, weights, inputs, picks, step=1e-6):
    """Central differences of the total loss: for each pick (blobs, number, index of an element).

    `blobs` are the layers that share the blob: the element changes in all of them.
    """
    found = []
    for layers, number, index in picks:
        values = []
        for change in (step, -step):
            moved = {name: [np.array(blob, np.float64) for blob in own]
                     for name, own in weights.items()}
            for name in layers:
                moved[name][number][index] += change
            values.append(total_loss(network, moved, inputs, training=True))
        found.append((values[0] - values[1]) / (2 * step))
    return found


def _windows(p, x):
    height, width = x.shape[2:]
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = p.kernel, p.stride, p.pad, p.dilation
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    oh = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + sh * (oh - 1) + 1, sh)
            columns = slice(j * dw, j * dw + sw * (ow - 1) + 1, sw)
            yield i, j, x[:, :, rows, columns]


def _convolution(p, bottoms, own, layer, training):
    tops = []
    for x in bottoms:
        total = 0
        for i, j, part in _windows(p, x):
            groups = zip(np.split(part, p.group, 1), np.split(own[0], p.group, 0), strict=True)
            total = total + np.concatenate(
                [np.einsum("nchw,oc->nohw", a, k[:, :, i, j]) for a, k in groups], 1
            )
        tops.append(total + own[1][:, None, None] if p.bias_term else total)
    return tops


def _deconvolution(p, bottoms, own, layer, training):
    (x,) = bottoms
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = p.kernel, p.stride, p.pad, p.dilation
    batch, _, height, width = x.shape
    full = np.zeros((batch, p.num_output, sh * (height - 1) + dh * (kh - 1) + 1,
                     sw * (width - 1) + dw * (kw - 1) + 1))
    kernels = np.split(own[0], p.group, 0)
    for i in range(height):
        for j in range(width):
            spread = [np.einsum("nc,cokl->nokl", a, k)
                      for a, k in zip(np.split(x[:, :, i, j], p.group, 1), kernels, strict=True)]
            full[:, :, i * sh:i * sh + dh * (kh - 1) + 1:dh,
                 j * sw:j * sw + dw * (kw - 1) + 1:dw] += np.concatenate(spread, 1)
    top = full[:, :, ph:full.shape[2] - ph, pw:full.shape[3] - pw]
    return top + own[1][:, None, None] if p.bias_term else top


def _innerproduct(p, bottoms, own, layer, training):
    x = bottoms[0]
    rows = x.reshape(*x.shape[:p.axis], -1)
    return rows @ (own[0] if p.transpose else own[0].T) + (own[1] if p.bias_term else 0)


def _pooling(p, bottoms, own, layer, training):
    (x,) = bottoms
    size = x.shape[2:]
    kernel = size if p.global_pooling else p.kernel
    rounded = math.ceil if p.ceil_mode else math.floor
    count = []
    for n, k, s, pad in zip(size, kernel, p.stride, p.pad, strict=True):
        cells = rounded((n + 2 * pad - k) / s) + 1
        if any(p.pad) and (cells - 1) * s >= n + pad:
            cells -= 1
        count.append(cells)
    top = np.zeros((*x.shape[:2], *count))
    mask = np.zeros_like(top)
    for i in range(count[0]):
        for j in range(count[1]):
            start = [i * p.stride[0] - p.pad[0], j * p.stride[1] - p.pad[1]]
            end = [min(a + k, n + pad)
                   for a, k, n, pad in zip(start, kernel, size, p.pad, strict=True)]
            area = (end[0] - start[0]) * (end[1] - start[1])
            window = x[:, :, max(start[0], 0):min(end[0], size[0]),
                       max(start[1], 0):min(end[1], size[1])]
            top[:, :, i, j] = (
                window.max((2, 3)) if p.pool == "MAX" else window.sum((2, 3)) / area
            )
            first = window.reshape(*window.shape[:2], -1).argmax(-1)
            row, column = np.divmod(first, window.shape[3])
            mask[:, :, i, j] = (
                (row + max(start[0], 0)) * size[1] + column + max(start[1], 0))
    return [top, mask] if len(layer.tops) == 2 else top


def _relu(p, bottoms, own, layer, training):
    return np.where(bottoms[0] > 0, bottoms[0], p.negative_slope * bottoms[0])


def _sigmoid(p, bottoms, own, layer, training):
    return 1 / (1 + np.exp(-bottoms[0]))


def _tanh(p, bottoms, own, layer, training):
    return np.tanh(bottoms[0])


def _dropout(p, bottoms, own, layer, training):
    assert not training or p.dropout_ratio == 0
    return bottoms[0]


def _channels(values, x):
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def _batchnorm(p, bottoms, own, layer, training):
    (x,) = bottoms
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    if training:
        mean, variance = x.mean(axes), x.var(axes)
    else:
        factor = 0 if own[2][0] == 0 else 1 / own[2][0]
        mean, variance = own[0] * factor, own[1] * factor
    return (x - _channels(mean, x)) / np.sqrt(_channels(variance, x) + p.eps)


def _aligned(p, values, x):
    axis = p.axis % x.ndim
    return values.reshape((1,) * axis + values.shape + (1,) * (x.ndim - axis - values.ndim))


def _scale(p, bottoms, own, layer, training):
    x = bottoms[0]
    factor = own.pop(0) if len(bottoms) == 1 else bottoms[1]
    top = x * _aligned(p, factor, x)
    return top + _aligned(p, own[0], x) if p.bias_term else top


def _bias(p, bottoms, own, layer, training):
    x = bottoms[0]
    return x + _aligned(p, own[0] if len(bottoms) == 1 else bottoms[1], x)


def _normalize(p, bottoms, own, layer, training):
    x = bottoms[0]
    axes = tuple(range(1, x.ndim)) if p.across_spatial else 1
    norm = np.sqrt((x * x).sum(axes, keepdims=True) + p.eps)
    return x / norm * (own[0] if p.channel_shared else _channels(own[0], x))


def _lrn(p, bottoms, own, layer, training):
    (x,) = bottoms
    reach = p.local_size // 2
    squares = np.zeros_like(x)
    if p.norm_region == "ACROSS_CHANNELS":
        for c in range(x.shape[1]):
            squares[:, c] = (x[:, max(c - reach, 0):c + reach + 1] ** 2).sum(1)
        return x / (p.k + p.alpha / p.local_size * squares) ** p.beta
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            window = x[:, :, max(i - reach, 0):i + reach + 1, max(j - reach, 0):j + reach + 1]
            squares[:, :, i, j] = (window ** 2).sum((2, 3))
    return x / (1 + p.alpha / p.local_size ** 2 * squares) ** p.beta


def _concat(p, bottoms, own, layer, training):
    return np.concatenate(bottoms, p.axis)


def _slice(p, bottoms, own, layer, training):
    return np.split(bottoms[0], p.slice_point or len(layer.tops), p.axis)


def _split(p, bottoms, own, layer, training):
    return [bottoms[0]] * len(layer.tops)


def _eltwise(p, bottoms, own, layer, training):
    if p.operation == "SUM":
        factors = p.coeff or (1,) * len(bottoms)
        return sum(f * x for f, x in zip(factors, bottoms, strict=True))
    return (np.prod if p.operation == "PROD" else np.max)(np.stack(bottoms), axis=0)


def _flatten(p, bottoms, own, layer, training):
    x = bottoms[0]
    end = p.end_axis % x.ndim
    return x.reshape(*x.shape[:p.axis % x.ndim], -1, *x.shape[end + 1:])


def _reshape(p, bottoms, own, layer, training):
    x = bottoms[0]
    start = p.axis if p.axis >= 0 else x.ndim + p.axis + 1
    end = x.ndim if p.num_axes < 0 else start + p.num_axes
    middle = [x.shape[start + i] if d == 0 else d for i, d in enumerate(p.shape)]
    return x.reshape(*x.shape[:start], *middle, *x.shape[end:])


def _crop(p, bottoms, own, layer, training):
    x, reference = bottoms
    axes = list(range(p.axis % x.ndim, x.ndim))
    offsets = p.offset if len(p.offset) > 1 else (p.offset or (0,)) * len(axes)
    cut = [slice(None)] * x.ndim
    for axis, offset in zip(axes, offsets, strict=True):
        cut[axis] = slice(offset, offset + reference.shape[axis])
    return x[tuple(cut)]


def _softmax(p, bottoms, own, layer, training):
    powers = np.exp(bottoms[0] - bottoms[0].max(p.axis, keepdims=True))
    return powers / powers.sum(p.axis, keepdims=True)


def _randbi(p, bottoms, own, layer, training):
    *maps, pixels = bottoms
    return np.stack([
        np.concatenate([_pixel(x, row, rate, p.pad) for x, rate in zip(maps, p.rates, strict=True)])
        for row in pixels
    ])


def _pixel(x, row, rate, pad):
    n, cells = int(row[0]), []
    for v in row[1:]:
        t = (v - ((rate - 1) / 2 if pad else 0)) / rate
        low, high = max(math.floor(t), 0), max(math.ceil(t), 0)
        cells.append((low, high, t - low if low != high else 0))
    (y1, y2, ry), (x1, x2, rx) = cells
    top = x[n, :, y1, x1] * (1 - rx) + x[n, :, y1, x2] * rx
    bottom = x[n, :, y2, x1] * (1 - rx) + x[n, :, y2, x2] * rx
    return top * (1 - ry) + bottom * ry


def _randcomp(p, bottoms, own, layer, training):
    *maps, pixels = bottoms
    rows = []
    for n, *yx in pixels:
        values = []
        for x, rate in zip(maps, p.rates, strict=True):
            t = [(v - ((rate - 1) / 2 if p.pad else 0)) / rate for v in yx]
            i, j = (max(math.floor(abs(each) + 0.5) * (1 if each >= 0 else -1), 0) for each in t)
            values.append(x[int(n), :, i, j])
        rows.append(np.concatenate(values))
    return np.stack(rows)


def _softmaxwithloss(p, bottoms, own, layer, training):
    logits, labels = bottoms
    axis = p.axis % logits.ndim
    rows = np.moveaxis(logits, axis, -1).reshape(-1, logits.shape[axis])
    labels = labels.reshape(-1).astype(int)
    picked = np.arange(len(rows))[labels != p.ignore_label] if p.ignore_label is not None else (
        np.arange(len(rows)))
    probabilities = _softmax(_Axis, [rows], [], None, False)
    losses = -np.log(np.maximum(probabilities[picked, labels[picked]], np.finfo(np.float32).tiny))
    divisor = {"FULL": len(rows), "VALID": len(picked), "NONE": 1,
               "BATCH_SIZE": math.prod(logits.shape[:axis])}[p.normalization]
    return losses.sum() / max(divisor, 1)


class _Axis:
    axis = -1


def _euclideanloss(p, bottoms, own, layer, training):
    return ((bottoms[0].ravel() - bottoms[1].ravel()) ** 2).sum() / (2 * len(bottoms[0]))


def _sigmoidcrossentropyloss(p, bottoms, own, layer, training):
    z, target = bottoms[0], bottoms[1].reshape(bottoms[0].shape)
    losses = -(target * -np.log1p(np.exp(-z)) + (1 - target) * -np.log1p(np.exp(z)))
    valid = np.ones_like(z) if p.ignore_label is None else (target != p.ignore_label)
    divisor = {"FULL": z.size, "VALID": valid.sum(), "NONE": 1, "BATCH_SIZE": len(z)}
    return (losses * valid).sum() / max(divisor[p.normalization], 1)


def _prelu(p, bottoms, own, layer, training):
    (x,) = bottoms
    slope = own[0] if p.channel_shared else _channels(own[0], x)
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def _elu(p, bottoms, own, layer, training):
    (x,) = bottoms
    return np.maximum(x, 0) + p.alpha * (np.exp(np.minimum(x, 0)) - 1)


def _power(p, bottoms, own, layer, training):
    return (p.shift + p.scale * bottoms[0]) ** p.power


def _exp(p, bottoms, own, layer, training):
    return (math.e if p.base == -1 else p.base) ** (p.shift + p.scale * bottoms[0])


def _log(p, bottoms, own, layer, training):
    return np.log(p.shift + p.scale * bottoms[0]) / (1 if p.base == -1 else math.log(p.base))


def _absval(p, bottoms, own, layer, training):
    return np.abs(bottoms[0])


def _bnll(p, bottoms, own, layer, training):
    return np.log1p(np.exp(bottoms[0]))


def _threshold(p, bottoms, own, layer, training):
    return (bottoms[0] > p.threshold).astype(float)


def _mvn(p, bottoms, own, layer, training):
    x = bottoms[0].reshape((*bottoms[0].shape, 1, 1)[:4])
    axes = (1, 2, 3) if p.across_channels else (2, 3)
    top = x - x.mean(axes, keepdims=True)
    if p.normalize_variance:
        top = top / (np.sqrt((top ** 2).mean(axes, keepdims=True)) + p.eps)
    return top


def _argmax(p, bottoms, own, layer, training):
    (x,) = bottoms
    flat = x.reshape(len(x), -1) if p.axis is None else x
    axis = 1 if p.axis is None else p.axis
    # The last of equal numbers comes first.
    order = np.flip(np.argsort(flat, axis, kind="stable"), axis)
    order = np.take(order, np.arange(p.top_k), axis)
    values = np.take_along_axis(flat, order, axis)
    if p.axis is not None:
        return values if p.out_max_val else order
    top = np.stack([order, values] if p.out_max_val else [order], 1)
    return top.reshape(*top.shape, *[1] * (x.ndim - 3))


def _reduction(p, bottoms, own, layer, training):
    x = bottoms[0]
    rows = x.reshape(*x.shape[:p.axis % x.ndim], -1)
    return p.coeff * {
        "SUM": rows.sum(-1), "ASUM": np.abs(rows).sum(-1), "SUMSQ": (rows ** 2).sum(-1),
        "MEAN": rows.mean(-1),
    }[p.operation]


def _tile(p, bottoms, own, layer, training):
    return np.concatenate([bottoms[0]] * p.tiles, p.axis)


def _embed(p, bottoms, own, layer, training):
    top = own[0][bottoms[0].astype(int)]
    return top + own[1] if p.bias_term else top


def _spp(p, bottoms, own, layer, training):
    (x,) = bottoms
    tops = []
    for level in range(p.pyramid_height):
        pooling = _Pooled()
        pooling.pool = p.pool
        pooling.kernel = tuple(math.ceil(size / 2**level) for size in x.shape[2:])
        pooling.stride = pooling.kernel
        pooling.pad = tuple((k * 2**level - size + 1) // 2
                            for k, size in zip(pooling.kernel, x.shape[2:], strict=True))
        tops.append(_pooling(pooling, [x], [], layer, training))
    if p.pyramid_height == 1:
        return tops[0]
    return np.concatenate([top.reshape(len(x), -1) for top in tops], 1)


class _Pooled:
    global_pooling, ceil_mode = False, True


def _im2col(p, bottoms, own, layer, training):
    parts = [part for _, _, part in _windows(p, bottoms[0])]
    top = np.stack(parts, 2)  # sample, channel, place in the window, row, column
    return top.reshape(len(top), -1, *top.shape[3:])


def _filter(p, bottoms, own, layer, training):
    *blobs, selector = bottoms
    return [x[selector.reshape(-1) != 0] for x in blobs]


def _batchreindex(p, bottoms, own, layer, training):
    return bottoms[0][bottoms[1].astype(int)]


def _parameter(p, bottoms, own, layer, training):
    return own[0]


def _dummydata(p, bottoms, own, layer, training):
    return [np.full(shape, filler.value)
            for shape, filler in zip(p.shape, p.data_filler, strict=True)]


def _bn(p, bottoms, own, layer, training):
    (x,) = bottoms
    if p.fork == "SegNet":
        if p.bn_mode != "INFERENCE":
            x = (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(
                x.var((0, 2, 3), keepdims=True) + 1e-9)
        return x * own[0] + own[1]
    eps = 1e-5 if p.eps is None else p.eps
    mean, variance = own[2], own[3]
    if training and not p.frozen:
        mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * own[0] + own[1]


def _interp(p, bottoms, own, layer, training):
    x = bottoms[0]
    x = x[:, :, -p.pad_beg:x.shape[2] + p.pad_end, -p.pad_beg:x.shape[3] + p.pad_end]
    sizes = []
    for place, size in enumerate(x.shape[2:]):
        count = size
        if p.shrink_factor:
            count = (count - 1) // p.shrink_factor + 1
        if p.zoom_factor:
            count = count + (count - 1) * (p.zoom_factor - 1)
        if p.height:
            count = (p.height, p.width)[place]
        if len(bottoms) == 2:
            count = bottoms[1].shape[2 + place]
        sizes.append(count)
    top = np.zeros((*x.shape[:2], *sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            t = [place * (size - 1) / (count - 1) if count > 1 else 0
                 for place, size, count in zip((i, j), x.shape[2:], sizes, strict=True)]
            (y, ry), (z, rz) = [(min(int(v + 1e-9), n - 1), v - min(int(v + 1e-9), n - 1))
                                for v, n in zip(t, x.shape[2:], strict=True)]
            down, right = min(y + 1, x.shape[2] - 1), min(z + 1, x.shape[3] - 1)
            top[:, :, i, j] = (
                (1 - ry) * ((1 - rz) * x[:, :, y, z] + rz * x[:, :, y, right])
                + ry * ((1 - rz) * x[:, :, down, z] + rz * x[:, :, down, right]))
    return top


def _upsample(p, bottoms, own, layer, training):
    x, mask = bottoms
    batch, channels, height, width = x.shape
    size = (p.upsample_h, p.upsample_w)
    if p.upsample_h is None:
        size = (height * (p.scale_h or p.scale) - p.pad_out_h,
                width * (p.scale_w or p.scale) - p.pad_out_w)
    top = np.zeros((batch, channels, *size))
    for n in range(batch):
        for c in range(channels):
            for value, cell in zip(x[n, c].reshape(-1), mask[n, c].reshape(-1), strict=True):
                top[n, c].reshape(-1)[int(cell)] = value
    return top
