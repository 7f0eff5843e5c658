"""A training that was killed ends as the one that was not: bit for bit."""

import functools
import multiprocessing
import os
import resource
import time
import zipfile

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_nalu
from keras_nalu.benchmarks.reinitialize import INALUReinitialize
from keras_nalu.layers import INALU, NAU, NMU

TORCH = keras.backend.backend() == "torch"
slow = pytest.mark.slow
ours = pytest.mark.skipif(TORCH, reason="no loop on the device there")
# Said where there is no loop.
pytestmark = pytest.mark.filterwarnings("ignore:Training step by step")

_rng = np.random.default_rng(0)
X = _rng.uniform(1, 2, (64, 2)).astype("float32")
SUM = X.sum(1, keepdims=True)
ARRAYS = {"x": X, "y": SUM, "batch_size": 16}


def draw(stream):
    x = stream.uniform((16, 2), 1, 2)
    return x, keras.ops.sum(x, -1, keepdims=True)


def net(cls):
    dropout = keras.layers.Dropout(0.2)
    return cls([keras.Input((2,)), dropout, NAU(4), keras.layers.Dense(1)])


def population():
    return keras_nalu.Population(net(keras.Sequential), 3)


plain = functools.partial(net, keras.Sequential)
fused = functools.partial(net, keras_nalu.Sequential)
DRAWN = {"validation_data": draw, "validation_steps": 2, "steps_per_epoch": 5}
#: Kind -> the model, and what it trains on.
KINDS = {
    "plain": (plain, ARRAYS | {"shuffle": False}),
    "fused": (fused, ARRAYS | {"shuffle": False}),
    "shuffled": (fused, ARRAYS),
    "drawn": (fused, {"x": draw} | DRAWN),
    "population": (population, ARRAYS | {"validation_data": (X, SUM)}),
    "population, drawn": (population, {"x": draw} | DRAWN),
}


def each_kind(quick=()):
    """`quick` are tried also where nobody waits for the slow ones."""
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(
                kind, marks=[ours] * (kind != "plain") + [slow] * (kind not in quick)
            )
            for kind in KINDS
        ],
    )


class Fault(Exception):
    pass


