import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu.benchmarks import inalu  # noqa: F401  It registers its recipe.
from keras_nalu.layers import NALU
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import IsCloseAccuracy, LastBatchLoss

X = np.random.default_rng(0).integers(1, 9, size=(40, 2)).astype("float32")
Y = X.prod(axis=1, keepdims=True)


#: Written out: a saved model carries them.
NAMES = """
    NAC NACMul NALU SeparateNALU GNALU INALU SharedINALU NAU NMU SNMU NaiveNPU NPU
    RealNPU NRU NMRU MCFC MulMCFC NSR ArithmeticCell Sequential Model Functional
    Population L2Loss IsCloseAccuracy LastBatchLoss SparsityError NACUniform NAUUniform
    NMUUniform Orthogonal UnitVector Clip Discretization INALUPenalty L1 NegativeSquare
    OutOfRange Sparsity Sum LinearRamp StepwiseGrowth
""".split()
#: Of one paper's recipe, a guest: whoever saved such a model has imported its room.
RECIPES = (
    "NALUBesideINALU PortedINALU INALUAdam PenalizedPopulation BatchLossDeviation"
).split()


def compiled():
    loss = L2Loss()
    model = keras.Sequential([keras.Input((2,)), NALU(3), NALU(1, epsilon=1e-5)])
    model.compile(
        keras.optimizers.Adam(0.01),
        loss,
        metrics=[IsCloseAccuracy(1e-2), LastBatchLoss(loss)],
    )
    return model


def fit(model):
    return model.fit(X, Y, 10, epochs=2, shuffle=False, verbose=0).history


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = compiled()
    fit(model)
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    expected = model.evaluate(X, Y, 10, verbose=0, return_dict=True)
    return model, path, expected


def in_a_new_process(code, path):
    code = f"""
import json, sys
import numpy as np
X = np.array({X.tolist()}, "float32")
Y = X.prod(axis=1, keepdims=True)
def report(model):
    logs = model.evaluate(X, Y, batch_size=10, verbose=0, return_dict=True)
    print(json.dumps(logs))
path = {str(path)!r}
{code}
"""
    env = os.environ | {"KERAS_BACKEND": keras.backend.backend()}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


@pytest.mark.slow
def test_load_model_where_nothing_was_imported(saved):
    """And Keras' own loader fails there, with the text that the manual quotes."""
    _, path, expected = saved
    quoted = "Could not locate class 'NALU'. Make sure custom classes"
    logs = in_a_new_process(
        f"""
import keras
try:
    keras.saving.load_model(path)
except TypeError as error:
    assert {quoted!r} in str(error), error
else:
    raise SystemExit("loaded without an import: say so in load_model's docstring")
assert not [name for name in sys.modules if name.startswith("keras_nalu")]
import keras_nalu
report(keras_nalu.load_model(path))
""",
        path,
    )
    assert logs == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_keras_loads_it_once_any_layer_is_imported(saved):
    _, path, expected = saved
    logs = in_a_new_process(
        """
from keras_nalu.layers import NAC
import keras
report(keras.saving.load_model(path))
""",
        path,
    )
    assert logs == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_one_import_is_enough_for_keras_whatever_the_file_names():
    code = """
import keras
from keras_nalu import Sequential
names = [n for n in keras.saving.get_custom_objects() if n.startswith("keras_nalu>")]
print(json.dumps(names))
"""
    assert {*in_a_new_process(code, "")} >= {f"keras_nalu>{name}" for name in NAMES}


@pytest.mark.slow
def test_training_continues_as_if_it_had_not_stopped(saved):
    _, path, _ = saved
    first, second = (keras_nalu.load_model(path) for _ in range(2))
    logs = fit(first)
    keras.utils.set_random_seed(123)
    assert fit(second) == logs
    assert first.optimizer.iterations == 16
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    keras.utils.set_random_seed(0)
    unbroken = compiled()
    fit(unbroken)
    assert fit(unbroken)["loss"] == pytest.approx(logs["loss"], rel=1e-5)


@pytest.mark.parametrize("name", [*NAMES, *RECIPES])
def test_files_hold_names_that_do_not_change(name):
    thing = keras.saving.get_registered_object(f"keras_nalu>{name}")
    assert keras.saving.get_registered_name(thing) == f"keras_nalu>{name}"


def test_arguments(saved):
    model, path, _ = saved
    bare = keras_nalu.load_model(path, compile=False)
    assert not bare.compiled
    np.testing.assert_array_equal(bare.predict(X), model.predict(X))
    assert [layer.epsilon for layer in bare.layers] == [1e-7, 1e-5]


