"""Train packed jobs of a race by JAX and PyTorch alone; see `away.py`.

    python train_away.py FOLDER JOB [JOB ...] [--steps N]

A job's file FOLDER/done/JOB.npz is written when it has ended. It needs this file and `unet.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def read_slices(folder: Path) -> dict[str, Any]:
    """Images (slice, height, width, channel) float32, labels uint8, brain bool, cases."""
    with np.load(folder / "slices.npz") as packed:
        levels = packed["high"].astype(np.int16) << 8 | packed["low"]
        images = np.moveaxis(levels, 1, -1).astype(np.float32) / float(packed["levels"])
        labels = packed["labels"]
        brain = np.unpackbits(packed["brain"], axis=-1, count=labels.shape[-1]).astype(bool)
        return {"images": np.ascontiguousarray(images), "labels": labels, "brain": brain,
                "cases": packed["cases"]}


def write(folder: Path, name: str, told: dict[str, Any], arrays: list[np.ndarray],
          losses: list[float]) -> None:
    """Write what has been trained: kernels as the two bytes of a bfloat16, the rest as it is."""
    found: dict[str, Any] = {"told": json.dumps({"job": told["job"], "arrays": len(arrays),
                                                 **{key: told[key] for key in ("back", "names")
                                                    if key in told}}),
                             "losses": np.array(losses, np.float32)}
    for number, array in enumerate(arrays):
        if array.ndim < 2:
            found[f"v{number}"] = array
            continue
        bits = array.view(np.uint32).astype(np.uint64)
        # To the nearest, of two the even one.
        bits = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        found[f"h{number}"] = (bits >> 8).astype(np.uint8)
        found[f"l{number}"] = (bits & 0xff).astype(np.uint8)
    (folder / "done").mkdir(exist_ok=True)
    temporary = folder / "done" / f".{name}.npz"
    np.savez_compressed(temporary, **found)
    temporary.rename(folder / "done" / f"{name}.npz")


def without_copies(module: bytes) -> bytes:
    """The module without TensorFlow's `mhlo.copy`, which not every runtime knows; it does nothing.
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    def strip(block: ir.Block) -> None:
        for found in list(block.operations):
            operation = found.operation
            for region in operation.regions:
                for inner in region.blocks:
                    strip(inner)
            if operation.name == "mhlo.copy":
                operation.results[0].replace_all_uses_with(operation.operands[0])
                operation.erase()

    with mlir.make_ir_context() as context, ir.Location.unknown():
        whole = stablehlo.deserialize_portable_artifact(context, module)
        whole = whole if isinstance(whole, ir.Module) else ir.Module.parse(whole)
        strip(whole.body)
        return stablehlo.serialize_portable_artifact(whole, stablehlo.get_minimum_version())


