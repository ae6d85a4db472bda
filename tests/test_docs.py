"""The documentation against the product: commands, options, links, and the generated page."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import linecache
import os
import re
import runpy
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
import yaml

import pixelnet_tf
from pixelnet_tf.cases.parts import Part
from pixelnet_tf.cli import VERBS, cli
from pixelnet_tf.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands_in(text: str) -> list[str]:
    """Every `pixelnet-tf ...` of a page: lines of fenced blocks (joined at `\\`), and in text."""
    found = []
    for block in _FENCED.findall(text):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            line = line.strip().removeprefix("$ ")
            if line.startswith("pixelnet-tf "):
                found.append(line)
    found += re.findall(r"`(pixelnet-tf [^`]+)`", _FENCED.sub("", text))
    return [" ".join(command.split()) for command in found]


def fault_of(command: str) -> str:
    """What is wrong with a command line, as click sees it; nothing is run."""
    words = shlex.split(command, comments=True)[1:]
    words = words[:words.index("|")] if "|" in words else words
    context = click.Context(cli, info_name="pixelnet-tf")
    if words[0].startswith("-"):
        names = {name for option in cli.get_params(context) for name in option.opts}
        return "" if words[0] in names else f"no option {words[0]}"
    if words[0] not in VERBS:
        return f"no verb {words[0]!r}"
    verb = cli.get_command(context, words[0])
    known = {name: option for option in verb.get_params(context) for name in
             (*option.opts, *option.secondary_opts)}
    for word in words[1:]:
        name = word.partition("=")[0]
        if name.startswith("-") and name not in known:
            return f"{words[0]} has no option {name}"
    if "..." in words or "..." in words[-1] or len(words) == 1 or "--help" in words:
        return ""  # a fragment that names options, not a whole call
    try:
        verb.make_context(words[0], words[1:], resilient_parsing=False)
    except click.exceptions.Exit:
        return ""
    except click.ClickException as error:
        return error.format_message()
    return ""


ALL = [(page.name, command) for page in PAGES for command in commands_in(page.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{p}: {c}"[:90] for p, c in ALL])
def test_commands_parse(page, command):
    assert fault_of(command) == ""


@pytest.mark.parametrize(("command", "fault"), [
    ("pixelnet-tf trian --data x", "no verb 'trian'"),
    ("pixelnet-tf train --dta x", "train has no option --dta"),
    ("pixelnet-tf train --data x", "Missing option '--out'."),
    ("pixelnet-tf phantom OUT --cases none", "none"),
])
def test_a_wrong_command_is_found(command, fault):
    assert fault in fault_of(command)


def test_commands_are_found_in_blocks_and_text():
    text = "Run `pixelnet-tf train --help`.\n```\npixelnet-tf train \\\n    --data x\nls\n```\n"
    assert commands_in(text) == ["pixelnet-tf train --data x", "pixelnet-tf train --help"]
    assert {name for name, _ in ALL} >= {"caffe.md", "own_data.md", "training.md", "tutorial.md",
                                         "README.md"}


def test_an_answer_is_saved_only_if_it_is_one():
    """curl without --fail would write the text of a 503 into the file that is asked for."""
    calls = [" ".join(call.split()) for page in PAGES for block in
             _FENCED.findall(page.read_text("utf-8")) for call in
             re.sub(r"\\\n", " ", block).splitlines() if call.strip().startswith("curl ")]
    saved = [call for call in calls if re.search(r" (-o|--output|>) ", call)]
    assert saved
    for call in saved:
        assert re.search(r" (--fail|--fail-with-body|-f) ", call), call


def test_overrides_name_known_keys():
    """Every `--set KEY=VALUE` of the pages is taken by the configuration."""
    for page, command in ALL:
        words = shlex.split(command, comments=True)
        values = [word for before, word in itertools.pairwise(words) if before == "--set"]
        try:
            load_config(None, [value for value in values if "..." not in value])
        except Exception as error:
            pytest.fail(f"{page}: {command}: {error}")


def extras() -> dict[str, list[str]]:
    """The extras of setup.py, by running it without setuptools."""
    found = {}
    stand_in = types.SimpleNamespace(setup=lambda **given: found.update(given),
                                     find_packages=lambda **given: [])
    before = sys.modules.get("setuptools")
    sys.modules["setuptools"] = stand_in
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        sys.modules.pop("setuptools")
        if before is not None:
            sys.modules["setuptools"] = before
    return found["extras_require"]


def test_what_is_to_be_installed_can_be():
    """The project is on no index, so an extra is installed from its folder; it must be there."""
    known = extras()
    named = set()
    for path in [*PAGES, *(path for folder in ("pixelnet_tf", "prototxt_import", "scripts", "tests")
                           for path in (ROOT / folder).rglob("*.py")), *ROOT.glob("scripts/*.sh")]:
        text = path.read_text("utf-8")
        assert not re.search(r"pip install ['\"]?pixelnet", text), path
        named |= {extra for extras_ in re.findall(r"""pip install ['"]\.\[([\w,-]+)\]""", text)
                  for extra in extras_.split(",")}
        named |= set(re.findall(r'require\("[^"]+", "([\w-]+)"', text))
    assert {"report", "serve", "onnx", "tensorboard", "all"} <= named <= set(known)


