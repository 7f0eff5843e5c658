import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from keras_nalu.benchmarks import engines
from keras_nalu.benchmarks.engines import EngineError, completed


def work(text):
    """Does what its group says; each time it begins it leaves a line in a file."""
    told = json.loads(text)
    with open(told["log"], "a") as log:
        log.write(f"{told['name']} {os.getpid()}\n")
    time.sleep(told.get("seconds", 0))
    if _begun(told["log"])[told["name"]] <= told.get("deaths", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if "interrupted" in told:
        signal.raise_signal(signal.SIGINT)
    engines.tell(told.get("steps", 0))
    if "error" in told:
        raise ValueError(told["error"])
    names = "KERAS_BACKEND", "NPROC", "TF_NUM_INTRAOP_THREADS"
    environment = {name: os.environ.get(name) for name in names}
    return [{"name": told["name"], "process": os.getpid()} | environment]


def _begun(log):
    with open(log) as lines:
        return collections.Counter(line.split()[0] for line in lines)


@pytest.fixture
def log(tmp_path):
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture
def group(log):
    return lambda name, **told: json.dumps({"name": name, "log": str(log), **told})


def _until(condition):
    deadline = time.perf_counter() + 10
    while not condition():
        assert time.perf_counter() < deadline
        time.sleep(0.01)


def _names(outcomes):
    return sorted(row["name"] for o in outcomes if o.error is None for row in o.rows)


def test_in_this_process_one_after_the_other(group, log):
    here = os.getpid()
    outcomes = completed(lambda text: work(text), [group("a"), group("b", seconds=0.1)])
    first = next(outcomes)
    assert (first.group, first.rows[0]["process"]) == (group("a"), here)
    assert _begun(log) == {"a": 1}
    second = next(outcomes)
    assert second.rows[0]["name"] == "b"
    assert 0.1 <= second.seconds < 10
    assert list(outcomes) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_stops_no_other(group, workers):
    groups = [group("a"), group("b", error="the reason"), group("c")]
    outcomes = list(completed(work, groups, workers))
    assert _names(outcomes) == ["a", "c"]
    (failed,) = (outcome for outcome in outcomes if outcome.error)
    assert (failed.group, failed.rows) == (groups[1], None)
    assert str(failed.error) == "ValueError: the reason"
    assert 'raise ValueError(told["error"])' in failed.error.__notes__[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_it_is_told_how_far_they_are(group, workers):
    heard = []
    groups = [group("a", steps=1), group("b", steps=20), group("c", steps=300)]
    list(completed(work, groups, workers, progress=heard.append))
    _until(lambda: len(heard) == 3)
    assert sum(heard) == 321
    engines.tell(4000)  # when nobody listens any more
    assert sum(heard) == 321


def test_two_processes(group, monkeypatch):
    import keras

    monkeypatch.setenv("KERAS_BACKEND", "another")
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    # Ctrl-C in a terminal reaches them, too: their parent decides.
    groups = [group(name, seconds=0.3, interrupted=True) for name in "abcd"]
    outcomes = list(completed(work, groups, workers=2))
    assert _names(outcomes) == ["a", "b", "c", "d"]
    rows = [outcome.rows[0] for outcome in outcomes]
    processes = {row["process"] for row in rows}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {row["KERAS_BACKEND"] for row in rows} == {keras.backend.backend()}
    assert {row["NPROC"] for row in rows} == {"3"}
    assert {row["TF_NUM_INTRAOP_THREADS"] for row in rows} == {"7"}


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [1, 2])
def test_a_process_that_dies_takes_no_other_work_along(group, log, deaths):
    groups = [group("a", seconds=0.2, deaths=deaths), group("b", seconds=0.5)]
    groups += [group("c"), group("d")]
    outcomes = list(completed(work, groups, workers=2))
    survived = ["a"] if deaths == 1 else []
    assert _names(outcomes) == [*survived, "b", "c", "d"]
    assert _begun(log) == {"a": 2, "b": 1, "c": 1, "d": 1}
    if deaths == 2:
        (failed,) = (outcome for outcome in outcomes if outcome.error)
        assert failed.group == groups[0]
        assert str(failed.error).startswith("its process was killed, twice.")


@pytest.mark.parametrize("how", ["closed", "interrupted"])
def test_what_has_begun_ends_at_once(group, log, how):
    groups = [group("a"), *(group(name, seconds=60) for name in "bcd")]
    outcomes = completed(work, groups, workers=2)
    assert next(outcomes).rows[0]["name"] == "a"
    _until(lambda: _begun(log).total() == 2)
    started = time.perf_counter()
    if how == "closed":
        outcomes.close()
    else:
        interrupt = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            next(outcomes)
    assert time.perf_counter() - started < 20
    assert "d" not in _begun(log)
    for line in log.read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[1]), 0)


