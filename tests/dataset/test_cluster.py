"""Cases by Dask, by parts and by several programs: the same bytes, each case once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pixelnet_tf.api.scoring import FolderScoring
from pixelnet_tf.cases.case import Case
from pixelnet_tf.cases.parts import Part
from pixelnet_tf.cases.predictions import PredictionRecord
from pixelnet_tf.config import Config
from pixelnet_tf.dataset import cluster as cluster_module
from pixelnet_tf.dataset import encode as encode_module
from pixelnet_tf.dataset.cluster import Cluster, open_cluster
from pixelnet_tf.dataset.encode import encode_case
from pixelnet_tf.dataset.prepare_study import prepare_study
from pixelnet_tf.dataset.workers import run_cases
from pixelnet_tf.errors import ConfigError, DataError, RunError, WorkerDied
from pixelnet_tf.inference.predict import (
    CaseSource,
    Elsewhere,
    PredictionSummary,
    write_cases,
)
from pixelnet_tf.io.locks import Ticket, joined, shared
from pixelnet_tf.reporting import LogReporter
from tests.dataset.worker_functions import be_killed_once, die_at, fail, make_stand_in, try_to_take

ROOT = Path(__file__).parents[2]
CASES = [Case(name) for name in "abcde"]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Two worker processes of this machine."""
    with open_cluster("local:2") as found:
        yield found


def kill_a_worker(cluster: Cluster, once: Path, *function: str) -> None:
    """Let the first worker be killed that has called a function (module, name)."""
    cluster._client.run(be_killed_once, *function, once)


def test_every_case_comes_back_once_and_errors_with_their_case(cluster):
    assert sorted(result for _, result in run_cases(die_at, CASES, (), cluster)) == list("abcde")
    with pytest.raises(RunError, match=r"case \w: ZeroDivisionError: by zero"):
        list(run_cases(fail, CASES, (ZeroDivisionError("by zero"),), cluster))
    with pytest.raises(DataError, match=r"case x: bad"):
        list(run_cases(fail, CASES, (DataError("bad", case="x"),), cluster))
    # What was in work when it failed does not hinder what comes after.
    assert len(list(run_cases(die_at, CASES, (), cluster))) == 5


def test_a_killed_worker_s_case_is_tried_once_more_and_then_named(cluster, tmp_path):
    results = [result for _, result in
               run_cases(die_at, CASES, ("b", tmp_path / "died"), cluster)]
    assert sorted(results) == list("abcde")
    assert (tmp_path / "died").exists()
    with pytest.raises(WorkerDied, match=r"case b: 2 workers died at work on it.* memory"):
        list(run_cases(die_at, CASES, ("b",), cluster))
    found = {case.name: result for case, result in
             run_cases(die_at, CASES, ("b",), cluster, spare=True)}
    assert isinstance(found.pop("b"), WorkerDied)
    assert found == {name: name for name in "acde"}


@pytest.mark.parametrize("text", ["locally", "local:0", "local:x", "slurm:", "host", "host:x",
                                  "tcp://:1"])
def test_what_is_no_scheduler_is_refused(text):
    with (pytest.raises(ConfigError, match=r"tcp://HOST:8786.*local.*slurm") as refused,
          open_cluster(text)):
        pass
    assert "\n" not in str(refused.value)


def test_a_scheduler_that_does_not_answer_is_said_in_one_line(monkeypatch):
    assert cluster_module.CONNECT_SECONDS < 30
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.5)
    with (pytest.raises(RunError, match=r"127\.0\.0\.1:9: no scheduler answers") as refused,
          open_cluster("127.0.0.1:9")):
        pass
    assert refused.value.exit_code == 5
    assert "\n" not in str(refused.value)


def test_what_answers_and_is_no_scheduler_is_said_in_one_line():
    """A web server, as at the port of Dask's own page."""

    def answer() -> None:
        caller, _ = there.accept()
        with caller:
            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            caller.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as there:
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with (pytest.raises(RunError, match=rf"{address}: what answers there is no scheduler")
              as refused, open_cluster(address)):
            pass
    assert refused.value.exit_code == 5
    assert "\n" not in str(refused.value)


def test_a_running_scheduler_is_used_and_said_when_it_goes_away():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    options = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    scheduler = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_scheduler", "--port",
                                  str(port), "--dashboard-address", ":0"], **options)
    worker = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_worker", address,
                               "--nthreads", "1", "--no-nanny", "--no-dashboard"], **options)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as there:
                if not there.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        with open_cluster(address) as cluster:
            results = run_cases(die_at, map(Case, map(str, range(100_000))), (), cluster)
            assert [next(results)[1] for _ in range(3)] == ["0", "1", "2"]
            scheduler.kill()
            with pytest.raises(RunError, match=rf"{address}: the scheduler is gone.*are kept"):
                list(results)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()


