"""Running a function in this process, in several, or on a cluster, by joblib.

This module does not import Keras, as a worker has to choose its backend first.
"""

import os
import pickle
import traceback
from collections.abc import Iterator
from typing import Any


class WorkersError(Exception):
    """The workers failed. The groups that had ended were yielded before."""


def completed(
    function, groups, workers=1, scheduler=None
) -> Iterator[tuple[Any, Any, str | None]]:
    """Yields (group, result, error) as the groups end.

    An error does not stop other groups. It is a line with the traceback below, or
    `None`.

    Args:
        function: Called with each group. Other processes must be able to import it.
        groups: The arguments, in the order in which they start.
        workers: The number of processes, which share the cores; 1 uses this process.
        scheduler: Address of a Dask scheduler, such as "tcp://10.0.0.1:8786". Its
            workers, of one thread each, replace the processes. Anyone who reaches a
            scheduler can run code on them, so keep it in a private network.

    Raises:
        WorkersError: A process was killed, which ends the others, or the scheduler does
            not answer.

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
        executor = {"backend": "dask", "client": _client(scheduler)}
    else:
        executor = {"backend": "loky", "n_jobs": workers}
        # XLA, and so JAX, reads NPROC.
        for name in "NPROC", "TF_NUM_INTRAOP_THREADS":
            share = str(max(1, joblib.cpu_count() // workers))
            environment[name] = os.environ.get(name, share)
    calls = [
        # As bytes, as unpickling imports Keras.
        joblib.delayed(_unpacked)(number, pickle.dumps((function, group)), environment)
        for number, group in enumerate(groups)
    ]
    with joblib.parallel_config(**executor):
        run = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        try:
            for number, result, error in run(calls):
                yield groups[number], result, error
        except TerminatedWorkerError as error:
            raise WorkersError(
                "a process was killed, which ended the others, too. The same command "
                "trains the rest; try fewer --workers if the memory was exhausted"
            ) from error


def _client(address):
    try:
        from distributed import Client

        return Client(address, timeout=5)
    except ModuleNotFoundError as error:
        message = 'a cluster needs Dask. Try `pip install "keras-nalu[cluster]"`'
        raise WorkersError(message) from error
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