def test_processes_leave_with_a_parent_that_was_killed():
    code = (
        "import os, time\n"
        "from keras_nalu.benchmarks import engines\n"
        'if __name__ == "__main__":\n'
        "    with engines._processes(1, None) as (lane,):\n"
        "        lane.submit(time.sleep, 60)\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    # It returns once all who could write to the pipe are gone.
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert run.returncode == -9


def _dies(pipe, telling):
    os._exit(1)


def test_a_process_that_cannot_start(group, monkeypatch):
    monkeypatch.setattr(engines, "_obey", _dies)
    with pytest.raises(EngineError, match='below `if __name__ == "__main__":`'):
        next(completed(work, [group("a"), group("b")], workers=2))


def test_what_cannot_be_asked_for(group):
    assert list(completed(work, [], workers=0)) == []
    with pytest.raises(ValueError, match=r"`workers`, .* Received: workers=0"):
        next(completed(work, [group("a")], workers=0))


def test_a_backend_is_not_changed_once_keras_has_one():
    import keras

    engines._prepare({"KERAS_BACKEND": keras.backend.backend()})
    expected = f"computes with {keras.backend.backend()} already, expected another"
    with pytest.raises(EngineError, match=expected):
        engines._prepare({"KERAS_BACKEND": "another"})


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r'Try `pip install "\.\[cluster\]"`'):
        next(completed(work, ["a"], scheduler="tcp://127.0.0.1:8786"))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_nobody_answers(address):
    pytest.importorskip("distributed")
    started = time.perf_counter()
    with pytest.raises(EngineError, match=f"no Dask scheduler answers at '{address}'"):
        next(completed(work, ["a"], scheduler=address))
    assert time.perf_counter() - started < 5


@contextlib.contextmanager
def _cluster(workers, threads=1):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster():
    with _cluster(2) as cluster:
        yield cluster


def test_a_cluster_of_which_a_worker_is_killed(cluster, group, log):
    groups = [group("a", seconds=0.5, deaths=1), group("b", error="the reason")]
    groups += [group(name, seconds=0.1) for name in "cdef"]
    outcomes = list(completed(work, groups, scheduler=cluster.scheduler_address))
    assert _names(outcomes) == ["a", "c", "d", "e", "f"]
    (failed,) = (outcome for outcome in outcomes if outcome.error)
    assert (failed.group, str(failed.error)) == (groups[1], "ValueError: the reason")
    assert _begun(log)["a"] == 2
    assert len({line.split()[1] for line in log.read_text().splitlines()}) >= 2


def test_a_cluster_forgets_what_has_ended(cluster, group):
    # Else it would do that again if the worker that has it dies.
    groups = [group("a"), group("b", seconds=0.5)]
    outcomes = completed(work, groups, scheduler=cluster.scheduler_address)
    assert next(outcomes).rows[0]["name"] == "a"
    _until(lambda: len(cluster.scheduler.tasks) == 1)
    assert _names(outcomes) == ["b"]


def test_a_cluster_is_told_that_nobody_waits(cluster, group, log):
    groups = [group(str(number), seconds=0.1) for number in range(20)]
    outcomes = completed(work, groups, scheduler=cluster.scheduler_address)
    next(outcomes)
    outcomes.close()
    _until(lambda: not cluster.scheduler.tasks)
    time.sleep(0.2)
    begun = _begun(log)
    time.sleep(0.3)
    assert _begun(log) == begun
    assert len(begun) < 20


@pytest.mark.parametrize(
    ("workers", "threads", "message"),
    [(0, 1, "has no workers. Start `dask worker"), (1, 2, "has 2 threads, expected 1")],
)
def test_a_cluster_that_will_not_do(workers, threads, message):
    with _cluster(workers, threads) as cluster, pytest.raises(EngineError) as caught:
        next(completed(work, ["a"], scheduler=cluster.scheduler_address))
    assert message in str(caught.value)


def test_a_scheduler_that_goes_away(group):
    with _cluster(1) as cluster:
        groups = [group("a"), group("b", seconds=1)]
        outcomes = completed(work, groups, scheduler=cluster.scheduler_address)
        next(outcomes)
    with pytest.raises(EngineError, match=r"the scheduler tcp://.* is gone"):
        next(outcomes)
