"""Write docs/plans.md: what `pixelnet-tf plan` says of some studies.

    python scripts/show_plans.py NAME=FOLDER ... [-- OPTION ...]

Each NAME is a heading; OPTIONs of the verb hold for all folders. Times are those of the machine
that it is run on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "docs" / "plans.md"
HEAD = """# What plan says

Made by `scripts/show_plans.py`: the terminal's text of `pixelnet-tf plan`, word for word. Found,
chosen with the reason of each choice, expected. The YAML file that `--out` writes has the same
reasons as comments. How to read and overrule it: [own_data.md](own_data.md#a-plan).
"""


def main(arguments: list[str]) -> None:
    """Plan each folder, and write all that was said."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    studies, options = arguments[:place], arguments[place + 1:]
    text = HEAD
    for study in studies:
        name, _, folder = study.partition("=")
        done = subprocess.run([sys.executable, "-m", "pixelnet_tf", "--quiet", "plan", folder,
                               *options], capture_output=True, text=True, check=True)
        said = done.stdout.replace(folder, name.replace(" ", "_"))
        text += f"\n## {name}\n\n```text\n{said}```\n"
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
