"""
A served model, asked
=====================

A trained model leaves the project as a SavedModel; the server answers TensorFlow Serving's REST
API, and takes whole NIfTI volumes as well. What it answers is what local prediction gives.
"""

# %%
# A model to serve
# ----------------
# A few steps on a small synthetic study; how good it is does not matter here.

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

import pixelnet_tf as px

work = Path(tempfile.mkdtemp(prefix="pixelnet-"))
config = px.load_config("phantom", ["training.steps=60", "split.test=1", "split.validation=0",
                                    "prepare.bias_field.enabled=false"])
px.write_phantom(work / "study", cases=4, size=(64, 64, 24))
study = px.Study.open(work / "study", config)
run = px.train(study.prepare(work / "prepared"), config, work / "run")
model = px.Segmenter.from_run(run.path)
case, = (case for case in study.cases if case.name in run.split().test)

# %%
# Exporting and serving it
# ------------------------
# On the command line: ``pixelnet-tf export`` and ``pixelnet-tf serve``.

version = model.export(work / "models", name="phantom")
print(sorted(path.name for path in version.iterdir()))

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
log = (work / "server.log").open("w")
server = subprocess.Popen([sys.executable, "-m", "pixelnet_tf", "serve", "--model",
                           str(work / "models"), "--port", str(port)], stdout=log, stderr=log)
url = f"http://127.0.0.1:{port}"
while True:
    try:
        urllib.request.urlopen(f"{url}/readyz")
        break
    except (urllib.error.URLError, ConnectionError):
        if server.poll() is not None:
            raise SystemExit((work / "server.log").read_text()) from None
        time.sleep(0.25)

# %%
# Asking it as a program
# ----------------------
# ``from_server`` prepares the scan as the training did, with the settings that the server hands
# out, sends its slices, and puts the answers together.

served = px.Segmenter.from_server(url)
answer = served.predict(case.volumes, name=case.name)
local = model.predict(case.volumes, name=case.name)
print("voxels that differ:", int((answer.labels != local.labels).sum()), "of", answer.labels.size)

# %%
# Asking it without this project
# ------------------------------
# The REST API of TensorFlow Serving: slices as JSON, labels in the study's values.

slices = np.zeros((1, 64, 64, 3), np.float32)
request = urllib.request.Request(
    f"{url}/v1/models/phantom:predict", method="POST",
    data=json.dumps({"signature_name": "serving_default", "instances": slices.tolist()}).encode(),
    headers={"Content-Type": "application/json"})
with urllib.request.urlopen(request) as reply:
    prediction, = json.load(reply)["predictions"]
print({name: np.shape(values) for name, values in prediction.items()})

# %%
# The picture is the served segmentation's. SIGTERM ends the server once it has answered what it
# took.

figure = answer.plot(truth=case.segmentation)
figure.savefig(work / "answer.png")
server.terminate()
print("the server ended with", server.wait(timeout=30))
log.close()
