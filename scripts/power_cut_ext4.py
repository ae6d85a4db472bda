"""A real file system, whose disk is copied while `train` writes: as a power cut would leave it.

    sudo python scripts/power_cut_ext4.py [--copies 10] [--resumes 2]

Makes an ext4 in a file, mounts it, and trains into it. COPIES times the training is held (SIGSTOP)
and the file is copied: what the kernel had not written yet is missing in the copy. Each copy is
then mounted, which replays its journal. `pixelnet-tf check` must find no damage, and the last state
must not be older than the one that stood in `state.json` when the copy was taken. RESUMES of them
are gone on with to the end, which must have the weights of the training that nobody disturbed.

Needs root, and a kernel that lends loop devices: exit code 77 where it has none.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from power_cuts import TINY, call, damage, outcome

STEPS = ("--set=training.steps=150", "--set=training.checkpoint_every=3",
         "--set=training.validate_every=50")


def mount(image: Path, folder: Path) -> bool:
    """Mount a file; says whether that could be done."""
    folder.mkdir(exist_ok=True)
    return subprocess.run(["mount", "-o", "loop", image, folder], check=False,
                          capture_output=True).returncode == 0


def last_step(run: Path) -> int:
    """Step of the last state that `state.json` names; 0 where there is none."""
    try:
        return json.loads((run / "checkpoints" / "state.json").read_text())["last"]["step"]
    except (OSError, KeyError, ValueError):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--resumes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, faults = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        disk, image = top / "disk", top / "disk.img"
        with open(image, "wb") as file:
            file.truncate(96 << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        if not mount(image, disk):
            print("no loop device can be mounted here")
            sys.exit(77)
        try:
            call(["phantom", "{0}/study", "--cases=4", "--seed=1", "--size", "30", "28", "16"], top)
            call(["prepare", "--config=phantom", *TINY, "--data={0}/study", "--out={0}/prepared",
                  "--workers=1"], top)
            command = ["train", "--config=phantom", *TINY, *STEPS, f"--data={top}/prepared"]
            train = subprocess.Popen(
                [sys.executable, "-m", "pixelnet_tf", *command, f"--out={disk}/run"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            copies: list[tuple[Path, int]] = []
            while train.poll() is None:
                if len(copies) < options.copies and last_step(disk / "run"):
                    time.sleep(rng.uniform(0.0, 0.7))
                    acknowledged = last_step(disk / "run")
                    train.send_signal(signal.SIGSTOP)
                    copy = top / f"copy{len(copies)}.img"
                    subprocess.run(["cp", "--sparse=always", image, copy], check=True)
                    train.send_signal(signal.SIGCONT)
                    copies.append((copy, acknowledged))
                time.sleep(0.01)
            if train.returncode:
                faults.append(f"train ended with {train.returncode}")
            right = outcome(disk / "run")
            resumed = 0
            for number, (copy, acknowledged) in enumerate(copies):
                there = top / f"mounted{number}"
                if not mount(copy, there):
                    faults.append(f"{copy.name}: cannot be mounted")
                    continue
                try:
                    run, found = there / "run", last_step(there / "run")
                    wrong = [*damage(run)]
                    if found < acknowledged:
                        wrong.append(f"step {acknowledged} was acknowledged, {found} is there")
                    if number % max(1, len(copies) // max(1, options.resumes)) == 0 \
                            and resumed < options.resumes:
                        resumed += 1
                        call([*command, f"--out={run}", "--resume"], top)
                        now = outcome(run)
                        wrong += [f"differs: {path}" for path in sorted({*now, *right})
                                  if now.get(path) != right.get(path)]
                    print(f"copy {number}: step {acknowledged} acknowledged, {found} there, "
                          f"{len(wrong)} faults", flush=True)
                    faults += [f"copy {number}: {fault}" for fault in wrong]
                finally:
                    subprocess.run(["umount", there], check=True)
        finally:
            subprocess.run(["umount", disk], check=True)
    for fault in faults:
        print(fault)
    print(f"{len(copies)} copies of an ext4 while train ran, {resumed} gone on with: "
          f"{len(faults)} faults")
    sys.exit(bool(faults) or not copies)


if __name__ == "__main__":
    main()
