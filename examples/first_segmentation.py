"""
First segmentation
==================

From nothing to a segmentation and its score: a synthetic study is drawn, prepared, learnt and
segmented. The same lines work for a study of your own, described by a configuration in place of
``"phantom"``.
"""

# %%
# A study
# -------
# Eight heads with a tumour each, smaller than usual so that all of this takes less than a minute. A
# case is a folder with a NIfTI file for each modality, and one with the truth.

import tempfile
from pathlib import Path

import pixelnet_tf as px

work = Path(tempfile.mkdtemp(prefix="pixelnet-"))
px.write_phantom(work / "study", cases=8, size=(64, 64, 24))

# %%
# The configuration ``phantom`` describes a narrow network; ``overrides`` change what differs here.
# Two cases are put aside for the test.

config = px.load_config("phantom", ["training.steps=200", "split.test=2", "split.validation=0"])
study = px.Study.open(work / "study", config)
prepared = study.prepare(work / "prepared")
print("put aside:", prepared.split.test)

# %%
# Training
# --------
# The loss begins near ln 4, since the four classes are drawn in equal numbers.

run = px.train(prepared, config, work / "run")

# %%
# Segmenting a case that it has not seen
# --------------------------------------
# Paths are given here; nibabel and SimpleITK images do as well, and so do pairs of an array and its
# affine.

model = px.Segmenter.from_run(run.path)
case = next(case for case in study.cases if case.name in prepared.split.test)
result = model.predict(case.volumes, name=case.name)
print({name: f"{volume:.1f} ml" for name, volume in result.volumes_ml().items()})

# %%
# The picture shows the first modality, the truth, the segmentation, and what is wrong with it.

figure = result.plot(truth=case.segmentation)
figure.savefig(work / "segmentation.png")

# %%
# How good it is
# --------------
# WT is the whole tumour, TC its core, ET the enhancing rim. The small parts are learnt last: with
# 900 steps and twelve cases, as in the quickstart, they follow.

for row in px.evaluate(result.image, case.segmentation, config=config):
    print(f"{row['region']}: Dice {row['Dice']:.3f}, Hausdorff95 {row['Hausdorff95']:.1f} mm")

# %%
# The segmentation goes where you want it, on exactly the grid of the first modality.

print(result.save(work / "segmentation.nii.gz").name, result.labels.shape, result.spacing_mm)
