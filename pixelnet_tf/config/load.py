"""YAML, `--set` overrides and dictionaries to a checked `Config`, and back."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pixelnet_tf.config.sections import Choice, Config
from pixelnet_tf.errors import ConfigError, DataError, shown
from pixelnet_tf.io.files import read_text
from pixelnet_tf.io.plain import PlainError, build

#: The built-in files: `configs/` beside the package in a checkout, inside it once installed.
_ROOMS = (Path(__file__).parents[2] / "configs", Path(__file__).parents[1] / "configs")
#: A whole number, as text.
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
#: The key `<<`, which lays another mapping under this one.
_MERGE = "tag:yaml.org,2002:merge"
#: Of a YAML text (the largest of ours has 2,300), of one number in it, and its values with every
#: alias written out.
MAX_CHARACTERS, MAX_DIGITS, MAX_VALUES = 1 << 18, 100, 100_000
BUILT_IN = next((room for room in _ROOMS if (room / "phantom.yaml").is_file()), Path("configs"))


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration and apply overrides.

    Parameters
    ----------
    path
        A YAML file, or the name of a built-in one ("phantom", "brats2017", "isles2017", "lgg");
        None gives the defaults.
    overrides
        Strings of the form "section.key=value", the value in YAML.

    Raises
    ------
    ConfigError
        A missing file, a YAML syntax error, an unknown key (the nearest known one is named), a
        wrong type or a value outside the allowed set.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> config = px.load_config("lgg", ["sampling.strategy=uniform"])
    >>> config.study.modalities
    ('flair', 't1', 't1ce')
    >>> config.sampling.pixels
    2000
    """
    tree = _read(_locate(path)) if path is not None else {}
    source: str | Path = "the defaults" if path is None else path
    if os.path.isfile(source):
        source = Path(source)
    for override in overrides:
        _apply(tree, override)
    return config_from_dict(tree, source=source)


def check_network_named(path: str | Path | None, overrides: Iterable[str] = ()) -> None:
    """See whether a configuration says what is to be trained; the defaults are hardly meant.

    They are the paper's network with random weights, 174 million of them, and 80 epochs.

    Raises:
        ConfigError: it has neither a section `model` nor `training`, and no override is of them.
    """
    tree = _read(_locate(path)) if path is not None else {}
    for override in overrides:
        _apply(tree, override)
    if not {"model", "training"} & tree.keys():
        config = "" if path is None else f" --config {path}"
        raise ConfigError(
            "says nothing of the network and its training, and the defaults are the paper's: 174 "
            "million weights from random, 80 epochs, days without a graphics card",
            file=path or "the configuration",
            hint=f"let `pixelnet-tf plan STUDY{config} --out mine.yaml` propose what fits the "
                 "study and this machine, or add `training: {epochs: 80}` where the defaults are "
                 "meant")


def as_config(config: Config | str | os.PathLike[str] | None, overrides: Sequence[str] = ()
              ) -> Config:
    """A configuration from an object, a YAML file or a built-in name, with overrides on top.

    None stands for the defaults, which are BraTS'.
    """
    if isinstance(config, Config):
        return config_from_dict(config_to_dict(config), overrides=overrides)
    return load_config(None if config is None else os.fspath(config), overrides)


def config_from_dict(tree: dict[str, Any], source: str | Path = "the configuration",
                     overrides: Iterable[str] = ()) -> Config:
    """Build a checked `Config` from nested dictionaries, as `config_to_dict` gives them.

    `overrides` are strings as `load_config` takes them; `tree` itself stays as it is.
    """
    tree = copy.deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    try:
        return build(Config, tree, yaml=True)
    except (ConfigError, PlainError) as error:
        raise ConfigError.of(error, source=source) from None


def config_from_yaml(text: str, source: str | Path) -> Config:
    """Build a checked `Config` from a YAML file's text; raises `ConfigError`."""
    return config_from_dict(yaml_tree(text, source), source)


def yaml_tree(text: str, source: str | Path) -> dict[str, Any]:
    """The sections that a YAML file's text holds; raises `ConfigError`."""
    try:
        tree = parse_yaml(text)
    except Exception as error:  # PyYAML's constructors raise almost any class.
        raise ConfigError.of(ConfigError(f"cannot be read as YAML: {error}"),
                             source=source) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError.of(ConfigError(
            f"must hold sections such as `study:`, got {shown(tree)}", value=tree), source=source)
    return tree


