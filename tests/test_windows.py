"""Without what POSIX alone has, as on Windows."""

import pytest
from oracles import windows

PROGRAM = """
import numpy as np
import keras_nalu
X, Y = keras_nalu.generate_dataset(64, seed=0)
model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NALU(1)])
model.compile("adam", keras_nalu.L2Loss(), metrics=[keras_nalu.SparsityError()])
model.fit(X, Y, 8, epochs=2, verbose=0)
model.save("model.keras")
again = keras_nalu.load_model("model.keras")
np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
for cls in keras_nalu.layers.LAYERS.values():
    cls(2).build((None, 3))
print(keras_nalu.formula(keras_nalu.discretize(model, X), X).lines != [])
"""


@pytest.mark.parametrize("name", ["os.sysconf", "os.fork", "signal.SIGKILL"])
def test_what_is_gone_is_gone(name, tmp_path):
    done = windows.run(f"print({name})", tmp_path)
    assert "AttributeError" in done.stderr


def test_a_model_is_made_trained_saved_and_loaded(tmp_path):
    done = windows.run(PROGRAM, tmp_path)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
