"""Bad input to models, callbacks and files: whatever comes, a right answer, or an error
that says what to type."""

import functools
import io
import zipfile
from pathlib import Path

import keras
import pytest
from hypothesis import assume, example
from hypothesis import strategies as st
from oracles.anything import (
    ANYTHING,
    BACKEND,
    FEW,
    FEWER,
    cases,
    count,
    is_flag,
    is_integer,
    is_number,
    make,
    never,
    refused,
)

import keras_nalu
from keras_nalu.models.feeds.sampled import Sampled


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def a_model():
    return keras.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])


@functools.cache
def compiled():
    model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])
    model.compile("sgd", "mse")
    return model


OTHERS = {
    "EpochLine write": (make(keras_nalu.EpochLine), "write", callable),
    "StopWhenSolved monitor": (
        make(keras_nalu.StopWhenSolved),
        "monitor",
        lambda v: isinstance(v, str),
    ),
    "StopWhenSolved threshold": (
        make(keras_nalu.StopWhenSolved),
        "threshold",
        is_number,
    ),
    "BackupAndRestore callbacks": (
        make(keras_nalu.BackupAndRestore, path="x"),
        "callbacks",
        lambda v: v is None or (isinstance(v, list) and not v),
    ),
    "BackupAndRestore every": (
        make(keras_nalu.BackupAndRestore, path="x"),
        "every",
        lambda v: v is None or count()(v),
    ),
    "BackupAndRestore delete": (
        make(keras_nalu.BackupAndRestore, path="x"),
        "delete",
        is_flag,
    ),
    "TensorBoard kernel_freq": (make(keras_nalu.TensorBoard), "kernel_freq", count(0)),
    "Sequential layers": (
        make(keras_nalu.Sequential),
        "layers",
        lambda v: v is None or (isinstance(v, list | tuple) and not v),
    ),
}
#: What is valid here, and not what the test is for.
SKIPPED = {
    "Sequential layers": lambda v: isinstance(v, list | tuple),
}


@pytest.mark.parametrize("what", OTHERS)
@cases(value=ANYTHING)
def test_an_argument(what, value):
    call, name, is_right = OTHERS[what]
    assume(not SKIPPED.get(what, never)(value))
    if is_right(value):
        call(**{name: value})
    else:
        with refused(name):
            call(**{name: value})


@pytest.mark.parametrize("call", [keras_nalu.BackupAndRestore, keras_nalu.load_model])
@pytest.mark.parametrize("path", [3, 0.5, None, ["x"]])
def test_a_path(call, path):
    with pytest.raises(TypeError, match=r"expected str, bytes or os\.PathLike object"):
        call(path)


# Models.


@example(value=-1, name="seed")
@cases(value=ANYTHING, name=st.sampled_from(["size", "seed", "model"]))
def test_an_argument_of_a_population(value, name):
    if BACKEND == "torch":
        pytest.skip("trains no populations")
    given = {"model": template(), "size": 1, name: value}
    # One that is right is made in test_population.py: it takes a second.
    right = count(1, 2**36)(value) if name == "size" else value is None
    assume(not right and not (name == "seed" and is_integer(value) and value >= 0))
    with refused(name):
        keras_nalu.Population(**given)


@functools.cache
def template():
    return a_model()


@cases(value=ANYTHING)
def test_steps_per_execution(value):
    model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)])
    if count()(value) or (isinstance(value, str) and value == "auto"):
        model.compile("sgd", "mse", steps_per_execution=value)
    else:
        with refused("steps_per_execution"):
            model.compile("sgd", "mse", steps_per_execution=value)


# Files.


@functools.cache
def saved():
    content = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        path = Path("whole.keras").resolve()
        patch.chdir(path.parent)
        keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NAU(1)]).save(path)
        content.write(path.read_bytes())
    return content.getvalue()


@cases(
    FEWER,
    at=st.integers(0, 10**6),
    cut=st.booleans(),
    noise=st.binary(min_size=1, max_size=20),
    part=st.sampled_from(["whole", "config.json", "metadata.json", "model.weights.h5"]),
)
def test_a_model_file_that_is_damaged(at, cut, noise, part):
    content = saved()

    def damage(data):
        place = at % len(data)
        rest = b"" if cut else data[place + len(noise) :]
        return data[:place] + noise + rest

    path = Path("damaged.keras")
    if part == "whole":
        path.write_bytes(damage(content))
    else:
        with (
            zipfile.ZipFile(io.BytesIO(content)) as old,
            zipfile.ZipFile(path, "w") as new,
        ):
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, damage(data) if name == part else data)
    said = ""
    try:
        model = keras_nalu.load_model(path)
        # The damage is where it does not matter, as in a date.
        assert model.name
    except (ValueError, TypeError) as error:
        said = str(error)
    assert said == "" or said.startswith("Could not load 'damaged.keras': ")
    assert "\n" not in said


@cases(FEWER, content=st.one_of(st.binary(max_size=60), st.just(b"PK\5\6" + bytes(18))))
def test_a_backup_that_is_no_backup(content):
    Path("training.backup").write_bytes(content)
    backup = keras_nalu.BackupAndRestore("training.backup")
    backup.set_model(compiled())
    backup.set_params({"epochs": 1})
    with refused("path"):
        backup.on_train_begin()
    assert Path("training.backup").read_bytes() == content


@cases(FEW, steps=ANYTHING)
def test_a_function_draws_a_number_of_batches(steps):
    assume(steps is not None and not count()(steps))
    with refused("steps", "steps_per_epoch"):
        Sampled(lambda stream: (stream.uniform((2, 2)), stream.uniform((2, 1))), steps)