def test_ctrl_c_ends_the_workers_without_a_traceback_of_theirs(tmp_path):
    """SIGINT to the whole group, as a terminal sends it."""
    (tmp_path / "job.py").write_text(
        "import signal, sys\n"
        "from pixelnet_tf.cases.case import Case\n"
        "from pixelnet_tf.dataset.cluster import open_cluster\n"
        "from tests.dataset.worker_functions import die_at\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    try:\n"
        "        with open_cluster('local:1') as cluster:\n"
        "            for case, _ in cluster.run(die_at, (Case(str(n)) for n in range(10 ** 6)),\n"
        "                                       (), False):\n"
        "                print(case.name, flush=True)\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit(130)\n")
    process = subprocess.Popen([sys.executable, tmp_path / "job.py"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "0\n"
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")


def test_slurm_s_jobs_must_be_described():
    with (pytest.raises(ConfigError, match=r"jobqueue\.slurm.*jobqueue\.yaml") as refused,
          open_cluster("slurm")):
        pass
    assert "\n" not in str(refused.value)


def written(folder: Path) -> dict[str, bytes]:
    """What a prepared study holds, but the manifest, whose lines stand in the order of the work."""
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "manifest.jsonl"}


def test_prepare_by_dask_writes_the_same_bytes_though_a_worker_dies(
        cluster, small_study, small_config, small_prepared, tmp_path):
    """The first worker is killed when it has written a shard, but not what makes it a case."""
    out = tmp_path / "prepared"
    kill_a_worker(cluster, tmp_path / "killed", "pixelnet_tf.dataset.prepare_study", "write_shard")
    summary = prepare_study(small_config, small_study, out, cluster)
    assert (tmp_path / "killed").exists()
    assert sorted(summary.prepared) == sorted(summary.split.cases)
    assert written(out) == written(Path(small_prepared))
    again = prepare_study(small_config, small_study, out, cluster)
    assert (again.prepared, len(again.kept)) == ((), 4)


def test_prepare_by_parts_writes_the_same_bytes(small_study, small_config, small_prepared,
                                                tmp_path):
    out = tmp_path / "prepared"
    for number in (1, 2):
        summary = prepare_study(small_config, small_study, out, 1, part=Part(number, 3))
        assert summary.split is None
    assert not (out / "index.json").exists()
    with pytest.raises(DataError, match=r"1 of 4 cases are not prepared.*phantom_003.*their parts"):
        prepare_study(small_config, small_study, out, 1, finish=True)
    prepare_study(small_config, small_study, out, 1, part=Part(3, 3))
    summary = prepare_study(small_config, small_study, out, 1, finish=True)
    assert (summary.prepared, len(summary.kept)) == ((), 4)
    assert written(out) == written(Path(small_prepared))


def test_a_part_leaves_its_bad_cases_out_and_finish_keeps_them_out(small_study, small_config,
                                                                   tmp_path):
    study, out = tmp_path / "study", tmp_path / "prepared"
    shutil.copytree(small_study, study)
    small_config = replace(small_config, split=replace(small_config.split, folds=0))
    next((study / "phantom_002").glob("*_t2.nii.gz")).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"phantom_002"):
        prepare_study(small_config, study, out, 1, part=Part(2, 2))
    for number in (1, 2):
        summary = prepare_study(small_config, study, out, 1, True, part=Part(number, 2))
        assert len(summary.left_out) == number - 1
    assert "phantom_002" in (out / "left_out.json").read_text()
    summary = prepare_study(small_config, study, out, 1, True, finish=True)
    assert set(summary.split.cases) == {"phantom_001", "phantom_003", "phantom_004"}
    prepare_study(small_config, study, tmp_path / "plain", 1, True)
    assert written(out) == written(tmp_path / "plain")


def test_a_part_whose_only_case_fails_when_it_is_prepared_leaves_it_out(small_study, small_config,
                                                                        tmp_path, monkeypatch):
    def fails(case, *settings):
        if case.name == "phantom_002":
            raise DataError("N4 finds no bias field", case="phantom_002")
        return encode_case(case, *settings)

    monkeypatch.setattr(encode_module, "encode_case", fails)
    out = tmp_path / "prepared"
    small_config = replace(small_config, split=replace(small_config.split, folds=0))
    with pytest.raises(DataError, match="N4 finds no bias field"):
        prepare_study(small_config, small_study, out, 1, part=Part(2, 4))
    for number in (1, 2, 3, 4):
        summary = prepare_study(small_config, small_study, out, 1, True, part=Part(number, 4))
        assert [problem.case for problem in summary.left_out] == ["phantom_002"] * (number == 2)
    assert "N4 finds no bias field" in (out / "left_out.json").read_text()
    summary = prepare_study(small_config, small_study, out, 1, True, finish=True)
    assert set(summary.split.cases) == {"phantom_001", "phantom_003", "phantom_004"}


