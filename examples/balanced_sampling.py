"""
Balanced against uniform sampling
=================================

A training looks at 2000 pixels of a slice. Drawn uniformly, hardly any of them lies in a small
lesion; drawn balanced (paper section 2.1), each class present has the same number.
"""

# %%
# A slice and its labels
# ----------------------

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

import pixelnet_tf as px

work = Path(tempfile.mkdtemp(prefix="pixelnet-"))
study = px.write_phantom(work, cases=1, seed=4)
case, = study.cases
flair = nib.load(case.volumes["flair"]).get_fdata()
truth = np.asarray(nib.load(case.segmentation).dataobj)
middle = np.argmax((truth == 4).sum(axis=(0, 1)))
image, values = flair[:, :, middle].T, truth[:, :, middle].T
names = study.config.study.labels
labels = np.searchsorted(list(names), values)  # 0, 1, 2, 4 to class indices
shares = np.bincount(labels.ravel(), minlength=4) / labels.size
print({name: f"{share:.1%}" for name, share in zip(names.values(), shares, strict=True)})

# %%
# Both ways to draw 400 pixels
# ----------------------------

drawn = {strategy: px.sample_pixels(labels, pixels=400, strategy=strategy, seed=1)
         for strategy in ("uniform", "balanced")}
colours = ["#8d99ae", "#e63946", "#2a9d8f", "#ffd166"]

figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained")
for axis, (strategy, (pixels_yx, classes)) in zip(axes, drawn.items(), strict=False):
    axis.imshow(image, cmap="gray")
    for index, name in enumerate(names.values()):
        y, x = pixels_yx[classes == index].T
        axis.scatter(x, y, s=7, color=colours[index], label=name)
    axis.set_title(f"{strategy}: 400 pixels")
    axis.set_axis_off()
axes[1].legend(loc="lower right", fontsize=8, markerscale=2)
width = 0.4
for offset, (strategy, (_, classes)) in zip((-0.5, 0.5), drawn.items(), strict=True):
    counts = np.bincount(classes, minlength=4)
    bars = axes[2].bar(np.arange(4) + offset * width, counts, width, label=strategy,
                       color=colours, alpha=0.45 if strategy == "uniform" else 1)
    axes[2].bar_label(bars, fontsize=8)
axes[2].set_xticks(range(4), names.values())
axes[2].set_ylabel("pixels drawn")
axes[2].set_title("left: uniform, right: balanced")
axes[2].spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# What it does to the scores
# --------------------------
# A network that saw every class equally often believes lesions to be common. Bayes' rule leads its
# scores back to the real frequencies: log(real / drawn) is added to each class's score. ``train``
# measures both frequencies, ``predict --prior corrected`` adds the term.

for strategy, (_, classes) in drawn.items():
    seen = np.bincount(classes, minlength=4) / classes.size
    with np.errstate(divide="ignore"):
        terms = np.log(shares) - np.log(seen)
    print(f"{strategy:9}", {name: "never drawn" if np.isinf(term) else f"{term:+.2f}"
                            for name, term in zip(names.values(), terms, strict=True)})

# %%
# A class with fewer pixels than its share gives all that it has; the rest is drawn from the others,
# so that N stays exact.

few = np.zeros_like(labels)
few[40, 40:45] = 1
_, classes = px.sample_pixels(few, pixels=400)
print("classes 0 and 1:", np.bincount(classes))
