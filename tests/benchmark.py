"""How long a step of the notebook's training takes, beside its own TF-1 loop.

    python tests/benchmark.py

One after the other in one process; start-up and compilation are not counted.
"""

import time

import keras
from test_notebook_trajectory import run_tf1

from keras_nalu import IsCloseAccuracy, L2Loss
from keras_nalu.experiments.notebook import Notebook

EPOCHS = 5


def seconds_of_loop(run):
    """Of an epoch: what more epochs cost, since the first one builds the graph."""
    X, _ = run.data()
    started = time.perf_counter()
    run_tf1(X, run.nalu().get_weights(), 1)
    built = time.perf_counter()
    run_tf1(X, run.nalu().get_weights(), 1 + EPOCHS)
    return (time.perf_counter() - built - (built - started)) / EPOCHS


def seconds_of_fit(run, model):
    ends = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    run.fit(model, [keep])
    return (ends[-1] - ends[0]) / EPOCHS


def main():
    run = Notebook(epochs=1 + EPOCHS)
    plain = run.nalu()
    plain.compile(plain.optimizer, L2Loss(), metrics=[IsCloseAccuracy()])
    loop = seconds_of_loop(run)
    print(f"the notebook's TF-1 loop  {loop * 1e3:5.0f} us a step")
    for name, model in (
        ("fit, Keras' defaults", plain),
        ("keras-nalu train", run.nalu()),
    ):
        seconds = seconds_of_fit(run, model)
        print(f"{name:24}{seconds * 1e3:7.0f} us a step: {loop / seconds:.1f} times")


if __name__ == "__main__":
    main()