class Stop(keras.callbacks.Callback):
    """Stops the training in the middle of an epoch, as a fault would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Fault


def train(kind, *callbacks, seed=0, epochs=8, make=None):
    keras.utils.set_random_seed(seed)
    model, data = KINDS[kind]
    model = (make or model)()
    # Keras would take so few steps.
    loop = isinstance(model, keras_nalu.Sequential) and not TORCH
    asked = {"steps_per_execution": 100} if loop else {}
    model.compile(keras.optimizers.Adam(0.01), "mse", **asked)
    history = model.fit(**data, epochs=epochs, verbose=0, callbacks=[*callbacks])
    return model, history


def interrupted(kind, path, *callbacks, at=4, epochs=8, **options):
    backup = keras_nalu.BackupAndRestore(path, callbacks, **options)
    with pytest.raises(Fault):
        train(kind, backup, Stop(at), epochs=epochs)


def values(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assert_same(model, other):
    for a, b in zip(values(model), values(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("every", [pytest.param(1, marks=slow), 3])
@each_kind(quick=["plain" if TORCH else "fused"])
def test_ends_as_if_it_had_not_stopped(kind, every, tmp_path):
    """Also from another seed: nothing of a new process is left."""
    whole, history = train(kind)
    path = tmp_path / "new" / "backup"
    interrupted(kind, path, every=every)
    assert [file.name for file in path.parent.iterdir()] == ["backup"]
    backup = keras_nalu.BackupAndRestore(path, every=every)
    began = []
    note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: began.append(e))
    resumed, again = train(kind, backup, note, seed=9)
    assert began == [*range(4 if every == 1 else 3, 8)]
    assert_same(whole, resumed)
    assert again.history == history.history
    assert again.epoch == history.epoch == [*range(8)]
    for name in getattr(history, "members", ()):
        np.testing.assert_array_equal(again.members[name], history.members[name])
    assert not path.exists()


@slow
def test_keras_own_forgets_what_a_dropout_draws(tmp_path):
    """Why there is one of ours. Once this fails, say so in its docstring."""
    own = keras.callbacks.BackupAndRestore
    whole, _ = train("plain")
    with pytest.raises(Fault):
        train("plain", own(tmp_path / "own"), Stop(4))
    resumed, again = train("plain", own(tmp_path / "own"))
    assert again.epoch == [4, 5, 6, 7]
    assert any(
        (a != b).any() for a, b in zip(values(whole), values(resumed), strict=True)
    )


@slow
def test_the_next_fit_begins_at_its_begin(tmp_path):
    interrupted("plain", tmp_path / "backup", every=1)
    model, _ = train("plain", keras_nalu.BackupAndRestore(tmp_path / "backup"))
    assert model.fit(X, SUM, epochs=2, verbose=0).epoch == [0, 1]


def stopping(kind="plain"):
    stop = keras.callbacks.EarlyStopping(
        "loss", min_delta=10, patience=5, restore_best_weights=True
    )
    slow = keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=2, min_delta=10)
    return [stop, slow]


@slow
def test_callbacks_count_on(tmp_path):
    """They stop in the sixth epoch, and the rate falls in the third and fifth."""
    callbacks = stopping()
    whole, history = train("plain", *callbacks)
    interrupted("plain", tmp_path / "backup", *stopping(), every=1)
    backup = keras_nalu.BackupAndRestore(tmp_path / "backup", again := stopping())
    resumed, seen = train("plain", backup)
    assert_same(whole, resumed)
    assert seen.history == history.history
    assert len(seen.epoch) == again[0].stopped_epoch + 1 == 6
    assert again[0].best == callbacks[0].best
    assert seen.history["learning_rate"][0] > seen.history["learning_rate"][-1]


def test_a_training_that_stopped_by_itself_has_no_epoch_left(tmp_path):
    """Killed after the backup of its last epoch, or kept."""
    path = tmp_path / "backup"
    options = {"every": 1, "delete": False}
    backup = keras_nalu.BackupAndRestore(path, stopping(), **options)
    whole, history = train("plain", backup)
    assert len(history.epoch) == 6
    backup = keras_nalu.BackupAndRestore(path, stopping(), **options)
    resumed, again = train("plain", backup, Stop(6), seed=3)
    assert_same(whole, resumed)
    assert (again.epoch, again.history) == (history.epoch, history.history)


@slow
@pytest.mark.parametrize("members", [None, pytest.param(3, marks=ours)])
def test_our_callbacks_count_on(members, tmp_path):
    def make():
        cls = keras.Sequential
        model = cls([keras.Input((2,)), keras.layers.Dropout(0.5), INALU(1)])
        return keras_nalu.Population(model, members) if members else model

    def callbacks():
        stuck = INALUReinitialize(every=3, losses=8, threshold=0)
        return [stuck, keras_nalu.StopWhenSolved("loss", threshold=6)]

    whole, history = train("plain", *(first := callbacks()), epochs=20, make=make)
    path = tmp_path / "backup"
    backup = keras_nalu.BackupAndRestore(path, callbacks(), every=1)
    with pytest.raises(Fault):
        train("plain", backup, Stop(4), make=make, epochs=20)
    backup = keras_nalu.BackupAndRestore(path, again := callbacks())
    resumed, seen = train("plain", backup, seed=2, epochs=20, make=make)
    assert_same(whole, resumed)
    assert seen.history == history.history
    assert np.sum(first[0].reinitialized) > 0
    np.testing.assert_array_equal(again[0].reinitialized, first[0].reinitialized)
    np.testing.assert_array_equal(again[1].solved_at, first[1].solved_at)


@slow
def test_bfloat16(tmp_path):
    def make():
        dense = keras.layers.Dense(1, dtype="bfloat16")
        return keras.Sequential([keras.Input((2,)), dense])

    path = tmp_path / "backup"
    backup = keras_nalu.BackupAndRestore(path, delete=False)
    whole, _ = train("plain", backup, make=make)
    backup = keras_nalu.BackupAndRestore(path)
    resumed, _ = train("plain", backup, make=make, seed=4)
    assert_same(whole, resumed)


def test_a_backup_in_a_twentieth_of_the_time(tmp_path, monkeypatch):
    now = [0.0]
    saved = []

    class Timed(keras_nalu.BackupAndRestore):
        def _save(self):
            now[0] += 1  # at the begin, to measure a cost of 1 s below
            saved.append(len(self._epochs))
            super()._save()

    def clock():
        return now[0]

    def fsync(_):
        now[0] += 1

    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(os, "fsync", fsync)

    def epoch(*_):
        now[0] += 6

    passes = keras.callbacks.LambdaCallback(on_epoch_begin=epoch)
    train("plain", passes, Timed(tmp_path / "backup"), epochs=10)
    assert saved == [0, 4, 8]


def test_arguments(tmp_path):
    with pytest.raises(
        ValueError, match=r"positive integer or None\. .* every=0\. Try"
    ):
        keras_nalu.BackupAndRestore("backup", every=0)
    model, backup = plain(), keras_nalu.BackupAndRestore(tmp_path / "backup")
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"Expected a list of callbacks\."):
        model.fit(X, SUM, verbose=0, callbacks=backup)


def test_a_model_that_is_not_built(tmp_path):
    """TensorFlow alone builds one only within the first step."""

    def make():
        dropout = keras.layers.Dropout(0.2)
        return keras.Sequential([dropout, NAU(4), keras.layers.Dense(1)])

    path = tmp_path / "backup"
    interrupted("plain", path, every=1)
    backup = keras_nalu.BackupAndRestore(path)
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match=r"model that is built.*`keras\.Input`"):
            train("plain", backup, make=make)
    else:
        assert_same(train("plain")[0], train("plain", backup, make=make)[0])


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """Of a backup."""
    path = tmp_path_factory.mktemp("backup") / "backup"
    interrupted("plain", path, every=1)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (lambda: [keras.layers.Dropout(0.2), NMU(4), keras.layers.Dense(1)], "layers"),
        (lambda: [keras.layers.Dropout(0.2), NAU(5), keras.layers.Dense(1)], "shapes"),
    ],
)
def test_the_backup_of_another_model(layers, said, content, tmp_path):
    path = tmp_path / "backup"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"with {said} .* Received: .*with {said} "):
        train(
            "plain",
            keras_nalu.BackupAndRestore(path),
            make=lambda: keras.Sequential([keras.Input((2,)), *layers()]),
        )
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["cut off", "changed", "text", "empty", "npz"])
def test_a_damaged_backup_is_said_and_left(damage, content, tmp_path):
    path = tmp_path / "backup"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as file:
        at = file.getinfo("state.npy").header_offset + 200
    if damage == "npz":
        with open(path, "wb") as file:
            np.savez(file, weights=np.ones(3))
    else:
        path.write_bytes(
            {
                "cut off": content[:-100],
                "changed": content[:at] + b"#" + content[at + 1 :],
                "text": b"weights",
                "empty": b"",
            }[damage]
        )
    before = path.read_bytes()
    with pytest.raises(ValueError, match="which is damaged or something else"):
        train("plain", keras_nalu.BackupAndRestore(path))
    assert path.read_bytes() == before


def test_a_backup_of_an_older_version(tmp_path, monkeypatch):
    path = tmp_path / "backup"
    with monkeypatch.context() as older:
        older.setattr("keras_nalu.backup.VERSION", 0)
        interrupted("plain", path, every=1)
    with pytest.raises(ValueError, match=r"with version 2\. Received: .* version 0\."):
        train("plain", keras_nalu.BackupAndRestore(path))


@slow
def test_a_full_disk_leaves_the_backup_from_before(tmp_path):
    path = tmp_path / "backup"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(epoch, _):
        if epoch == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))

    full = keras.callbacks.LambdaCallback(on_epoch_begin=fill)
    try:
        with pytest.raises(OSError, match="File too large"):
            train("plain", full, keras_nalu.BackupAndRestore(path, every=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [*tmp_path.iterdir()] == [path]
    whole, _ = train("plain")
    resumed, history = train("plain", keras_nalu.BackupAndRestore(path), seed=1)
    assert_same(whole, resumed)
    assert len(history.epoch) == 8


# Killed: in processes of their own.

#: `KILLS=20 python -m pytest -m slow tests/test_resume.py` takes some ten minutes.
KILLS = int(os.environ.get("KILLS", 4))
#: More than are over when all have been killed.
EPOCHS = 50 * (KILLS + 1)


def train_to_the_end(kind, folder, begun, when):
    """In a process that may be killed at any time."""

    def begin(*_):
        begun.set()
        if when == "saving":
            time.sleep(60)

    begins = keras.callbacks.Callback()
    if when == "saving":
        os.fsync = begin
    else:
        begins = keras.callbacks.LambdaCallback(**{when: begin})
    board = keras_nalu.TensorBoard(folder / "logs", kernel_freq=50)
    backup = keras_nalu.BackupAndRestore(folder / "backup", [board], every=1)
    seed = os.getpid() if backup.path.exists() else 0
    model, history = train(kind, backup, begins, epochs=EPOCHS, seed=seed)
    np.savez(folder / "end.npz", *values(model), **history.history)


def steps(run, tag):
    events = EventAccumulator(str(run), {"tensors": 0}).Reload()
    # TensorBoard reads files by name; of one process and second, the tenth sorts
    # before the ninth.
    return sorted(event.step for event in events.Tensors(tag))


@each_kind()
def test_killed_at_any_moment(kind, tmp_path):
    """Also before the first epoch, and while a backup is half written."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["keras", "keras_nalu.models"])
    moments = np.random.default_rng(len(kind))
    for kills in range(KILLS + 1):
        begun = processes.Event()
        # Before the first epoch it compiles, for longer than many epochs take.
        when = {0: "on_train_begin", 2: "saving"}.get(kills % 5)
        if kills == KILLS or not when:
            when = "on_epoch_end"
        process = processes.Process(
            target=train_to_the_end, args=(kind, tmp_path, begun, when)
        )
        process.start()
        assert begun.wait(120)
        if kills < KILLS:
            time.sleep(0 if when == "saving" else moments.uniform(0, 0.5))
            assert process.is_alive()
            process.kill()
        process.join()
        assert (tmp_path / "backup.partial").exists() or when != "saving"
    assert process.exitcode == 0
    whole, history = train(kind, epochs=EPOCHS)
    with np.load(tmp_path / "end.npz") as end:
        for i, value in enumerate(values(whole)):
            np.testing.assert_array_equal(end[f"arr_{i}"], value)
        for name, value in history.history.items():
            np.testing.assert_array_equal(end[name], value)
    logs = tmp_path / "logs"
    assert steps(logs / "train", "epoch_loss") == [*range(EPOCHS)]
    if "val_loss" in history.history:
        assert steps(logs / "validation", "epoch_loss") == [*range(EPOCHS)]
    if "population" not in kind:
        kernels = steps(logs / "model", "nau/kernel/image")
        assert kernels == [*range(0, EPOCHS, 50), EPOCHS - 1]
