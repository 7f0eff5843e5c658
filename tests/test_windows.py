"""Without what POSIX alone has, as on Windows."""

import pytest
from oracles import windows

PROGRAM = """
import numpy as np
import keras_nalu
from keras_nalu.cli import main
assert not [n for n in ("sysconf", "fork") if hasattr(os, n)]
assert not hasattr(signal, "SIGKILL")
X, Y = keras_nalu.generate_dataset(64, seed=0)
model = keras_nalu.Sequential([keras.Input((2,)), keras_nalu.NALU(1)])
model.compile("adam", keras_nalu.L2Loss(), metrics=[keras_nalu.SparsityError()])
model.fit(X, Y, 8, epochs=2, verbose=0)
model.save("model.keras")
again = keras_nalu.load_model("model.keras")
np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
for cls in keras_nalu.layers.LAYERS.values():
    cls(2).build((None, 3))
assert keras_nalu.formula(keras_nalu.discretize(model, X), X).lines
quick = ["--epochs", "1", "--size", "100", "--no-mlp", "--output", "out"]
assert main(["train", *quick]) == 0
assert main(["benchmark", "single-module", "--list"]) == 0
"""


@pytest.mark.slow
def test_models_and_commands_want_nothing_that_windows_lacks(tmp_path):
    done = windows.run(PROGRAM, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "model.keras").exists()
