import contextlib
import inspect
import io
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_nalu import expect, private
from keras_nalu.layers.base import walk_layers
from keras_nalu.models import Population
from keras_nalu.models.run import current

VERSION = 2

#: The share of the time that backups may take if `every` is `None`. An epoch of the
#: tutorial takes 3 to 6 ms and its backup 8 to 13 ms, nearly all of it for the disk.
SHARE = 0.05

#: The key that stands for an array in JSON.
ARRAY = "array in this file"

#: Their attributes describe open files, which another process does not have.
_WRITERS = keras.callbacks.TensorBoard, keras.callbacks.CSVLogger


class BackupAndRestore(keras.callbacks.CallbackList):
    """Keras' callback, for a training that is killed and then ends the same.

    Run the same program again: it goes on from the last backup, and ends with the same
    weights and history, bit for bit. A backup is one file, written under another name
    and then renamed, so that there is a complete one whenever the process dies.

    Keras' callback keeps the weights, the optimizer and the number of the epoch. This
    one also keeps the history, the seeds of layers such as Dropout, NumPy's and
    Python's global generators (which determine `shuffle` in `keras_nalu.Sequential`),
    the position of a function that samples batches, and the counts of the callbacks
    that are given to it. It does not keep the order in which Keras shuffles on
    TensorFlow and JAX, in short calls of `keras_nalu.Sequential`, too: use
    `shuffle=False` there. Generators start again from their beginning.

    If a TensorBoard is among its callbacks, the events after the last backup are
    removed, so that no step is there twice.

    Args:
        path: The file. Two trainings at a time need two files.
        callbacks: Callbacks of this training, given to this one instead of `fit`. Their
            attributes of numbers, text and arrays are kept, such as the best value of
            `EarlyStopping`, but not the arguments of their constructors.
        every: Epochs between two backups. `None` makes a backup when the last one took
            less than a twentieth of the time since then.
        delete: Whether to delete the file when the training ends, as Keras does.
            Otherwise the same training, run again, has no epoch left.

    Raises:
        ValueError: `every` is not a positive integer; `fit` got this callback without a
            list; when the training begins, the file is damaged or of another version,
            model, optimizer or backend, or the model is not built.
        OSError: the file cannot be written. The previous one is still there.

    Example:

    >>> backup = keras_nalu.BackupAndRestore("training.backup", every=1, delete=False)
    >>> model = keras_nalu.Sequential([keras.Input((2,)), NALU(1)])
    >>> model.compile("adam", "mse")
    >>> X, Y = generate_dataset(seed=0)
    >>> history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[backup])
    >>> history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[backup])
    >>> history.epoch
    [0, 1, 2]
    >>> backup.path.unlink()
    """

    def __init__(self, path, callbacks=None, every=None, delete=True):
        if every is not None:
            every = expect.integer("every", every, "a positive integer or None")
        listed = list | tuple | None, "a list of callbacks", "[EpochLine()]"
        for each in expect.kind("callbacks", callbacks, *listed) or []:
            expect.kind("callbacks", each, keras.callbacks.Callback, *listed[1:])
        super().__init__(callbacks)
        self._model = None
        self.path = Path(path)
        self.every = every
        self.delete = expect.flag("delete", delete)

    def on_train_begin(self, logs=None):
        # Keras uses a lone CallbackList as it is, and never sets its model.
        if self.model is None:
            raise ValueError(
                "Expected a list of callbacks. Received: one BackupAndRestore. Try "
                "`fit(..., callbacks=[backup])`."
            )
        super().on_train_begin(logs)
        self._epochs: list = []
        self._history: Any = {}
        if self.path.exists():
            self._restore(self._read())
        # At once, so that it has the files that a TensorBoard has just opened.
        self._save()

    def on_epoch_begin(self, epoch, logs=None):
        # Keras does not reset it, and the next `fit` would also begin there.
        private.begin_at(self.model, None)
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        # `super` would give them a copy of the logs, to which some callbacks add.
        logs = {} if logs is None else logs
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)
        self._epochs.append(epoch)
        for name, value in logs.items():
            self._history.setdefault(name, []).append(value)
        if self._is_due(epoch):
            self._save()

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        private.begin_at(self.model, None)
        self.model.history.epoch = self._epochs
        if self.delete:
            self.path.unlink(missing_ok=True)
        else:
            self._save()

    def _is_due(self, epoch):
        if self.every:
            return (epoch + 1) % self.every == 0
        return (time.perf_counter() - self._saved) * SHARE >= self._cost

    def _save(self):
        if not self.model.built:
            return
        begun = time.perf_counter()
        state, arrays = _dumps(self._state())
        content = io.BytesIO()
        np.savez(content, *arrays, state=np.frombuffer(state.encode(), "uint8"))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = f"{self.path}.partial"
        try:
            with open(partial, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        finally:
            with contextlib.suppress(OSError):
                os.remove(partial)
        self._saved = time.perf_counter()
        self._cost = self._saved - begun

    def _read(self):
        try:
            with (
                open(self.path, "rb") as content,
                np.load(content, allow_pickle=False) as file,
            ):
                arrays = [file[f"arr_{i}"] for i in range(len(file.files) - 1)]
                return _loads(bytes(file["state"]), arrays)
        except OSError:
            raise
        except Exception as error:
            raise ValueError(
                f"Expected the backup of a training. Received: {str(self.path)!r}, "
                f"which is damaged or something else ({error}). Give another `path`, "
                "or delete the file and start again."
            ) from error

    def _state(self):
        model = self.model
        return {
            "version": VERSION,
            "of": self._description(),
            "epochs": self._epochs,
            "history": self._history,
            "stopped": model.stop_training,
            "variables": [keras.ops.convert_to_numpy(v) for v in _variables(model)],
            "fit": run.state() if (run := current(model)) else None,
            "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
            "python": random.getstate(),
            "torch": _torch().get_rng_state() if _torch() else None,
            "callbacks": [_state_of(callback) for callback in self.callbacks],
        }

    def _restore(self, state):
        model = self.model
        if not model.built:
            raise ValueError(
                "Expected a model that is built, to restore its weights. Received: "
                f"{model}. Give it a `keras.Input`, or call it on a batch before `fit`."
            )
        self._expect("version", state["version"], VERSION)
        for name, expected in self._description().items():
            self._expect(name, state["of"][name], expected)
        for variable, value in zip(_variables(model), state["variables"], strict=True):
            # NumPy saves bfloat16 as raw bytes, with a dtype of kind "V".
            dtype = keras.ops.convert_to_numpy(variable).dtype
            variable.assign(value.view(dtype) if value.dtype.kind == "V" else value)
        if state["fit"] and (run := current(model)):
            run.restore(state["fit"])
        for callback, kept in zip(self.callbacks, state["callbacks"], strict=True):
            _restore_callback(callback, kept)
        version, numbers, more = state["python"]
        random.setstate((version, tuple(numbers), more))
        np.random.set_state(state["numpy"])  # noqa: NPY002
        if _torch():
            _torch().set_rng_state(_torch().from_numpy(state["torch"]))
        self._epochs = state["epochs"]
        self._history = state["history"]
        model.history.history = {name: [*v] for name, v in self._history.items()}
        # As Keras' callback does; `fit` has no public way to set its epoch.
        if state["stopped"]:
            private.begin_at(model, self.params["epochs"])
        elif self._epochs:
            private.begin_at(model, self._epochs[-1] + 1)

    def _description(self):
        """The facts in which a backup and the training must agree."""
        model = self.model
        model.optimizer.build(model.trainable_variables)
        # The layers of a population are in its template.
        whole = model.template if isinstance(model, Population) else model
        return {
            "backend": keras.backend.backend(),
            "layers": [type(layer).__name__ for layer in walk_layers(whole)],
            "optimizer": type(model.optimizer).__name__,
            "shapes": [[*v.shape, str(v.dtype)] for v in _variables(model)],
            "callbacks": [type(callback).__name__ for callback in self.callbacks],
        }

    def _expect(self, name, received, expected):
        if received != expected:
            raise ValueError(
                f"Expected the backup of this training, with {name} {expected}. "
                f"Received: {str(self.path)!r}, with {name} {received}. Give another "
                "`path`, or delete the file and start again."
            )


def _torch() -> Any:
    """PyTorch, whose global generator is to be kept, if it is the backend."""
    if keras.backend.backend() != "torch":
        return None
    import torch

    return torch


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _state_of(callback):
    if isinstance(callback, keras.callbacks.TensorBoard):
        private.flush(callback)
        counts = private.batch_counts(callback)
        return {"counts": counts, "files": _event_files(callback)}
    if isinstance(callback, _WRITERS):
        return {}
    given = {"params", *inspect.signature(type(callback)).parameters}
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in given and _is_plain(value)
    }


def _restore_callback(callback, state):
    if not isinstance(callback, keras.callbacks.TensorBoard):
        vars(callback).update(state)
        return
    private.set_batch_counts(callback, state["counts"])
    # Only in the runs of this callback: other folders may be other trainings'.
    for file, size in state["files"].items():
        path = Path(callback.log_dir, file)
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)


def _event_files(board):
    """The sizes of a TensorBoard's files; truncated to them, they are as they were."""
    folder = Path(board.log_dir)
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for run in ("train", "validation", "model")
        for file in folder.glob(f"{run}/events.out.tfevents.*")
    }


def _is_plain(value):
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | np.generic)


def _dumps(state):
    """The state as JSON, and its arrays in a list; JSON has their indices."""
    arrays = []

    def default(value):
        if isinstance(value, np.generic):
            return value.item()
        arrays.append(keras.ops.convert_to_numpy(value))
        return {ARRAY: len(arrays) - 1}

    return json.dumps(state, default=default), arrays


def _loads(text, arrays):
    def hook(value):
        return arrays[value[ARRAY]] if [*value] == [ARRAY] else value

    return json.loads(text, object_hook=hook)