class Runtime:
    """JAX as a runtime for StableHLO programs."""

    def __init__(self) -> None:
        import jax

        jax.config.update("jax_enable_x64", True)
        from jax._src.lib import xla_client
        from jax.extend import backend

        self._jax, self._client, self._xla = jax, backend.get_backend(), xla_client
        self.device = jax.devices()[0]

    def describe(self) -> str:
        return f"JAX {self._jax.__version__} on {self.device.device_kind}"

    def peak_gib(self) -> float:
        """The most memory of the device that arrays and programs took at once so far."""
        return (self.device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30

    def put(self, array: Any) -> Any:
        """An array on the device."""
        return self._jax.device_put(np.asarray(array), self.device)

    def compile(self, module: bytes) -> Any:
        return self._client.compile_and_load(without_copies(module),
                                             self._xla.DeviceList((self.device,)),
                                             self._xla.CompileOptions())

    def run(self, program: Any, arguments: list[Any]) -> list[Any]:
        """The results, which may still be worked out."""
        found = program.execute_sharded(arguments)
        return [each[0] for each in found.disassemble_into_single_device_arrays()]

    def wait(self, arrays: list[Any]) -> None:
        """Wait until arrays are worked out."""
        self._jax.block_until_ready(arrays)


class Programs(Runtime):
    """Training steps, each compiled once, and the slices on the device."""

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder
        slices = read_slices(folder)
        self._slices = [self.put(slices["images"]), self.put(slices["labels"].astype(np.int32)),
                        self.put(slices["brain"])]
        self._pool = [array for _, array in sorted(
            ((int(key[4:]), array) for key, array in np.load(folder / "pool.npz").items()))]
        self._compiled: dict[str, Any] = {}

    def compiled(self, name: str) -> Any:
        if name not in self._compiled:
            begun = time.time()
            self._compiled[name] = self.compile((self._folder / name).read_bytes())
            print(f"{name}: compiled in {time.time() - begun:.1f} s", flush=True)
        return self._compiled[name]

    def value(self, recipe: list[Any]) -> Any:
        if recipe[0] == "zeros":
            return self.put(np.zeros(recipe[1], recipe[2]))
        array = self._pool[recipe[1]]
        return self.put(array if recipe[2] == 1 else array * np.float32(recipe[2]))

    def train(self, name: str, told: dict[str, Any], steps: int) -> None:
        program = self.compiled(told["program"])
        with np.load(self._folder / f"{name}.npz") as packed:
            donors, places = packed["donors"], packed["places"]
        filled = np.zeros(len(self._slices[1]), np.int32)
        filled[:len(donors)] = donors
        fixed = [*self._slices, self.put(filled), self.put(np.int32(len(donors)))]
        values = [self.value(recipe) for recipe in told["inputs"]]
        losses, begun = [], time.time()
        for step in range(1, steps + 1):
            loss, *found = self.run(
                program, [*fixed, self.put(places[step - 1]), self.put(np.int32(step)), *values])
            losses.append(loss)
            for place, array in zip(told["outputs"], found, strict=True):
                values[place] = array
            if step % 8 == 0:
                # Not too many steps may wait for the device, each with its own results.
                self.wait([loss])
            if step % 500 == 0 or step in (5, 50) or step == steps:
                print(f"{name} {step}/{steps} loss {float(losses[-1]):.4f} "
                      f"{(time.time() - begun) / step * 1e3:.2f} ms a step", flush=True)
        back = [np.asarray(values[place]) for place in told["back_places"]]
        write(self._folder, name, told, back, [float(loss) for loss in losses])


def train_peer(folder: Path, name: str, told: dict[str, Any], steps: int, slices: dict[str, Any],
               workers: int) -> None:
    import torch
    import unet

    cases = []
    for case in told["cases"]:
        own = slices["cases"] == case
        cases.append((slices["images"][own].astype(np.float16), slices["labels"][own]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = unet.Training(cases, told["classes"], told["steps"], told["seed"],
                             told["precision"], device)

    class Batches(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return steps

        def __getitem__(self, number: int) -> Any:
            return training.slices.batch(number)

    losses, begun = [], time.time()
    for batch in torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=workers):
        losses.append(training.step(batch))
        if training.done % 200 == 0 or training.done in (5, 50, steps):
            print(f"{name} {training.done}/{steps} loss {float(losses[-1]):.4f} "
                  f"{(time.time() - begun) / training.done * 1e3:.2f} ms a step", flush=True)
    # The state has a name for each way to a tensor; the network's parameters are each one's first.
    state = dict(training.network.named_parameters())
    write(folder, name, {**told, "names": list(state)},
          [tensor.detach().float().cpu().contiguous().numpy() for tensor in state.values()],
          [float(loss) for loss in losses])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--steps", type=int, help="stop after so many, to try it")
    parser.add_argument("--workers", type=int, default=8, help="processes that vary slices")
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    programs = slices = None
    for job in given.jobs:
        name = job.replace("/", "-")
        told = json.loads((given.folder / f"{name}.json").read_text(encoding="utf-8"))
        steps = given.steps or told["steps"]
        if "program" in told:
            programs = programs or Programs(given.folder)
            programs.train(name, told, steps)
        else:
            slices = slices or read_slices(given.folder)
            train_peer(given.folder, name, told, steps, slices, given.workers)


if __name__ == "__main__":
    main()
