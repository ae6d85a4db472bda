"""
Hypercolumns, tap by tap
========================

At a pixel the hypercolumn puts the responses of several layers on top of each other. Fine layers
tell where an edge runs, coarse ones what lies around. Here one pixel is compared with all others of
its slice, layer by layer.
"""

# %%
# A slice
# -------
# From a synthetic case, three modalities, each with mean 0 and deviation 1 within the brain.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

import pixelnet_tf as px
from pixelnet_tf.config import ModelConfig
from pixelnet_tf.model.pixelnet import plain_taps

work = Path(tempfile.mkdtemp(prefix="pixelnet-"))
case, = px.write_phantom(work, cases=1, seed=3, size=(128, 128, 48)).cases
volumes = np.stack([nib.load(path).get_fdata() for path in case.volumes.values()], axis=-1)
truth = np.asarray(nib.load(case.segmentation).dataobj)
middle = np.argmax((truth > 0).sum(axis=(0, 1)))
# Rows run from front to back, columns from left to right, as in the network.
image = volumes[:, :, middle].transpose(1, 0, 2).astype(np.float32)
lesion = truth[:, :, middle].T > 0
brain = image.any(axis=-1)
image[brain] = (image[brain] - image[brain].mean(axis=0)) / image[brain].std(axis=0)

# %%
# A network
# ---------
# Of half the usual width, with random weights: how far a tap sees does not depend on training.

model = px.PixelNet(ModelConfig(widths=(32, 64, 128, 256, 256), fc7="none", border=32), channels=3,
                    seed=0)
taps = plain_taps(model, image[None])
for tap, values in zip(model.architecture.taps, taps, strict=True):
    print(f"{tap.layer}: a cell every {tap.rate} pixels, map of {values.shape[1]} x "
          f"{values.shape[2]} x {values.shape[3]}")

# %%
# The hypercolumn of every pixel
# ------------------------------
# ``Hypercolumn`` is a layer: it takes maps and pixels (rows of n, y, x in the canvas, that is with
# the border) and interpolates. The channels of the taps follow each other.

yx = np.stack(np.meshgrid(*map(np.arange, brain.shape), indexing="ij"), -1).reshape(-1, 2)
pixels = np.concatenate([np.zeros((len(yx), 1)), yx + model.config.border], 1).astype(np.float32)
whole = px.Hypercolumn(rates=model.rates)([*taps, pixels]).numpy()
widths = [tap.width for tap in model.architecture.taps]
columns = np.split(whole, np.cumsum(widths)[:-1], axis=1)
print("the hypercolumn of a pixel:", " + ".join(map(str, widths)), "=", whole.shape[1])

# %%
# What looks like this pixel?
# ---------------------------
# The cosine between the column of the pixel at the cross, inside the tumour, and that of every
# other pixel, after the mean column is taken away. The first tap answers to the pixel's own
# brightness, the later ones to an ever larger neighbourhood, ever more blurred.

y, x = np.argwhere(lesion)[len(np.argwhere(lesion)) // 2]


def likeness(column):
    """Cosine of every pixel's column with that of the pixel at the cross, (height, width)."""
    column = column - column[brain.ravel()].mean(axis=0)
    column /= np.linalg.norm(column, axis=1, keepdims=True) + 1e-9
    return (column @ column[y * brain.shape[1] + x]).reshape(brain.shape)


figure, axes = plt.subplots(2, 4, figsize=(12, 6.2), layout="constrained")
axes[0, 0].imshow(np.where(brain, image[..., 0], -2), cmap="gray", vmin=-2, vmax=3)
axes[0, 0].contour(lesion, [0.5], colors="#3a86ff", linewidths=1)
axes[0, 0].set_title(f"{next(iter(case.volumes))}, tumour outlined")
shown = [(f"{tap.layer}, every {tap.rate} px" if tap.rate > 1 else f"{tap.layer}, every pixel",
          column) for tap, column in zip(model.architecture.taps, columns, strict=True)]
for axis, (title, column) in zip(axes.flat[1:], [*shown, ("all of them", whole)], strict=False):
    drawn = axis.imshow(np.where(brain, likeness(column), np.nan), cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_title(title)
for axis in axes.flat:
    axis.set_axis_off()
for axis in axes.flat[:7]:
    axis.plot(x, y, "+", color="#ffd166" if axis is axes[0, 0] else "k", ms=12, mew=2)
figure.colorbar(drawn, ax=axes, label="cosine", shrink=0.7)
plt.show()
