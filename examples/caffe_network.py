"""
A Caffe network, imported and compared
======================================

The original PixelNet is written for Caffe. Its files are read without Caffe, and what the network
computes here is held against arrays that Caffe itself wrote: those that the tests hold, of a
PixelNet with narrow layers.
"""

# %%
# The files
# ---------
# A ``.prototxt`` describes the network, a ``.caffemodel`` holds its weights.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import prototxt_import
from pixelnet_tf.api.caffe import import_caffe
from pixelnet_tf.caffe.parity import compare_with_golden

here = Path.cwd()  # somewhere in the project's folder
folder = next(path / "tests" / "golden" for path in (here, *here.parents)
              if (path / "tests" / "golden").is_dir())
prototxt, caffemodel = folder / "narrow_deploy.prototxt", folder / "narrow_init.caffemodel"
print(prototxt_import.load_network(prototxt, caffemodel))

# %%
# As a model of this project
# --------------------------
# Form and widths are read off the file; the table says what became of every layer.

work = Path(tempfile.mkdtemp(prefix="pixelnet-"))
imported = import_caffe(caffemodel, prototxt, out=work / "imported")
print(imported.table)
scores = imported.model([np.zeros((1, 64, 48, 3), np.float32), np.array([[0, 32, 24]], np.float32)])
print("scores of a pixel of an empty image:", scores.numpy().round(4))

# %%
# Is it the same?
# ---------------
# Caffe's arrays: the image on its canvas, the pixels asked for, and the blobs that came out.

stored = np.load(folder / "narrow.npz")
bgr = stored["even/image_rgb_uint8"][..., ::-1].astype(np.float32) - stored["mean_bgr"]
canvas = np.pad(bgr.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (100, 100), (100, 100)))
blobs = {name: stored[f"even/blob/{name}"] for name in ("pool5", "fc7_conv", "fc8_new")}
np.savez(work / "golden.npz", data=canvas, pixels=stored["even/pixels"],
         **{f"blob/{name}": values for name, values in blobs.items()})
report = compare_with_golden(prototxt, caffemodel, work / "golden.npz")
print(report)

# %%
# Rounding, or a real difference? In float64 the network is computed without float32's rounding;
# what stays is Caffe's own.

exact = compare_with_golden(prototxt, caffemodel, work / "golden.npz", dtype="float64")
names = [row.name for row in report.rows]
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.barh(np.arange(len(names)) + 0.2, [row.relative for row in report.rows], 0.4,
          color="#3a86ff", label="computed in float32")
axis.barh(np.arange(len(names)) - 0.2, [row.relative for row in exact.rows], 0.4,
          color="#8d99ae", label="computed in float64")
axis.axvline(report.tolerance, color="#e63946", lw=1, label="tolerance")
axis.set_xscale("log")
axis.set_yticks(range(len(names)), names)
axis.set_xlabel("largest difference from Caffe, in parts of the blob's largest value")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(fontsize=8)
plt.show()
