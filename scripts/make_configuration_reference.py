"""Write docs/configuration.md from the comments of the configuration's schema.

    python scripts/make_configuration_reference.py [--check]

The `#:` above a field of the sections in pixelnet_tf/config/ is its text, a last `[...]` its
source, the class's docstring the text of its section. With --check nothing is written; exit code 1
says that the file is out of date.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import yaml

from pixelnet_tf.config import Config, config_to_dict

TARGET = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
_FIELD = re.compile(r"^    (\w+): ")
_SOURCE = re.compile(r"\s*\[([^\[\]]+)\]$")
_PAGE = re.compile(r"\bsee (\w+\.md)")

INTRODUCTION = """\
# Configuration

<!-- Written by scripts/make_configuration_reference.py from pixelnet_tf/config/. -->

One YAML file describes a study and its training. Every key has a default, so that a file holds
only what differs; `configs/` has one for `phantom`, `brats2017`, `isles2017` and `lgg`.

```
pixelnet-tf prepare --config brats2017 --print-config
pixelnet-tf train --config mine.yaml --set training.steps=2000 --set sampling.strategy=uniform \\
    --data PREPARED --out RUN --dry-run
```

`--set section.key=value` takes its value in YAML (`--set 'study.modalities=[flair, t1ce]'`) and may
be repeated. `--print-config` prints what counts in the end, `--dry-run` checks everything and
changes nothing. An unknown key, a wrong type or a value outside the allowed set is an error (exit
code 2) that names the nearest known key. The resolved configuration is saved with every prepared
study (whose `study` and `prepare` sections `train` takes over), every run and every export.

In the column *source*, *paper* is Class-Balanced PixelNet (Islam and Ren, 2018) with its section,
*original* the authors' Caffe code of PixelNet and its files. A key without one is this project's
own.
"""


def configuration_reference() -> str:
    """The whole text of docs/configuration.md."""
    return "\n".join([INTRODUCTION, *_section(Config, "")]).rstrip() + "\n"


def _section(cls: type, path: str) -> Iterator[str]:
    """Markdown of a section and of the sections in it, in the order of the schema."""
    hints, comments = typing.get_type_hints(cls), field_comments(cls)
    nested = [f.name for f in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[f.name])]
    if path:
        yield f"## {path}\n\n{inspect.getdoc(cls).splitlines()[0]}\n"
        yield "| key | default | meaning | source |\n|---|---|---|---|"
        for field in dataclasses.fields(cls):
            if field.name not in nested:
                text, source = comments[field.name]
                default = _default(field).replace("|", "\\|")
                yield f"| `{field.name}` | `{default}` | {text} | {source} |"
        yield ""
    for name in nested:
        yield from _section(hints[name], f"{path}.{name}".lstrip("."))


def field_comments(cls: type) -> dict[str, tuple[str, str]]:
    """Field -> (meaning, source) of a dataclass, from the `#:` lines above each field.

    A field that holds a section needs none. Raises `ValueError` for one without a comment.
    """
    found, lines, hints = {}, [], typing.get_type_hints(cls)
    for line in inspect.getsource(cls).splitlines():
        field = _FIELD.match(line)
        if line.startswith("    #:"):
            lines.append(line.removeprefix("    #:").strip())
        elif field and field[1] in hints:
            if not lines and not dataclasses.is_dataclass(hints[field[1]]):
                raise ValueError(f"{cls.__name__}.{field[1]} has no `#:` comment")
            text = " ".join(lines)
            source = _SOURCE.search(text)
            meaning = _PAGE.sub(r"see [\1](\1)", _SOURCE.sub("", text)).replace("|", "\\|")
            found[field[1]] = (meaning, source[1] if source else "")
            lines = []
        elif not line.startswith("        "):
            lines = []
    return found


def _default(field: dataclasses.Field) -> str:
    """A default as one line of YAML."""
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    value = config_to_dict(dataclasses.make_dataclass("Holder", ["value"])(value))["value"]
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    text = configuration_reference()
    if parser.parse_args().check:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
        print("up to date" if same else f"{TARGET} is out of date: run this script")
        return int(not same)
    temporary = TARGET.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(TARGET)
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
