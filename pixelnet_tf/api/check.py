"""Whether a folder of results is as it was written, and what can be mended in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pixelnet_tf.cases.split import SPLIT_ADVICE
from pixelnet_tf.errors import ConfigError, DataError, RunError
from pixelnet_tf.io import manifest, remote
from pixelnet_tf.io.disk import is_temporary, sync
from pixelnet_tf.io.locks import LOCK, exclusive
from pixelnet_tf.io.manifest import MANIFEST, Manifest
from pixelnet_tf.reporting import Reporter, reporter_or_log

#: Ending of a file that was set aside.
BROKEN = ".broken"
_COPY = "take it from a copy of the folder"
_PREPARE = "run `pixelnet-tf prepare` again, which makes it anew"
_PREDICT = "run `pixelnet-tf predict` again, which makes this case alone anew"
_TABLE = "run `pixelnet-tf predict` again, which keeps the segmentations and lists the lesions anew"


@dataclass(frozen=True)
class _Rule:
    """What to do with a broken file.

    Attributes:
        pattern: of its path in the folder.
        advice: the next step, for the user.
        aside: whether it is set aside by a repair, since the next step makes it anew.
        needs: a file of the folder without which the rule does not hold.
    """

    pattern: str
    advice: str
    aside: bool = False
    needs: str = ""


#: Kind of folder -> a file or folder that only it has, and what to do with its files; the first
#: pattern that fits counts.
_KINDS: dict[str, tuple[tuple[str, ...], tuple[_Rule, ...]]] = {
    "prepared study": (("index.json", "cases/*.tfrecord"), (
        _Rule("split.json", SPLIT_ADVICE),
        _Rule("cases/*.tfrecord", _PREPARE, True), _Rule("cases/*.json", _PREPARE, True),
        _Rule("index.json", _PREPARE, True), _Rule("config.yaml", _PREPARE, True),
        _Rule("left_out.json", _PREPARE, True))),
    "run": (("checkpoints/state.json", "*.keras", "start.json"), (
        _Rule("checkpoints/state.json", _COPY + ", or train anew into a new --out"),
        _Rule("checkpoints/*", "go on by `pixelnet-tf train --resume`, which takes the state "
              "before it", True),
        _Rule("model.keras", _COPY + ", or let `pixelnet-tf train --resume` make it anew from the "
              "checkpoints", True, needs="checkpoints/state.json"),
        _Rule("*.keras", _COPY + ", or import it again"),
        _Rule("tensorboard/*", "no verb reads it, TensorBoard's curves are affected; --accept it, "
              "or where it was set aside go on without", True),
        _Rule("log.*", _COPY + ", or where it was set aside go on without the curves so far", True),
        _Rule("*config.yaml", _COPY), _Rule("split.json", _COPY), _Rule("priors.json", _COPY),
        _Rule("decisions.json", _COPY), _Rule("learning_rate.json", _COPY),
        _Rule("start.json", _COPY))),
    "cross-validation": (("split.json",), (
        _Rule("split.json", _COPY), _Rule("decisions.json", _COPY + ", or remove it and let "
              "`pixelnet-tf train --folds all --resume` decide again"),)),
    "predictions": (("prediction.json",), (
        _Rule("prediction.json", _COPY + ", or predict again with --overwrite"),
        _Rule("overlays/*.png", "run `pixelnet-tf predict --overlays` again, which draws it anew",
              True),
        _Rule("lesions.tsv", _TABLE, True), _Rule("lesions/*.json", _TABLE, True),
        _Rule("*.nii.gz", _PREDICT, True), _Rule("*.dcm", _PREDICT, True),
        _Rule("sub-*", _PREDICT, True), _Rule("dataset_description.json", _PREDICT, True),
        _Rule(".bidsignore", _PREDICT, True), _Rule("README.md", _PREDICT, True))),
    "export": (("serving.json", "saved_model.pb", "model.onnx"), (
        _Rule("*", "export the model again, as a new version, and remove this one"),)),
    "scores": (("cases.csv",), (
        _Rule("summary.json", "run `pixelnet-tf evaluate` again", True),
        _Rule("cases.csv", "run `pixelnet-tf evaluate` again", True))),
    "experiment": (("tables.txt",), (
        _Rule("tables.*", "run `pixelnet-tf experiment` again", True),)),
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong in a folder.

    Attributes
    ----------
    path
        Of the file.
    problem, advice
        What is wrong, and the next step, in words.
    repaired
        What a repair did about it; empty where it did nothing.
    """

    path: str
    problem: str
    advice: str
    repaired: str = ""

    def __str__(self) -> str:
        done = f"; {self.repaired}" if self.repaired else ""
        return f"{self.path}: {self.problem}{done}: {self.advice}"