def test_all_is_every_extra_of_a_user():
    known = extras()
    of_users = {requirement for name in ("report", "serve", "hdf5", "onnx", "tensorboard",
                                                "dicom", "cluster", "cloud")
                for requirement in known[name]}
    assert set(known["all"]) == of_users
    rows = re.findall(r"^\| (`[^|]+`) \|", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    # `all` stands above the table; TensorFlow Serving's own messages are for tests alone.
    assert set(known) - {"all", "test-serving"} <= listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    """Paths in backquotes that begin with a folder of this project, `*` and <names> aside."""
    text = page.read_text("utf-8")
    named = set(re.findall(r"`((?:pixelnet_tf|prototxt_import|tests|scripts|docs|configs|examples)"
                           r"/[\w./-]*)`", text))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_what_is_to_be_copied_is_there():
    """Names and bare file names in the lists of CONTRIBUTING.md that say how a part is added."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    steps = [section for section in re.split(r"^## ", text, flags=re.MULTILINE)
             if section.startswith("To add ")]
    assert [section.splitlines()[0] for section in steps] == [
        "To add a Caffe layer", "To add a layout of studies", "To add a protocol of scores"]
    paths = [path for folder in ("pixelnet_tf", "prototxt_import", "tests")
             for path in (ROOT / folder).rglob("*.py")]
    written = "\n".join(path.read_text("utf-8") for path in paths)
    names = set(re.findall(r"`(\w+(?:\.py)?)`", "".join(steps)))
    assert {"MVNParams", "reductions.py", "_brats", "test_brats_by_hand"} <= names
    for name in names:
        if name.endswith(".py"):
            assert name in {path.name for path in paths}, name
        else:
            assert re.search(rf"^ *(?:def |class )?{name}\b", written, re.MULTILINE), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    text = _FENCED.sub("", page.read_text("utf-8"))
    for target in _LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors_of(file.read_text("utf-8")), f"{page.name}: {target}"


def anchors_of(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def generator():
    path = ROOT / "scripts" / "make_configuration_reference.py"
    spec = importlib.util.spec_from_file_location("make_configuration_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_up_to_date(generator):
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert text == generator.configuration_reference(), f"out of date: run {generator.__file__}"


def test_comments_of_fields(generator, tmp_path, monkeypatch):
    source = tmp_path / "schema_of_test.py"
    monkeypatch.syspath_prepend(tmp_path)

    def comments(second: str) -> dict[str, tuple[str, str]]:
        source.write_text(
            "import dataclasses\n\n@dataclasses.dataclass\nclass Section:\n    '''One.'''\n\n"
            "    #: First,\n    #: in two lines (see caffe.md). [paper 2]\n    one: int = 1\n"
            f"{second}    two: int = 2\n")
        linecache.clearcache()
        monkeypatch.delitem(sys.modules, "schema_of_test", raising=False)
        importlib.invalidate_caches()
        return generator.field_comments(importlib.import_module("schema_of_test").Section)

    with pytest.raises(ValueError, match=r"Section\.two has no"):
        comments("")
    assert comments("    #: Second a|b.\n") == {
        "one": ("First, in two lines (see [caffe.md](caffe.md)).", "paper 2"),
        "two": (r"Second a\|b.", "")}


def test_every_page_and_example_stands_in_the_sites_contents():
    """What no list of contents leads to is not found by a reader."""
    text = (ROOT / "docs" / "conf.py").read_text("utf-8")
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in PAGES}
    assert pages - {"README"} <= set(re.findall(r'"([\w/]+)"', text))
    order = (ROOT / "docs" / "gallery_parts.py").read_text("utf-8")
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(
        re.findall(r'"(\w+\.py)"', order))


def containers_of(page: Path) -> list[tuple[str, int, list[str]]]:
    """Of each Job for Kubernetes on a page: its name, its number of pods, and what each runs."""
    found = []
    for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"),
                           re.MULTILINE | re.DOTALL):
        for tree in yaml.safe_load_all(text):
            if isinstance(tree, dict) and tree.get("kind") == "Job":
                container, = tree["spec"]["template"]["spec"]["containers"]
                found.append((tree["metadata"]["name"], tree["spec"]["completions"],
                              [*container["command"], *container["args"]]))
    return found


def test_the_reference_has_every_public_name():
    text, _, _ = (ROOT / "docs" / "reference.md").read_text("utf-8").partition("pixelnet_tf.api")
    assert set(re.findall(r"^    (\w+)$", text, re.MULTILINE)) == (
        {*pixelnet_tf.__all__} - {"__version__"})


def test_each_pod_of_a_job_calls_its_own_part_or_worker(tmp_path):
    """Every one does, with the number that Kubernetes gives it."""
    program = tmp_path / "pixelnet-tf"
    program.write_text('#!/bin/sh\necho "$@"\necho "$TF_CONFIG"\n')
    program.chmod(0o755)
    called = {}
    for name, count, command in containers_of(ROOT / "docs" / "scale.md"):
        for number in range(count):
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={
                **os.environ, "JOB_COMPLETION_INDEX": str(number),
                "PATH": f"{tmp_path}:{os.environ['PATH']}"})
            words, _, told = done.stdout.partition("\n")
            called[name, number] = words, told
        assert fault_of(f"pixelnet-tf {words}") == ""
    parts = [words.partition("--part ")[2] for (name, _), (words, _) in called.items()
             if name == "prepare"]
    assert parts == [str(Part(number, 16)) for number in range(1, 17)]
    workers = [json.loads(told) for (name, _), (_, told) in called.items() if name == "train"]
    assert workers == [{"cluster": {"worker": ["train-0.train:2222", "train-1.train:2222"]},
                        "task": {"type": "worker", "index": number}} for number in range(2)]
