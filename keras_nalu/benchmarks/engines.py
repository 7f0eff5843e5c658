"""Groups of work, in this process, in several, or on a cluster.

All are executors of Python's `concurrent.futures`; a cluster's is Dask's. Which worker
had a group does not matter to its rows, if the function seeds what it draws.
"""

import collections
import concurrent.futures
import contextlib
import logging
import math
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, NamedTuple

from keras_nalu import expect

#: Seconds in which a scheduler must have answered.
PATIENCE = 5


class EngineError(Exception):
    """One line for whoever started the run. Its notes have a function's traceback."""


class Outcome(NamedTuple):
    """What became of a group: its rows, or the error in their place."""

    group: Any
    rows: Any
    error: EngineError | None
    #: By its worker's clock, with what it had to import; not a number if that died.
    seconds: float


#: Where `tell` goes, in the process that a function runs in.
_listener: Any = None


def tell(steps):
    """How far a function is, for whoever waits for it; a cluster's has no listener."""
    if _listener:
        _listener(steps)


def completed(function, groups, workers=1, scheduler=None, progress=None):
    """Yields an `Outcome` for every group, as they end; an error stops no other group.

    A process that dies takes no other's work along; its group is begun anew, once. A
    cluster's workers may come and go: Dask begins a group anew until it has seen four
    of its workers die. Closing the generator, as Ctrl-C does, ends the processes at
    once; what a cluster's workers have begun they finish, for nobody. Close it, such as
    by `contextlib.closing`, where it may not come to its end: Python's own end waits
    for what has begun.

    A process gets its share of the cores, where the variables below say nothing else.
    With one of two cores for each of two, a step of a population of small models took
    0.72 of the processor time on JAX, and 0.82 on TensorFlow. A cluster's workers are
    told by whoever starts them: `NPROC=1 TF_NUM_INTRAOP_THREADS=1 dask worker ...`.

    Args:
        function: Called with a group, and returns rows. For other processes, one that
            they can import.
        groups: The order is the one in which they begin: with the longest first, the
            least waits for the last.
        workers: How many processes; 1 is this very one.
        scheduler: Address of a Dask scheduler, such as "tcp://10.0.0.1:8786": its
            workers are used in the place of processes. They have one thread each, and
            this package. Whoever reaches a scheduler can run code on its workers: keep
            it in a network of your own.
        progress: Called with what the functions `tell`, in any thread.

    Raises:
        EngineError: there is no such cluster, or no process can be started.

    Example:

    >>> from keras_nalu.benchmarks.engines import completed
    >>> [(outcome.group, outcome.rows) for outcome in completed(len, ["ab", "c"])]
    [('ab', 2), ('c', 1)]
    """
    waiting = collections.deque(enumerate(groups))
    if not waiting:
        return
    workers = expect.integer("workers", workers)
    if scheduler:
        environment = _environment()
        lanes = _cluster(scheduler, environment, len(waiting))
    elif workers > 1:
        workers = min(workers, len(waiting))
        environment = _environment() | _share_of_the_cores(workers)
        lanes = _processes(workers, progress)
    else:
        environment = None
        lanes = _here(progress)
    ended: Any = queue.SimpleQueue()
    running, deaths = {}, collections.Counter()
    with lanes as idle:
        while waiting or running:
            while waiting and idle:
                lane = idle.pop()
                number, group = waiting.popleft()
                call = _call(function, group, environment)
                future = lane.submit(_timed, *call)
                running[future] = lane, number, group
                future.add_done_callback(ended.put)
            future = ended.get()
            lane, number, group = running.pop(future)
            idle.append(lane)
            try:
                rows, error, seconds = future.result()
            except concurrent.futures.BrokenExecutor:
                deaths[number] += 1
                if deaths[number] < 2:
                    waiting.append((number, group))
                    continue
                rows, seconds = None, math.nan
                error = EngineError("its process was killed, twice. Too little memory?")
            except concurrent.futures.CancelledError:
                raise
            except Exception as failure:
                rows, seconds = None, math.nan
                error = EngineError(_line(failure))
            # Dask computes what is still referred to anew if its worker dies.
            del future
            yield Outcome(group, rows, error, seconds)


def _call(function, group, environment):
    """For other processes as bytes: to read them is to import Keras."""
    if environment is None:
        return function, group
    return _unpacked, pickle.dumps((function, group)), environment


_one_at_a_time = threading.Lock()


def _unpacked(packed, environment):
    # Seeds belong to a process, and a worker of Dask may have threads.
    with _one_at_a_time:
        _prepare(environment)
        with without_notices():
            function, group = pickle.loads(packed)
            if "keras" in sys.modules:
                # It imports TensorFlow, too, where Keras computes with another backend.
                sys.modules["keras"].utils.set_random_seed(0)
        return function(group)


