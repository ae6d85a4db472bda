"""A trained model as one file to hand on: networks, configurations, decisions, digests, a card.

A zip archive with `pack.json` (what it holds, and the SHA-256 of every file), `model_card.md`, and
for each network a folder with config.yaml, model.keras, priors.json and decisions.json, where there
is one. No name of a case and no path of the training's machine goes out with it.

The file need not be trusted. Only members of these names are taken, each into a folder of this
program; their sizes are bounded by that of the file; nothing in it is made or called, and its
models pass the checks of `load_model`.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import shutil
import weakref
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import tensorflow as tf

from pixelnet_tf import __version__
from pixelnet_tf.config import config_to_yaml
from pixelnet_tf.errors import DataError, ModelError
from pixelnet_tf.io.files import check_written, file_digest, replacing
from pixelnet_tf.io.plain import PlainError, build
from pixelnet_tf.io.scratch import scratch_folder
from pixelnet_tf.runs.decisions import Decisions
from pixelnet_tf.runs.folder import RunFolder

PACK_FILE, CARD_FILE = "pack.json", "model_card.md"
FORMAT = 1
#: Of every member, so that the same runs give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_NETWORK = re.compile(r"(?:network|fold)_(?:0|[1-9][0-9]{0,3})")
_TEXTS = ("config.yaml", "priors.json", "decisions.json")
#: Of the members that are texts; a decision of 13 steps takes 10 KB.
_MAX_TEXT_BYTES, _MAX_NETWORKS = 4 << 20, 100


@dataclass(frozen=True)
class Told:
    """What an export says of a training, which the runs in a pack cannot be asked any more.

    The fields are those of the section `training` in serving.json; `validation` has the scores of
    the weights on validation cases, None without any.
    """

    study: str
    cases: dict[str, int]
    steps: int
    weights_step: int | None
    batch_slices: int
    sampling: str
    pixels_per_slice: int
    class_frequency: dict[str, dict[str, float]]
    validation: dict[str, float] | None = None


@dataclass(frozen=True)
class _File:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class _Pack:
    """What pack.json holds.

    Attributes:
        format: 1.
        networks: the folders of the networks, in the order of the average.
        folds: whether they are all folds of one cross-validation.
        weights: SHA-256 of each network's weights.
        preparation: digest of how images are prepared.
        files: name -> digest and size.
    """

    format: int
    networks: tuple[str, ...]
    folds: bool
    weights: tuple[str, ...]
    preparation: str
    training: Told
    files: dict[str, _File]
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unpacked:
    """A pack's runs in a folder of this program.

    Attributes:
        runs: each as `RunFolder` reads it.
        whole: holds the decisions for the average, where they are folds of one cross-validation.
        told: what was said of the training.
        held: the folder goes with it.
    """

    runs: tuple[RunFolder, ...]
    whole: RunFolder | None
    told: Told
    held: object


def is_pack(path: str) -> bool:
    """Whether a path is that of a pack, by its name or by its first bytes."""
    if path.endswith(".keras") or not Path(path).is_file():
        return path.endswith(".zip")
    with open(path, "rb") as file:
        return path.endswith(".zip") or file.read(4) == b"PK\x03\x04"


def write_pack(runs: Sequence[RunFolder], out: Path, *, folds: bool, decisions: Decisions | None,
               card: str, told: Told, weights: Sequence[str], preparation: str) -> None:
    """Write runs as one file; the same runs give the same bytes.

    Args:
        folds: whether they are those of one cross-validation.
        decisions: those for the average of the folds; None where there are none, or of other ones.
        card: the model card.
        told, weights, preparation: see `_Pack`.

    Raises:
        ModelError: a run has no final model. DataError: a file is not the one that was written.
        RunError: the file cannot be written.
    """
    names = [f"{'fold' if folds else 'network'}_{i}" for i in range(len(runs))]
    texts: dict[str, bytes] = {CARD_FILE: card.encode()}
    models: dict[str, str] = {}
    for name, run in zip(names, runs, strict=True):
        if run.kind is not None or not tf.io.gfile.exists(run.file("model.keras")):
            raise ModelError("the training has not ended, so that there is no final model to pack",
                             file=run.name, hint="let `pixelnet-tf train --resume` finish it")
        check_written(run.file("model.keras"))
        models[f"{name}/model.keras"] = run.file("model.keras")
        config = run.config()
        config = replace(config, split=replace(config.split, file=""), training=replace(
            config.training, initial_weights=config.training.initial_weights
            if config.training.initial_weights in ("random", "imagenet") else "random"))
        texts[f"{name}/config.yaml"] = config_to_yaml(config).encode()
        if tf.io.gfile.exists(run.file("priors.json")):
            texts[f"{name}/priors.json"] = _json(run.priors().to_json())
        if (own := run.decisions()) is not None:
            texts[f"{name}/decisions.json"] = _json(_nameless(own).to_json())
    if folds and decisions is not None:
        texts["decisions.json"] = _json(_nameless(decisions).to_json())
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        files = {}
        for name, source in models.items():
            with archive.open(_member(name, zipfile.ZIP_STORED), "w", force_zip64=True) as target:
                with tf.io.gfile.GFile(source, "rb") as file:
                    shutil.copyfileobj(cast(BinaryIO, file), target, 1 << 20)
            files[name] = _File(file_digest(source), int(tf.io.gfile.stat(source).length))
        for name, data in sorted(texts.items()):
            archive.writestr(_member(name, zipfile.ZIP_DEFLATED), data)
            files[name] = _File(hashlib.sha256(data).hexdigest(), len(data))
        pack = _Pack(FORMAT, tuple(names), folds, tuple(weights), preparation, told,
                     files, {"pixelnet_tf": __version__})
        archive.writestr(_member(PACK_FILE, zipfile.ZIP_DEFLATED), _json(asdict(pack)))


def unpack(path: str) -> Unpacked:
    """Read a pack, and compare every file in it with its SHA-256.

    Raises:
        ModelError: there is no such file, it is none of this program, it is damaged, or it holds
            what no pack has.
    """
    if not Path(path).is_file():
        raise ModelError("no such file", file=path,
                         hint="give the file that `pixelnet-tf pack` wrote")
    held = _Held()
    try:
        with zipfile.ZipFile(path) as archive:
            pack = _checked(archive, Path(path).stat().st_size)
            for name, said in pack.files.items():
                _extract(archive, name, said, held.folder / name)
    except ModelError as error:
        raise ModelError.of(error, file=path) from None
    except (PlainError, DataError) as error:
        raise ModelError.of(error, file=path, hint="fetch it again") from None
    except Exception as error:  # zipfile and zlib raise almost any class.
        raise ModelError(f"cannot be read as a packed model ({error})", file=path,
                         hint="fetch it again, or let `pixelnet-tf pack` write it anew") from None
    runs = []
    for name in pack.networks:
        run = RunFolder(str(held.folder / name))
        run.name = posixpath.join(path, name) if len(pack.networks) > 1 else path
        runs.append(run)
    whole = RunFolder(str(held.folder)) if pack.folds else None
    return Unpacked(tuple(runs), whole, pack.training, held)


class _Held:
    """A folder that is there as long as this object is."""

    def __init__(self) -> None:
        stack = ExitStack()
        self.folder = stack.enter_context(scratch_folder())
        weakref.finalize(self, stack.close)


def _checked(archive: zipfile.ZipFile, most_bytes: int) -> _Pack:
    """What pack.json says, which must be what the archive holds."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if PACK_FILE not in names:
        raise ModelError(f"is no packed model: it holds no {PACK_FILE}",
                         hint="give the file that `pixelnet-tf pack` wrote")
    if len(names) > 2 + 4 * _MAX_NETWORKS or len(set(names)) != len(names):
        raise ModelError(f"holds {len(names)} files, some of them twice, or more than a pack has")
    for member in members:
        _check_member(member, most_bytes)
    tree = json.loads(archive.read(PACK_FILE))
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise ModelError("was packed by a later version", hint="update pixelnet-tf")
    pack = build(_Pack, tree)
    if {*names} != {PACK_FILE, *pack.files}:
        differ = sorted({*names} ^ {PACK_FILE, *pack.files})
        raise ModelError(f"does not hold the files that {PACK_FILE} names: {differ[0]!r}",
                         value=differ[0])
    if not pack.networks or len({*pack.networks}) != len(pack.networks):
        raise ModelError(f"{PACK_FILE} names no network, or one twice")
    for name in pack.networks:
        if not _NETWORK.fullmatch(name) or not {f"{name}/model.keras", f"{name}/config.yaml"} <= {
                *names}:
            raise ModelError(f"lacks the model or the configuration of the network {name!r}",
                             value=name)
    return pack