def parse_yaml(text: str) -> Any:
    """What YAML says, plain values only.

    Raises:
        Exception: almost any class: PyYAML's own, and ValueError for a text that unfolds to far
            more than it is, or in which a key stands twice.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters, a configuration at most "
                         f"{MAX_CHARACTERS:,}")
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_size(root)
        _check_keys(loader, root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Raise ValueError for numbers without end, and where aliases make a value too large, or part
    of itself.

    An alias stands for its value wherever it is read: nine of nine of nine values are thousands of
    millions after ten lines.
    """
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
                raise ValueError(f"the number on line {node.start_mark.line + 1} has "
                                 f"{len(node.value):,} digits")
            return 1
        if id(node) in open_nodes:
            raise ValueError(f"the value on line {node.start_mark.line + 1} holds itself")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            children = (itertools.chain(*node.value) if isinstance(node, yaml.MappingNode)
                        else node.value)
            sizes[id(node)] = 1 + sum(map(size, children))
            open_nodes.discard(id(node))
            if sizes[id(node)] > MAX_VALUES:
                raise ValueError(f"the aliases on line {node.start_mark.line + 1} unfold to more "
                                 f"than {MAX_VALUES:,} values; write them out")
        return sizes[id(node)]

    size(root)


def _check_keys(loader: yaml.SafeLoader, root: yaml.Node) -> None:
    """Raise ValueError for a key that stands twice in a mapping: PyYAML takes the last one alone.

    Keys are compared by what they say: 1 and 0x1 are the same label.
    """
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.ScalarNode) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        lines: dict[Any, int] = {}
        for key, value in node.value:
            nodes.append(value)
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            found, line = loader.construct_object(key), key.start_mark.line + 1
            if found in lines:
                raise ValueError(f"the key {shown(found)} stands on line {lines[found]} and again "
                                 f"on line {line}; join the two, or remove one")
            lines[found] = line


def config_from_json(tree: dict[str, Any], source: str | Path = "the configuration",
                     overrides: Iterable[str] = ()) -> Config:
    """Build a `Config` from what `config_to_json` gave, after its way through a JSON file.

    JSON has no other keys than strings: label values get their type back here, nowhere else.
    """
    return config_from_dict(_restore_keys(Config, tree), source, overrides)


def config_to_json(config: Any) -> dict[str, Any]:
    """Turn a `Config` (or a section) into what a JSON file holds, keys as text."""
    return _text_keys(config_to_dict(config))


def config_to_dict(config: Any) -> dict[str, Any]:
    """Turn a `Config` (or a section) into plain dictionaries, lists and scalars."""
    return _plain(dataclasses.asdict(config))


def config_to_yaml(config: Any) -> str:
    """Render a `Config` (or a section) as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, default_flow_style=None)


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


def _restore_keys(hint: Any, value: Any) -> Any:
    """Turn text keys into integers wherever the schema has integer keys."""
    if not isinstance(value, dict):
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return {key: _restore_keys(hints.get(key), item) for key, item in value.items()}
    if typing.get_origin(hint) is dict and typing.get_args(hint)[0] is int:
        return {int(key) if isinstance(key, str) and _WHOLE.fullmatch(key) else key: item
                for key, item in value.items()}
    return value


def _locate(path: str | Path) -> Path:
    given = Path(path)
    if given.is_file():
        return given
    built_in = BUILT_IN / f"{given.name.removesuffix('.yaml')}.yaml"
    if given.parent in (Path("."), Path("configs")) and built_in.is_file():
        return built_in
    known = sorted(p.stem for p in BUILT_IN.glob("*.yaml"))
    raise ConfigError("the configuration file does not exist", file=path,
                      hint=f"give the path of a YAML file or one of the built-in names {known}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return yaml_tree(read_text(path), path)
    except DataError as error:
        raise ConfigError.of(error) from None


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set takes section.key=value, got {override!r}", value=override)
    try:
        value = parse_yaml(text)
    except Exception as error:  # As in `yaml_tree`.
        raise ConfigError(f"--set {override}: the value is not YAML: {error}",
                          value=text) from None
    node: dict[Any, Any] = tree
    for part in parts[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {part!r} is a value, not a section",
                              value=part)
    leaf = parts[-1]
    node[int(leaf) if _WHOLE.fullmatch(leaf) else leaf] = value
