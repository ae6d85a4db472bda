"""Drive a server by MONAI Label's own client, as a viewer does: info, a session, infer, remove.

Starts `pixelnet-tf serve` on MODELS, sends the images of CASE in one session, and compares what
comes back with the answer of /v1/segment. The client is the class of the package `monailabel`; of
it and of what it needs the environment of its own holds no more than

    pip install --no-deps monailabel==0.8.5 requests urllib3 idna certifi charset-normalizer

because the package itself asks for PyTorch. It needs Python below 3.13, whose library has `cgi`.

    python scripts/check_viewer_bridge.py MODELS CASE CLIENT_PYTHON
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import uuid
import zipfile
from pathlib import Path

#: What runs in the client's environment: the address, the images as one zip, and a folder.
CLIENT = """
import json, sys
from monailabel.client import MONAILabelClient
url, images, folder = sys.argv[1:]
client = MONAILabelClient(url, folder)
info = client.info()
model, = info["models"]
session = client.create_session(images)
assert client.get_session(session["session_id"])["name"] == session["session_id"]
file, params = client.infer(model, "", {}, session_id=session["session_id"])
client.remove_session(session["session_id"])
try:
    client.get_session(session["session_id"])
except Exception as error:
    gone = "404" in str(error)
print(json.dumps({"file": file, "params": params, "labels": info["models"][model]["labels"],
                  "type": info["models"][model]["type"], "gone": gone,
                  "auth": client.auth_enabled()}))
"""


def segmented(url: str, images: dict[str, Path]) -> bytes:
    """What /v1/segment answers."""
    boundary = uuid.uuid4().hex
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{modality}"; filename="x"\r\n\r\n'
        .encode() + path.read_bytes() + b"\r\n" for modality, path in images.items())
    request = urllib.request.Request(
        f"{url}/v1/segment", body + f"--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return answer.read()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="the --out folder of export, with one model")
    parser.add_argument("case", type=Path, help="a folder of images named by their modalities")
    parser.add_argument("client", help="a Python with the package monailabel")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            server = subprocess.Popen(
                [sys.executable, "-m", "pixelnet_tf", "serve", "--model", str(arguments.models),
                 "--port", "0"], stderr=subprocess.PIPE, stdout=stream, text=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"})
        try:
            assert server.stderr is not None
            port = None
            for line in server.stderr:
                event = json.loads(line) if line.startswith("{") else {}
                port = event.get("port", port)
                if event.get("event") == "model_loaded":
                    break
            url = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{url}/v1/segment", timeout=60) as answer:
                modalities = json.load(answer)["models"][0]["modalities"]
            images = {modality: next(arguments.case.glob(f"*_{modality}.nii*"))
                      for modality in modalities}
            with zipfile.ZipFile(Path(folder) / "images.zip", "w") as archive:
                for path in images.values():
                    archive.write(path, path.name)
            done = subprocess.run(
                [arguments.client, "-W", "ignore", "-c", CLIENT, url, f"{folder}/images.zip",
                 folder], capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr[-3000:])
                return 1
            said = json.loads(done.stdout)
            same = Path(said["file"]).read_bytes() == segmented(url, images)
            right = (same and said["gone"] and not said["auth"] and said["type"] == "segmentation"
                     and said["params"]["label_names"] == said["labels"])
            print(f"monailabel's client: session, infer, remove; labels {said['labels']}; "
                  f"{'the bytes' if same else 'NOT the bytes'} of /v1/segment")
            return 0 if right else 1
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    sys.exit(main())