def _check_member(member: zipfile.ZipInfo, most_bytes: int) -> None:
    """Refuse a member that no pack has, before a byte of it is unpacked."""
    name, size = member.filename, member.file_size
    folder, _, file = name.rpartition("/")
    known = (name in (PACK_FILE, CARD_FILE, "decisions.json") or (
        _NETWORK.fullmatch(folder) and file in (*_TEXTS, "model.keras")))
    if not known:
        raise ModelError(f"holds {name!r}, which no packed model does", value=name)
    if member.flag_bits & 1:
        raise ModelError(f"{name} is encrypted")
    if file == "model.keras":
        if member.compress_type != zipfile.ZIP_STORED or size > most_bytes:
            raise ModelError(f"{name} says to have {size:,} bytes, the whole file has "
                             f"{most_bytes:,}")
    elif size > _MAX_TEXT_BYTES or member.compress_type not in (zipfile.ZIP_STORED,
                                                                zipfile.ZIP_DEFLATED):
        raise ModelError(f"{name} unpacks to {size:,} bytes, more than the {_MAX_TEXT_BYTES:,} "
                         "that such a text may have")


def _extract(archive: zipfile.ZipFile, name: str, said: _File, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    with archive.open(name) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    if target.stat().st_size != said.bytes or file_digest(target) != said.sha256:
        raise ModelError(f"{name} is not the file that was packed: damaged, or changed",
                         hint="fetch it again")


def _nameless(decisions: Decisions) -> Decisions:
    """Decisions that say of how many cases they are, and not of which."""
    return replace(decisions, cases=tuple(f"case {i + 1}" for i in range(len(decisions.cases))))


def _member(name: str, method: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _DATE)
    member.compress_type, member.create_system, member.external_attr = method, 3, 0o644 << 16
    return member


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()
