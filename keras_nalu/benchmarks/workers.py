"""Groups of work in this process, in several, or on a cluster: joblib's.

Nothing here imports Keras: a worker has to choose its backend first.
"""

import os
import pickle
import traceback
from collections.abc import Iterator
from typing import Any


class WorkersError(Exception):
    """One line for whoever started the run. What has ended was yielded."""


def completed(
    function, groups, workers=1, scheduler=None
) -> Iterator[tuple[Any, Any, str | None]]:
    """Yields (group, result, error) as the groups end; an error, a line with the
    traceback below it or `None`, stops no other group.

    Args:
        function: Called with a group. For other processes, one that they can import.
        groups: In the order in which they begin.
        workers: How many processes, with a share of the cores each; 1 is this very one.
        scheduler: Address of a Dask scheduler, such as "tcp://10.0.0.1:8786": its
            workers, of one thread each, are used in the place of processes. Whoever
            reaches a scheduler can run code on them: keep it in a network of your own.

    Raises:
        WorkersError: a process was killed, which ends the others; or no such cluster.

    Example:

    >>> from keras_nalu.benchmarks.workers import completed
    >>> list(completed(len, ["ab", "c"]))
    [('ab', 2, None), ('c', 1, None)]
    """
    groups = list(groups)
    if workers == 1 and not scheduler:
        for group in groups:
            yield group, *_called(function, group)
        return
    import joblib
    import keras
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    environment = {"KERAS_BACKEND": keras.backend.backend()}
    if scheduler:
        engine = {"backend": "dask", "client": _client(scheduler)}
    else:
        engine = {"backend": "loky", "n_jobs": workers}
        # The first is XLA's, and so JAX's.
        for name in "NPROC", "TF_NUM_INTRAOP_THREADS":
            share = str(max(1, joblib.cpu_count() // workers))
            environment[name] = os.environ.get(name, share)
    calls = [
        # As bytes: to read them is to import Keras.
        joblib.delayed(_unpacked)(number, pickle.dumps((function, group)), environment)
        for number, group in enumerate(groups)
    ]
    with joblib.parallel_config(**engine):
        run = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        try:
            for number, result, error in run(calls):
                yield groups[number], result, error
        except TerminatedWorkerError as error:
            raise WorkersError(
                "a process was killed, and with it what the others had begun. The same "
                "command goes on, with fewer --workers if the memory was too little"
            ) from error


def _client(address):
    try:
        from distributed import Client

        return Client(address, timeout=5)
    except ModuleNotFoundError as error:
        raise WorkersError("Try `pip install distributed` for a cluster") from error
    except (OSError, ValueError, OverflowError) as error:
        raise WorkersError(
            f"no Dask scheduler answers at {address!r}: {error}. Give the address that "
            "`dask scheduler` prints"
        ) from error


def _unpacked(number, packed, environment):
    os.environ.update(environment)
    import keras_nalu.quiet  # noqa: F401 - before the next line, which imports Keras

    return number, *_called(*pickle.loads(packed))


def _called(function, group) -> tuple[Any, str | None]:
    try:
        return function(group), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