# Files from elsewhere.


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What is in a file, by name."""
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(1, name="dense")(NALU(1, name="nalu")(inputs))
    model = keras.Sequential(keras.Model(inputs, outputs).layers)
    model.compile("sgd", "mse")
    path = tmp_path_factory.mktemp("parts") / "model.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts, path):
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return path


def changed(parts, path, change):
    """The file, with another config."""
    config = json.loads(parts["config.json"])
    change(config)
    return zipped(parts | {"config.json": json.dumps(config)}, path)


def error_of(path, **kwargs):
    with pytest.raises((TypeError, ValueError)) as info:
        keras_nalu.load_model(path, **kwargs)
    text = str(info.value)
    assert text.startswith(f"Could not load {str(path)!r}: ")
    assert "\n" not in text
    assert len(text) < 1000
    return text.split(": ", 1)[1]


def touching(marker):
    """A Lambda layer whose function creates a file, as a config."""
    code = f"lambda x, *rest: (open({str(marker)!r}, 'w').close(), x)[1]"
    return keras.saving.serialize_keras_object(keras.layers.Lambda(eval(code)))


def named(module, name, **config):
    whole = {"module": module, "registered_name": f"{module}>{name}"}
    return whole | {"class_name": name, "config": config}


def function(module, name):
    whole = {"module": module, "registered_name": name}
    return whole | {"class_name": "function", "config": name}


PLACES = {
    "initializer": lambda c, evil: inner(c, 1).update(kernel_initializer=evil),
    "regularizer": lambda c, evil: inner(c, 1).update(kernel_regularizer=evil),
    "constraint": lambda c, evil: inner(c, 1).update(kernel_constraint=evil),
    "activation": lambda c, evil: inner(c, 2).update(activation=evil),
    "layer": lambda c, evil: c["config"]["layers"].append(evil),
    "loss": lambda c, evil: c["compile_config"].update(loss=evil),
    "metric": lambda c, evil: c["compile_config"].update(metrics=[evil]),
    "optimizer": lambda c, evil: c["compile_config"].update(optimizer=evil),
    "compile_config": lambda c, evil: c.update(compile_config=evil),
    "model": lambda c, evil: (c.clear(), c.update(evil)),
}
REFUSED = (
    "Could not (locate|interpret)|Requested the deserialization|Cannot deserialize|"
    "Unknown layer: '__lambda__'"
)


def inner(config, index):
    return config["config"]["layers"][index]["config"]


@pytest.mark.parametrize("place", PLACES)
def test_a_file_runs_no_code(place, parts, tmp_path):
    """Whatever it names, and wherever."""
    marker = tmp_path / "marker"
    evils = [
        touching(marker)["config"]["function"],
        named("subprocess", "Popen", args=["touch", str(marker)]),
        named("os", "system", command=f"touch {marker}"),
        function("os", "system"),
        function("builtins", "exec"),
        function("keras.utils", "get_file"),
    ]
    for evil in evils:
        path = changed(
            parts, tmp_path / "model.keras", lambda c, evil=evil: PLACES[place](c, evil)
        )
        assert re.match(REFUSED, error_of(path)), evil
        assert not marker.exists()


def test_safe_mode(parts, tmp_path):
    """It is what stands between a file's code and this machine."""
    marker = tmp_path / "marker"
    evil = touching(marker)
    path = changed(
        parts, tmp_path / "model.keras", lambda c: c["config"]["layers"].append(evil)
    )
    text = error_of(path)
    assert text.startswith("Requested the deserialization of a `Lambda` layer")
    assert "by passing `safe_mode=False` to the loading function" in text
    assert not marker.exists()
    trusted = keras_nalu.load_model(path, safe_mode=False)
    trusted(X)
    assert marker.exists()


def test_a_path_that_leads_out_of_the_file(parts, tmp_path):
    """Keras unpacks files of more than three parts, and leaves such a part out."""
    folder = tmp_path / "deep" / "deeper"
    folder.mkdir(parents=True)
    outside = tmp_path / "absolute"
    names = ["../escaped", "assets/../../escaped", str(outside)]
    path = zipped(parts | dict.fromkeys(names, "x"), folder / "model.keras")
    with pytest.warns(UserWarning, match="Skipping invalid path") as warned:
        keras_nalu.load_model(path)
    assert len(warned) == 3
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


