import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_nalu
from keras_nalu.layers import NALU
from keras_nalu.losses import L2Loss
from keras_nalu.metrics import IsCloseAccuracy, LastBatchLoss

X = np.random.default_rng(0).integers(1, 9, size=(40, 2)).astype("float32")
Y = X.prod(axis=1, keepdims=True)


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


def test_load_model_where_nothing_was_imported(saved):
    """And Keras' own loader fails there, with the text that the docs name."""
    _, path, expected = saved
    logs = in_a_new_process(
        """
import keras
try:
    keras.saving.load_model(path)
except TypeError as error:
    assert "Could not locate class 'NALU'" in str(error), error
else:
    raise SystemExit("loaded without an import: say so in load_model's docstring")
assert not [name for name in sys.modules if name.startswith("keras_nalu")]
import keras_nalu
report(keras_nalu.load_model(path))
""",
        path,
    )
    assert logs == pytest.approx(expected, rel=1e-6)


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


def test_arguments(saved):
    model, path, _ = saved
    bare = keras_nalu.load_model(path, compile=False)
    assert not bare.compiled
    np.testing.assert_array_equal(bare.predict(X), model.predict(X))
    assert [layer.epsilon for layer in bare.layers] == [1e-7, 1e-5]


def test_safe_mode(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,)), NALU(1), keras.layers.Lambda(lambda x: 2 * x)]
    )
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="deserialization of a `Lambda` layer"):
        keras_nalu.load_model(tmp_path / "model.keras")
    copy = keras_nalu.load_model(tmp_path / "model.keras", safe_mode=False)
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))


def test_custom_objects(tmp_path):
    class Twice(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    model = keras.Sequential([keras.Input((2,)), NALU(1), Twice()])
    model.save(tmp_path / "model.keras")
    with pytest.raises(TypeError, match="Could not locate class 'Twice'"):
        keras_nalu.load_model(tmp_path / "model.keras")
    copy = keras_nalu.load_model(tmp_path / "model.keras", {"Twice": Twice})
    np.testing.assert_array_equal(copy.predict(X), model.predict(X))


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="File not found"):
        keras_nalu.load_model(tmp_path / "model.keras")


#: Written out: a saved model carries them.
LAYER_NAMES = (
    "NAC NACMul NALU SeparateNALU GNALU INALU SharedINALU NAU NMU SNMU NaiveNPU NPU "
    "RealNPU NRU NMRU MCFC MulMCFC NSR"
).split()


def test_registered_names_never_change():
    names = {
        keras.saving.get_registered_name(cls)
        for cls in (*keras_nalu.layers.LAYERS.values(), L2Loss, IsCloseAccuracy)
    } | {keras.saving.get_registered_name(LastBatchLoss)}
    assert names == {
        *(f"keras_nalu>{name}" for name in LAYER_NAMES),
        "keras_nalu>L2Loss",
        "keras_nalu>IsCloseAccuracy",
        "keras_nalu>LastBatchLoss",
    }