@dataclass
class FolderCheck:
    """What a folder is found to be.

    Attributes
    ----------
    files
        Number of files that are as they were written.
    findings
        What is wrong, file by file.
    notes
        What is no damage, in sentences.
    """

    files: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is left to do."""
        return not self.findings


def check_folder(folder: str | os.PathLike[str], *, repair: bool = False,
                 accept: Sequence[str] = (), reporter: Reporter | None = None) -> FolderCheck:
    """Compare every file of a folder of results, and of those within it, with its manifest.

    Parameters
    ----------
    folder
        A prepared study, a run, predictions, scores, an export's version, an experiment, or a
        folder of several.
    repair
        Mend what can be: temporary files that a killed program left are removed; a file that the
        next `prepare`, `predict` or `evaluate` makes anew is set aside, as NAME.broken; of a broken
        checkpoint the one before is taken.
    accept
        Files, as paths within the folder or patterns such as `*.nii.gz`, that were changed or
        removed on purpose: what they are now is right from now on.
    reporter
        Hears of the task "checking", in files.

    Returns
    -------
    FolderCheck
        The findings; what was set aside is one until it is made anew.

    Raises
    ------
    DataError
        No such folder, or none of this project.
    ConfigError
        Nothing fits an entry of `accept`.
    RunError
        Another program is at work there, or the folder cannot be written to; where it is to be
        changed.

    Examples
    --------
    >>> import pixelnet_tf as px
    >>> found = px.check_folder("run")
    >>> found.whole, found.findings
    (True, [])
    """
    top = os.fspath(folder)
    if repair or accept:
        remote.refuse(top, "nothing is mended there",
                      "copy it to this machine, mend it, and copy it back")
    top = os.path.normpath(remote.local(top, reporter))
    if not os.path.isdir(top):
        raise DataError("no such folder", file=top)
    reporter = reporter_or_log(reporter)
    if not (repair or accept):
        return _check(top, False, reporter)
    with ExitStack() as locks:
        in_use = [each for each, _, names in os.walk(top) if LOCK in names]
        for each in dict.fromkeys((*in_use, *_product_folders(top))):
            locks.enter_context(exclusive(each, "check", reporter))
        try:
            _accept(top, accept)
            return _check(top, repair, reporter)
        except OSError as error:
            raise RunError(f"cannot be mended: {error}", file=top) from None


def _check(top: str, repair: bool, reporter: Reporter) -> FolderCheck:
    found = FolderCheck()
    folders = _product_folders(top)
    if not folders:
        place = manifest.place_of(os.path.join(top, "x"))
        raise DataError(f"{top}: is nothing that pixelnet-tf wrote" + (
            f"; it is a part of {place[0]}, give that" if place else ""))
    work = [(each, read) for each in folders if (read := _read(each, found)) is not None]
    paths = {each: _covered(each, folders) for each, _ in work}
    total, done = sum(len(each) for each in paths.values()), 0
    for each, read in work:
        for path in _check_one(read, paths[each], repair, found):
            done += 1
            reporter.progress("checking", min(done, total), total, path)
    _leftovers(top, repair, found)
    return found


def _read(folder: str, found: FolderCheck) -> Manifest | None:
    read = manifest.read(folder)
    if read is None and os.path.exists(os.path.join(folder, MANIFEST)):
        found.findings.append(Finding(
            os.path.join(folder, MANIFEST), "no line of it can be read",
            f"{_COPY}, or remove it and take the files as they are by --accept '*'"))
    elif read is None:
        found.notes.append(f"{folder}: an earlier version wrote it, without a manifest: its files "
                           "cannot be compared with anything; --accept '*' takes them as they are")
    return read


def _check_one(read: Manifest, paths: Sequence[str], repair: bool, found: FolderCheck
               ) -> Iterator[str]:
    """Check the files of a manifest; yields each one's path when it is done."""
    folder, unlisted, unsettled = read.folder, [], []
    kind = _kind(folder)
    for path in paths:
        yield path
        name = _name(path, folder)
        if name not in read.entries:
            unlisted.append(name)
            continue
        try:
            problem = manifest.difference(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            problem = f"it cannot be read ({error.strerror})"
        if problem:
            found.findings.append(_broken(folder, kind, name, f"damaged or changed: {problem}",
                                          repair))
        else:
            found.files += 1
            if not read.entries[name].there:
                unsettled.append(path)
    for path in unsettled if repair else ():
        manifest.record(path, grows=read.entries[_name(path, folder)].grows)
    if unsettled:
        found.notes.append(f"{folder}: {len(unsettled)} files are in their place, though the last "
                           f"line of the manifest about them is missing: a program was stopped "
                           f"there, or is at work; no damage{'; it is added' if repair else ''}")
    for name, entry in (manifest.read(folder) or read).entries.items():
        if entry.there and not os.path.lexists(os.path.join(folder, name)):
            if any(name == finding.path.removeprefix(folder + "/") for finding in found.findings):
                continue
            found.findings.append(Finding(os.path.join(folder, name), "is missing",
                                          _rule(folder, kind, name).advice))
    _check_lines(read, repair, found)
    ours = [name for name in unlisted if _is_known(kind, name)]
    others = [name for name in unlisted if name not in ours]
    if ours and read.complete is not False:
        found.findings += [Finding(os.path.join(folder, name), "its line in the manifest is lost",
                                   f"take it as it is by --accept {name}, or "
                                   f"{_rule(folder, kind, name).advice}") for name in ours]
    elif ours:
        found.notes.append(f"{folder}: {len(ours)} files are of an earlier version, without a line "
                           f"in the manifest: {_some(ours)}")
    if others:
        found.notes.append(f"{folder}: {len(others)} files have no line in the manifest; another "
                           f"program, or somebody, put them there: {_some(others)}")


def _check_lines(read: Manifest, repair: bool, found: FolderCheck) -> None:
    path = os.path.join(read.folder, MANIFEST)
    if repair and (read.broken or read.cut_short):
        manifest.compact(read.folder)
    done = "written anew without them" if repair else ""
    if read.broken:
        found.findings.append(Finding(
            path, f"lines {_some(read.broken)} are damaged",
            "the files that they told of are named above, if they are affected" if repair
            else "--repair writes it anew without them", done))
    if read.cut_short:
        found.notes.append(f"{path}: lines {_some(read.cut_short)} were cut short, as a power cut "
                           f"leaves them: no damage{'; ' + done if done else ''}")


def _broken(folder: str, kind: str, name: str, problem: str, repair: bool) -> Finding:
    rule, path, repaired = _rule(folder, kind, name), os.path.join(folder, name), ""
    if repair and rule.aside:
        target = path + BROKEN
        number = 1
        while os.path.lexists(target):
            number += 1
            target = f"{path}{BROKEN}{number}"
        os.rename(path, target)
        sync(os.path.dirname(path))
        repaired = f"set aside as {os.path.basename(target)}"
    return Finding(path, problem, rule.advice, repaired)


def _leftovers(top: str, repair: bool, found: FolderCheck) -> None:
    """Temporary files and folders that a killed program left."""
    left = []
    for parent, folders, names in os.walk(top):
        left += [os.path.join(parent, name) for name in (*folders, *names) if is_temporary(name)]
        folders[:] = [name for name in folders if not is_temporary(name)]
    for path in left if repair else ():
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.remove(path)
    if left:
        what = "removed" if repair else "--repair removes them"
        found.notes.append(f"{top}: {len(left)} temporary files that a killed program left, or one "
                           f"that is running has in work: {_some([_name(p, top) for p in left])}; "
                           f"{what}")


def _accept(top: str, patterns: Sequence[str]) -> None:
    folders = _product_folders(top)
    for pattern in patterns:
        accepted = False
        for folder in folders:
            there = _covered(folder, folders)
            if any(fnmatchcase(_name(path, top), pattern) for path in there):
                # One of an earlier version gets its manifest so.
                manifest.begin(folder)
            read = manifest.read(folder)
            if read is None:
                continue
            gone = [os.path.join(folder, name) for name, entry in read.entries.items()
                    if entry.there and not os.path.lexists(os.path.join(folder, name))]
            for path in (*there, *gone):
                if not fnmatchcase(_name(path, top), pattern) or path.endswith(BROKEN):
                    continue
                accepted = True
                if path in gone:
                    manifest.forget(path)
                    continue
                entry = read.entries.get(_name(path, folder))
                manifest.record(path, grows=entry is not None and entry.grows)
        if not accepted:
            raise ConfigError(f"--accept {pattern}: no file of {top} is called so",
                              hint="give its path within the folder, or a pattern such as "
                                   "'*.nii.gz'")


def _product_folders(top: str) -> list[str]:
    """A folder and those below it that have a manifest, or are none's and of a known kind."""
    found = []
    for each, inner, names in os.walk(top):
        inner[:] = sorted(name for name in inner if not is_temporary(name))
        if MANIFEST in names or (_kind(each)
                                 and manifest.place_of(os.path.join(each, "x")) is None):
            found.append(each)
    return found


def _covered(folder: str, folders: Collection[str]) -> list[str]:
    """The files that a folder's manifest covers: its own and those of its sub-folders."""
    inner = [each for each in folders if each != folder and each.startswith(folder + os.sep)]
    return [path for path in manifest.files_in(folder)
            if _name(path, folder).count("/") <= manifest.DEPTH
            and not any(path.startswith(each + os.sep) for each in inner)]


def _kind(folder: str) -> str:
    """Which of `_KINDS` a folder is; empty if none."""
    return next((kind for kind, (marks, _) in _KINDS.items()
                 if any(any(Path(folder).glob(mark)) for mark in marks)), "")


def _rule(folder: str, kind: str, name: str) -> _Rule:
    # Scores may stand among predictions, for instance: what one kind does not know, another does.
    rules = [*(_KINDS[kind][1] if kind else ()),
             *(rule for _, others in _KINDS.values() for rule in others if rule.pattern != "*")]
    return next((rule for rule in rules if fnmatchcase(name, rule.pattern)
                 and os.path.exists(os.path.join(folder, rule.needs))), _Rule(name, _COPY))


def _is_known(kind: str, name: str) -> bool:
    """Whether a file without a line in the manifest must have had one.

    Logs grow, checkpoints may be half written, and overlays and models of any name a user's.
    """
    return (bool(kind) and any(fnmatchcase(name, rule.pattern) for rule in _KINDS[kind][1])
            and not name.startswith(("log.", "tensorboard/", "overlays/", "checkpoints/"))
            and not (kind == "run" and name.endswith((".keras", ".config.yaml"))
                     and name != "model.keras"))


def _name(path: str, folder: str) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")


def _some(items: Sequence[object]) -> str:
    """Name a few."""
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(str(item) for item in items[:5]) + more
