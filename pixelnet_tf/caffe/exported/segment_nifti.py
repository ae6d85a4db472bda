"""Segment a NIfTI case with the Caffe network in this folder.

    python segment_nifti.py OUT.nii.gz IMAGE.nii.gz ...

One image a channel, in the order of `channels` in serving.json, all on one grid, and the brain mask
last where the network was trained with such. Needs pycaffe of the original PixelNet (layer RandBI),
and what preparation.py needs. The labels are the arg max of the network's scores, with the
correction of the prior added; the mean over mirrored slices, the guided filter and the clean-up
that serving.json names are not done. Written by pixelnet-tf. For research use only.
"""

import json
import os
import sys

import nibabel as nib
import numpy as np
from preparation import prepare, put_together

MYPY = False  # a checker of types takes it for true
if MYPY:
    import caffe  # noqa: F401 (in a comment that states types)

HERE = os.path.dirname(os.path.abspath(__file__))
PIXELS_AT_ONCE = 10000  # a hypercolumn of the original network has 5568 numbers


def main(out, *paths):


    # type: (str, *str) -> None
    import caffe
    with open(os.path.join(HERE, "serving.json")) as file:
        about = json.load(file)
    names = about["channels"] + ["brain mask"] * about["normalisation"]["brain_mask"]
    if len(paths) != len(names):
        sys.exit("give an image of each channel: " + ", ".join(names))
    files = [nib.load(path) for path in paths]
    images, wanted = prepare(files, about)
    if not about["border"]:
        wanted = within_reach(wanted, about["rates"])
    net = caffe.Net(os.path.join(HERE, "deploy.prototxt"),
                    os.path.join(HERE, "weights.caffemodel"), caffe.TEST)
    values = np.array([one["value"] for one in about["classes"]], np.uint8)
    labels = np.full(wanted.shape, values[0])
    for number in np.flatnonzero(wanted.any(axis=(1, 2))):
        pixels = np.argwhere(wanted[number])
        scores = scores_of(net, images[number], pixels, about["border"])
        scores += about["not_in_the_network"]["prior_correction"]
        labels[number][tuple(pixels.T)] = values[scores.argmax(axis=1)]
    nib.save(put_together(labels, files[0], about), out)


def scores_of(net, image, pixels, border):


    # type: (caffe.Net, np.ndarray, np.ndarray, int) -> np.ndarray
    """Scores before the softmax (pixel, class) of pixels (row, column) of a slice."""
    data = np.pad(image, ((border, border), (border, border), (0, 0)), "constant")
    net.blobs["data"].reshape(1, *data.transpose(2, 0, 1).shape)
    net.blobs["data"].data[...] = data.transpose(2, 0, 1)
    scores = []
    for start in range(0, len(pixels), PIXELS_AT_ONCE):
        part = np.insert(pixels[start:start + PIXELS_AT_ONCE] + border, 0, 0, axis=1)
        net.blobs["pixels"].reshape(*part.shape)
        net.blobs["pixels"].data[...] = part
        net.forward()
        scores.append(net.blobs["fc8_new"].data.copy())
    return np.concatenate(scores)


def within_reach(wanted, rates):


    # type: (np.ndarray, list[int]) -> np.ndarray
    """Without border Caffe aborts at a pixel past the centre of the last cell of a map."""
    reached = np.zeros_like(wanted)
    ends = [min(rate * (-(-length // min(rate, 32)) - 1 - 6 * (rate == 224)) + (rate + 1) // 2
                for rate in rates) for length in wanted.shape[1:]]
    reached[:, :max(ends[0], 0), :max(ends[1], 0)] = True
    left_out = np.count_nonzero(wanted & ~reached)
    if left_out:
        print("background unseen, past the network's reach: {} pixels".format(left_out))
    return wanted & reached


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 2 else sys.exit(__doc__)