def test_a_worker_leaves_what_another_program_has_in_work(cluster, tmp_path):
    cases, nobody = CASES[:2], LogReporter()
    with shared(tmp_path / "p", "work", "key", nobody) as sharing:
        held = next(sharing.take(cases[:1], lambda _: False, []))
        assert results_of(cluster, cases, sharing.ticket) == {"a": "busy", "b": "taken"}
        sharing.give_back(held.name)
        assert results_of(cluster, cases, sharing.ticket) == {"a": "taken", "b": "taken"}
        # One that makes something else there is refused while this one is at work.
        with (pytest.raises(RunError, match=r"in use by `work`"),
              joined(replace(sharing.ticket, key="another"), nobody)):
            pass
    with (pytest.raises(RunError, match=r"not at work there.*same file system"),
          joined(sharing.ticket, nobody)):
        pass
    assert not (tmp_path / "p").exists()


def results_of(cluster: Cluster, cases: list[Case], ticket: Ticket) -> dict[str, str]:
    return {case.name: result for case, result in run_cases(try_to_take, cases, (ticket,), cluster)}


def predict(data: Path | str, config: Config, out: Path, cases=(), **options) -> PredictionSummary:
    """By a stand-in for the network."""
    segment, about = make_stand_in()
    return write_cases(segment, about, CaseSource.open(str(data), config, None, cases), config, out,
                       **options)


@pytest.fixture(scope="module")
def predicted(small_study, small_prepared, small_config, tmp_path_factory) -> dict[str, Path]:
    """The study, and the prepared one, -> their segmentations; not to be changed."""
    folder, found = tmp_path_factory.mktemp("predicted"), {}
    for name, data in (("raw", small_study), ("prepared", small_prepared)):
        predict(data, small_config, folder / name, trained_on=["phantom_002"])
        found[str(data)] = folder / name
    return found


def test_predict_by_dask_writes_the_same_bytes_though_a_worker_dies(
        cluster, predicted, small_config, tmp_path):
    """The first worker is killed when it has written a case's lesions, but not its labels."""
    elsewhere = Elsewhere(cluster, make_stand_in)
    kill_a_worker(cluster, tmp_path / "killed", "pixelnet_tf.inference.predict", "list_lesions")
    for number, (data, plain) in enumerate(predicted.items()):
        out = tmp_path / f"out{number}"
        summary = predict(data, small_config, out, trained_on=["phantom_002"], elsewhere=elsewhere)
        assert len(summary.segmented) == 4
        assert written(out) == written(plain)
    assert (tmp_path / "killed").exists()


def test_predict_by_parts_writes_the_same_bytes(predicted, small_config, tmp_path):
    for number, (data, plain) in enumerate(predicted.items()):
        out = tmp_path / f"out{number}"
        for part in (3, 1, 2):
            summary = predict(data, small_config, out, trained_on=["phantom_002"],
                              part=Part(part, 3))
            assert len(summary.segmented) == (2 if part == 1 else 1)
        assert written(out) == written(plain)
        # A part that is done again, and all cases at once, find everything there.
        for part in (Part(2, 3), None):
            assert not predict(data, small_config, out, trained_on=["phantom_002"],
                               part=part).segmented
        assert written(out) == written(plain)


def test_a_part_s_bad_case_stays_left_out_and_another_network_is_refused(
        small_study, small_config, tmp_path):
    study, out = tmp_path / "study", tmp_path / "out"
    shutil.copytree(small_study, study)
    next((study / "phantom_002").glob("*_t2.nii.gz")).write_bytes(b"no image")
    with pytest.raises(DataError, match="phantom_002"):
        predict(study, small_config, out, part=Part(2, 2))
    for part in (2, 1):
        predict(study, small_config, out, part=Part(part, 2), skip_bad_cases=True)
    record = PredictionRecord.read(out)
    assert [left.case for left in record.left_out] == ["phantom_002"]
    assert record.cases == ("phantom_001", "phantom_002", "phantom_003", "phantom_004")
    predict(study, small_config, tmp_path / "plain", skip_bad_cases=True)
    assert written(out) == written(tmp_path / "plain")
    other = replace(small_config, prediction=replace(small_config.prediction, mode="reference"))
    with pytest.raises(DataError, match="holds 3 segmentations that were made from something else"):
        predict(study, other, out, part=Part(1, 2), skip_bad_cases=True)


def test_a_worker_with_another_network_is_refused(cluster, small_prepared, small_config, tmp_path):
    with pytest.raises(RunError, match="a worker finds another network"):
        predict(small_prepared, small_config, tmp_path / "out",
                elsewhere=Elsewhere(cluster, partial(make_stand_in, "others")))


def test_evaluate_by_dask_gives_the_same_scores(cluster, predicted, small_study, small_config,
                                                tmp_path, monkeypatch):
    plain = predicted[str(small_study)]
    monkeypatch.chdir(plain.parent)
    scoring = FolderScoring(plain.name, small_study, config=small_config)
    scoring.run(1).save(tmp_path / "plain")
    scoring.run(cluster).save(tmp_path / "dask")
    assert written(tmp_path / "dask") == written(tmp_path / "plain")