def _timed(call, *args):
    started = time.perf_counter()
    rows = error = None
    try:
        rows = call(*args)
    except Exception as failure:
        # As text: not every exception can be sent, nor read by who lacks its module.
        error = EngineError(_line(failure))
        error.add_note(traceback.format_exc())
    return rows, error, time.perf_counter() - started


def _line(error):
    return f"{type(error).__name__}: {error}"


def _environment():
    import keras

    return {"KERAS_BACKEND": keras.backend.backend()}


def _share_of_the_cores(workers):
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    share = str(max(1, cores // workers))
    # The first is XLA's, and so JAX's.
    names = "NPROC", "TF_NUM_INTRAOP_THREADS"
    return {name: os.environ.get(name, share) for name in names}


def _prepare(environment):
    """What Keras reads when it is imported, and only then."""
    keras = sys.modules.get("keras")
    if keras is None:
        os.environ.update(environment)
        return
    backend, expected = keras.backend.backend(), environment["KERAS_BACKEND"]
    if backend != expected:
        raise EngineError(
            f"a worker's Keras computes with {backend} already, expected {expected}. "
            "Start the cluster's workers anew"
        )


@contextlib.contextmanager
def without_notices():
    """Holds back what native code writes to stderr, unless it ends in an error.

    TensorFlow writes some of its start-up notices before it reads any log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


class _Here(concurrent.futures.Executor):
    """This process: what is submitted has ended."""

    def submit(self, function, /, *args):
        future = concurrent.futures.Future()
        future.set_result(function(*args))
        return future


@contextlib.contextmanager
def _here(progress):
    global _listener
    _listener = progress
    try:
        yield [_Here()]
    finally:
        _listener = None


class _Process(concurrent.futures.Executor):
    """A pool of one process: a larger one loses the work of all if one dies.

    The process ends as soon as the other end of its pipe is closed: by `shutdown`,
    whatever it is at, and by the system if this process is killed. What it tells comes
    through another.
    """

    def __init__(self, progress):
        self.progress = progress
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        end, self.pipe = context.Pipe(duplex=False)
        heard, telling = context.Pipe(duplex=False)
        self.pool = concurrent.futures.ProcessPoolExecutor(
            1, context, _obey, (end, telling)
        )
        threading.Thread(
            target=_listen, args=(heard, self.progress), daemon=True
        ).start()

    def submit(self, function, /, *args):
        try:
            return self.pool.submit(function, *args)
        except concurrent.futures.BrokenExecutor:
            self.shutdown()
            self._start()
            return self.pool.submit(function, *args)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.pipe.close()
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


def _listen(pipe, progress):
    with contextlib.suppress(EOFError):
        while True:
            steps = pipe.recv()
            if progress:
                progress(steps)


def _obey(pipe, telling):
    global _listener
    _listener = telling.send
    # Ctrl-C reaches all the processes of a terminal; this one is ended by its pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(pipe,), daemon=True).start()


def _leave_with(pipe):
    with contextlib.suppress(EOFError):
        pipe.recv()
    os._exit(1)


@contextlib.contextmanager
def _processes(count, progress):
    with contextlib.ExitStack() as stack:
        lanes = [stack.enter_context(_Process(progress)) for _ in range(count)]
        try:
            for started in [lane.submit(os.getpid) for lane in lanes]:
                started.result()
        except concurrent.futures.BrokenExecutor as error:
            raise EngineError(
                "a process died as it was started. A script must do this below "
                '`if __name__ == "__main__":`, for the processes import it, too'
            ) from error
        yield lanes


@contextlib.contextmanager
def _cluster(address, environment, count):
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ModuleNotFoundError as error:
        raise EngineError(
            "a cluster is one of Dask, which is not installed. "
            'Try `pip install ".[cluster]"`'
        ) from error
    try:
        # A client that finds nobody takes longer to say so, and complains at length.
        host = get_address_host_port(address, strict=True)
        socket.create_connection(host, PATIENCE).close()
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, OverflowError) as error:
        raise EngineError(
            f"no Dask scheduler answers at {address!r}: {error}. "
            "Start `dask scheduler`, and give the address that it prints"
        ) from error
    with client:
        threads: Any = client.nthreads()
        start = f"`dask worker {address} --nworkers -1 --nthreads 1` on every machine"
        if not threads:
            raise EngineError(f"the scheduler {address} has no workers. Start {start}")
        if many := [worker for worker, number in threads.items() if number > 1]:
            raise EngineError(
                f"the worker {many[0]} has {threads[many[0]]} threads, expected 1: a "
                f"process trains one group at a time. Start {start}"
            )
        try:
            client.run(_prepare, environment)
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"a worker of {address} is unfit: {error}") from error
        executor = client.get_executor(pure=False)
        try:
            yield [executor] * count
        except concurrent.futures.CancelledError as error:
            # Else Dask adds a page about its trying to connect again.
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
            raise EngineError(
                f"the scheduler {address} is gone, or was told to drop this work"
            ) from error