class Touch:
    """What a pickle of it does when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def in_npz(harmful):
    file = io.BytesIO()
    np.savez(file, **{"layers/nalu": np.array({"0": harmful}, dtype=object)})
    return {"model.weights.npz": file.getvalue()}


def in_h5(value, weights):
    file = io.BytesIO(weights)
    with h5py.File(file, "r+") as h5:
        del h5["layers/nalu/vars/0"]
        h5["layers/nalu/vars/0"] = value
    return {"model.weights.h5": file.getvalue()}


def test_pickles_are_not_read(parts, tmp_path):
    marker = tmp_path / "marker"
    pickled = pickle.dumps(Touch(marker))
    weights = parts["model.weights.h5"]
    rest = {name: parts[name] for name in parts if name != "model.weights.h5"}
    for harmful, said in [
        # In the words of every version that pyproject.toml allows.
        (in_npz(Touch(marker)), "Object array"),
        ({"model.weights.npz": pickled}, "pickled"),
        (in_h5(np.void(pickled), weights), "A total of 1 objects could not be"),
        (in_h5(h5py.ExternalLink("/etc/passwd", "/"), weights), "A total of 1"),
    ]:
        path = zipped(rest | harmful, tmp_path / "model.keras")
        assert said in error_of(path)
        assert not marker.exists()
    pickle.loads(pickled).close()
    assert marker.exists()


# Files that are none.

SAVED = "Type the path of a file that `model.save('model.keras')` wrote."
AGAIN = "Copy or download it again."
BROKEN = "it is damaged, or `model.save` did not write it ("


def test_no_file(tmp_path):
    for name in ("model.keras", "model"):
        assert error_of(tmp_path / name) == f"there is no such file. {SAVED}"
    for name in ("folder.keras", "folder"):
        (tmp_path / name).mkdir()
        assert error_of(tmp_path / name) == f"it is a folder. {SAVED}"
    (tmp_path / "empty.keras").touch()
    assert error_of(tmp_path / "empty.keras") == f"it is empty. {SAVED}"


def test_a_file_of_another_name(saved, tmp_path):
    _, path, _ = saved
    other = tmp_path / "model.zip"
    other.write_bytes(path.read_bytes())
    assert error_of(other) == f"its name does not end in '.keras'. {SAVED}"


def test_a_file_that_is_cut_off(saved, tmp_path):
    whole = saved[1].read_bytes()
    no_zip = f"it is not a zip archive, or is cut off. {AGAIN}"
    for content in (b"<html>", whole[: len(whole) // 2], whole[:-1]):
        (tmp_path / "model.keras").write_bytes(content)
        assert error_of(tmp_path / "model.keras") == no_zip


def test_a_file_with_changed_bytes(saved, tmp_path):
    for part in (b'"class_name"', b"\x89HDF"):
        content = saved[1].read_bytes().replace(part, b"x" * len(part), 1)
        (tmp_path / "model.keras").write_bytes(content)
        text = error_of(tmp_path / "model.keras")
        assert text.startswith(f"{BROKEN}Bad CRC-32 for file")
        assert text.endswith(AGAIN)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b"null"),
        ("config.json", b"\xff\xfe\x00"),
        ("model.weights.h5", None),
        ("model.weights.h5", b"weights"),
    ],
)
def test_a_zip_archive_of_something_else(name, content, parts, tmp_path):
    other = parts | {name: content}
    if content is None:
        del other[name]
    text = error_of(zipped(other, tmp_path / "model.keras"))
    assert text.startswith(BROKEN)
    assert text.endswith(AGAIN)


def test_what_a_layer_refuses(parts, tmp_path):
    path = changed(
        parts, tmp_path / "model.keras", lambda c: inner(c, 1).update(units=-1)
    )
    assert error_of(path) == (
        "Received an invalid value for `units`, expected a positive integer. "
        "Received: units=-1. Try units=1."
    )


# Classes of one's own.


def test_custom_objects(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    class Three(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return keras.ops.full(shape, 3.0, dtype)

    layers = [NALU(1, kernel_initializer=Three()), Twice()]
    model = keras.Sequential([keras.Input((2,)), *layers])
    path = tmp_path / "model.keras"
    model.save(path)
    own = (
        ". If it is your own, import the module that registers it first, or give it: "
        "`load_model(filepath, custom_objects={'Name': Name})`."
    )
    text = error_of(path, custom_objects={"Three": Three})
    assert text == f"Could not locate class 'Twice'{own}"
    text = error_of(path, custom_objects={"Twice": Twice})
    assert text.startswith("Could not interpret initializer identifier: ")
    assert "'class_name': 'Three'" in text
    assert text.endswith(own)
    copy = keras_nalu.load_model(path, {"Twice": Twice, "Three": Three})
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))
    with keras.saving.custom_object_scope({"Twice": Twice, "Three": Three}):
        keras_nalu.load_model(path)
