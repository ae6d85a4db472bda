"""Write docs/plans.md: what `pixelnet-tf plan` says of some studies, and a picture of the first.

    python scripts/show_plans.py NAME=FOLDER ... [-- OPTION ...]
    python scripts/show_plans.py

Each NAME is a heading; OPTIONs of the verb hold for all folders. Times are those of the machine
that it is run on. Without a study only the picture is drawn, of what the page says.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

TARGET = Path(__file__).resolve().parents[1] / "docs" / "plans.md"
PICTURE = TARGET.parent / "images" / "plan.svg"
#: Columns of the terminal in the picture; longer lines are broken.
_COLUMNS = 140
HEAD = """# What plan says

Made by `scripts/show_plans.py`: the terminal's text of `pixelnet-tf plan`, word for word. Found,
chosen with the reason of each choice, expected. The YAML file that `--out` writes has the same
reasons as comments. How to read and overrule it: [own_data.md](own_data.md#a-plan).

![The first of these plans in a terminal](images/plan.svg)
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
    if studies:
        TARGET.write_text(text, encoding="utf-8")
    draw()


def draw() -> None:
    """Draw the first plan of the page as it stands in a terminal."""
    _, text, *_ = re.split(r"```(?:text)?\n", TARGET.read_text(encoding="utf-8"))
    console = Console(record=True, width=_COLUMNS, file=io.StringIO())
    console.print(Text("$ pixelnet-tf plan STUDY", style="bold green"))
    for line in text.splitlines():
        words = Text(line)
        if line.startswith(("found", "preset", "expected")):
            words.stylize("bold yellow")
        elif key := re.match(r"  [a-z_]+\.[a-z_.0-9]+", line):
            words.stylize("cyan", 0, key.end())
        elif line.startswith("note"):
            words.stylize("magenta")
        console.print(words)
    svg = console.export_svg(title="pixelnet-tf plan", theme=MONOKAI)
    # The picture loads no font from elsewhere.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
