"""Work in processes: what they are told, and what becomes of it if one is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest

from keras_nalu.benchmarks.workers import WorkersError, completed

BACKEND = keras.backend.backend()


def work(text):
    """Does what its group says."""
    name, _, what = text.partition(" ")
    if what == "fails":
        raise ValueError("the reason")
    if what == "is killed":
        # Not before the other has ended.
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGTERM)
    names = "KERAS_BACKEND", "NPROC", "TF_NUM_INTRAOP_THREADS"
    return name, os.getpid(), *(os.environ.get(name) for name in names)


def names(outcomes):
    return sorted(result[0] for _, result, error in outcomes if error is None)


def test_in_this_process_one_after_the_other():
    outcomes = completed(lambda text: work(text), ["a", "b fails", "c"])
    group, result, error = next(outcomes)
    assert (group, result[:2], error) == ("a", ("a", os.getpid()), None)
    group, result, error = next(outcomes)
    assert (group, result) == ("b fails", None)
    assert error.splitlines()[0] == "ValueError: the reason"
    assert 'raise ValueError("the reason")' in error
    assert names(outcomes) == ["c"]


@pytest.mark.slow
def test_two_processes(monkeypatch):
    joblib = pytest.importorskip("joblib")
    monkeypatch.setenv("KERAS_BACKEND", "another")
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    outcomes = list(completed(work, ["a", "b fails", "c", "d"], workers=2))
    assert names(outcomes) == ["a", "c", "d"]
    (failed,) = (outcome for outcome in outcomes if outcome[2])
    assert failed[0] == "b fails"
    assert failed[2].startswith("ValueError: the reason\n")
    results = [result for _, result, error in outcomes if not error]
    assert os.getpid() not in {result[1] for result in results}
    share = str(max(1, joblib.cpu_count() // 2))
    assert {result[2:] for result in results} == {(BACKEND, share, "7")}


@pytest.mark.slow
def test_a_process_that_is_killed_takes_nothing_along_that_has_ended():
    pytest.importorskip("joblib")
    ended = []
    outcomes = completed(work, ["a", "b is killed", "c", "d"], workers=2)
    with pytest.raises(WorkersError, match="a process was killed"):
        ended.extend(outcomes)
    assert names(ended) == ["a", "c", "d"]
    assert names(completed(work, ["b"], workers=2)) == ["b"]


def test_without_dask(monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(WorkersError, match=r'pip install "keras-nalu\[cluster\]"'):
        next(completed(work, ["a"], scheduler="tcp://127.0.0.1:8786"))


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_nobody_answers(address):
    pytest.importorskip("distributed")
    with pytest.raises(WorkersError, match=f"no Dask scheduler answers at '{address}'"):
        next(completed(work, ["a"], scheduler=address))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Dask's own, of what was killed
def test_a_cluster_of_which_a_worker_is_killed():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        outcomes = completed(work, "abcdef", scheduler=cluster.scheduler_address)
        ended = [next(outcomes)]
        os.kill(cluster.workers[0].pid, signal.SIGTERM)
        ended += outcomes
        assert names(ended) == [*"abcdef"]
        assert {result[2] for _, result, _ in ended} == {BACKEND}


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="trains no populations")
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes by /proc")
def test_a_benchmark_whose_worker_is_killed_goes_on(tmp_path):
    pytest.importorskip("joblib")
    command = [sys.executable, "-m", "keras_nalu", "benchmark", "single-module"]
    command += ["--only", "NAU", "NMU", "--seeds", "2", "--steps", "20000"]
    command += ["--workers", "2", "--output", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.perf_counter() + 180
        while not (kept := [*tmp_path.rglob("*.jsonl")]):
            assert time.perf_counter() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(a_worker_of(process.pid), signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = said.splitlines()
    assert line.startswith("keras-nalu: a process was killed, ")
    before = {file: file.stat().st_mtime_ns for file in kept}
    assert subprocess.run(command, check=False).returncode == 0
    files = [*tmp_path.rglob("*.*")]
    assert len(files) == 3
    assert all(len(file.read_text().splitlines()) == 18 for file in files)
    assert before == {file: file.stat().st_mtime_ns for file in kept}


def a_worker_of(parent):
    for folder in Path("/proc").glob("[0-9]*"):
        status = (folder / "status").read_text().split("PPid:\t")[1].split()[0]
        command = (folder / "cmdline").read_text()
        if int(status) == parent and "popen_loky" in command:
            return int(folder.name)
    raise AssertionError("no worker")
