"""How fast training is, and how much memory it takes, beside what it compares with.

    KERAS_BACKEND=jax python tests/speed/speed.py [ROW ...] [--full]
    python tests/speed/speed.py layers --width 64 256 1024

Medians of paired samples: what is compared takes turns, in one run on one machine.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

sys.path.append(str(Path(__file__).parents[1]))

import bare
import keras
import notebook_tf1
import numpy as np
from oracles.cases import CASES

import keras_nalu
import keras_nalu.layers
from keras_nalu import regularizers
from keras_nalu.benchmarks import runner
from keras_nalu.models.backends import programs

STEPS = 1000
ROUNDS = 7
SIZES = 1, 10, 100, 1000, 10_000
LOOP = "the notebook's TF-1 loop"
BARE = "a bare loop without Keras"


def data(steps=STEPS, batch=10):
    return keras_nalu.generate_dataset(steps * batch, seed=0)


def notebook(size=None):
    """The notebook's model, or a population of so many, compiled as it trains it."""
    layers = [keras.Input((2,)), keras_nalu.NALU(1)]
    model = keras_nalu.Sequential(layers)
    if size is not None:
        model = keras_nalu.Population(keras.Sequential(layers), size, seed=0)
    loss = keras_nalu.L2Loss()
    metrics = [keras_nalu.IsCloseAccuracy(), keras_nalu.LastBatchLoss(loss)]
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), loss, metrics=metrics)
    return model


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def of_fit(model, *data, epochs, steps=STEPS, **options):
    """A sample of `fit`: microseconds a step of a member, after the first epoch."""
    ends = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter())
    )
    line = keras_nalu.EpochLine(lambda line: None)
    options |= {"epochs": 1 + epochs, "verbose": 0, "callbacks": [line, keep]}

    def sample():
        model.fit(*data, **options)
        taken = ends[-1] - ends[-1 - epochs]
        return taken / epochs / steps / getattr(model, "size", 1) * 1e6

    return sample


def of_notebook(size=None, epochs=5, steps=STEPS, batch=10):
    options = {"batch_size": batch, "shuffle": False}
    return of_fit(
        notebook(size), *data(steps, batch), epochs=epochs, steps=steps, **options
    )


def of_tf1():
    """A sample of the notebook's own loop: an epoch, in a session that stays open."""
    lines = notebook_tf1.train()
    return lambda: seconds(lambda: next(lines)) / STEPS * 1e6


def of_bare(members, read, divisor, **options):
    train = bare.training(read, members, divisor, STEPS, **options)
    return lambda: seconds(train) / STEPS / members * 1e6


def take_turns(*samples, rounds=ROUNDS):
    for sample in samples:
        sample()
    return np.array([[sample() for sample in samples] for _ in range(rounds)]).T


def spread(values, digits):
    low, middle, high = (f"{q:.{digits}f}" for q in np.quantile(values, (0, 0.5, 1)))
    return f"{middle} ({low} to {high})"


def compare(work, ours, against, theirs, unit="us", faster=True):
    ratios = theirs / ours if faster else ours / theirs
    sides = f"{np.median(ours):8.3g} {unit}  {against:27}{np.median(theirs):8.3g}"
    ratio = spread(ratios, 0 if np.median(ratios) > 20 else 2)
    said = "times as fast" if faster else "times as long"
    print(f"{work:38}{sides} {unit}  {ratio} {said}", flush=True)


def against_notebook(work, size, epochs):
    read = bare.rows_of(*data(), 10)
    least = of_bare(size or 1, read, 2, counts_close=True)
    ours, tf1, least = take_turns(of_notebook(size, epochs), of_tf1(), least)
    compare(work, ours, LOOP, tf1)
    compare("", ours, BARE, least, faster=False)


def step(_):
    against_notebook("notebook's training, a step", None, 20)


def population(_):
    against_notebook("population of 100, a member-step", 100, 5)


def process(options):
    """Both from shell to shell. The notebook takes minutes: unless `full` is asked for,
    it is extrapolated from its first epochs."""
    rounds, epochs = (1, notebook_tf1.EPOCHS) if options.full else (3, 6)
    command = [sys.executable, "-m", "keras_nalu", "train", "--no-mlp", "--output"]

    def ours():
        with tempfile.TemporaryDirectory() as folder:
            run = [*command, folder]
            return seconds(
                lambda: subprocess.run(run, stdout=subprocess.DEVNULL, check=True)
            )

    def theirs():
        run = [sys.executable, notebook_tf1.__file__, str(epochs)]
        ends = [time.perf_counter()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(run, **pipes) as running:
            ends += [time.perf_counter() for _ in running.stdout]
        an_epoch = (ends[-1] - ends[1]) / (epochs - 1)
        missing = notebook_tf1.EPOCHS - epochs
        return time.perf_counter() - ends[0] + missing * an_epoch

    sides = np.array([(ours(), theirs()) for _ in range(rounds)]).T
    compare("keras-nalu train --no-mlp, process", sides[0], "TF-1", sides[1], "s ")
    if not options.full:
        print(f"{'':49}  TF-1: start-up and {epochs} epochs, extrapolated to 200")


def drawn(_):
    """The single-module task; each member has its own data."""

    def draw(stream):
        x = stream.uniform((128, 2), 1, 2)
        return x, x[..., :1] * x[..., 1:]

    def read(i, uniform):
        x = uniform(i, (members, 128, 2), 1.0, 2.0)
        return x, x[..., :1] * x[..., 1:]

    members = 225
    layers = [keras.Input((2,)), keras_nalu.NALU(1)]
    many = keras_nalu.Population(keras.Sequential(layers), members, seed=0)
    one = keras.Sequential(layers)
    for model in (many, one):
        model.compile(keras.optimizers.Adam(1e-3), "mse")
    x = np.random.default_rng(0).uniform(1, 2, (STEPS * 128, 2)).astype("float32")
    ours, plain, least = take_turns(
        of_fit(many, draw, epochs=1, steps_per_epoch=STEPS),
        of_fit(one, x, x[:, :1] * x[:, 1:], epochs=1, batch_size=128),
        of_bare(members, read, 128),
    )
    compare("225 members that draw, a member-step", ours, "Keras' own fit", plain)
    compare("", ours, BARE, least, faster=False)


def benchmark(_):
    """A run of the primer's protocol: 1,000 steps, and what is measured after them."""
    (group,) = runner.select("single-module", ["NMU"], ["multiply"], steps=4 * STEPS)

    def ours():
        ends = []
        record = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_: ends.append(time.perf_counter())
        )
        group.run([record])
        return (ends[-1] - ends[0]) / 3 / STEPS / group.members * 1e6

    regularizer = regularizers.Sparsity(regularizers.LinearRamp(10, 20_000, 35_000), 0)
    one = keras.Sequential(
        [keras.Input((2,)), keras_nalu.NMU(1, kernel_regularizer=regularizer)]
    )
    one.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), "mse")
    rng = np.random.default_rng(0)

    def rows(count, low, high):
        x = rng.uniform(low, high, (count, 2)).astype("float32")
        return x, x[:, :1] * x[:, 1:]

    held_out = rows(10_000, 1, 2), rows(10_000, 2, 6)

    def plain_epoch():
        one.fit(*rows(STEPS * 128, 1, 2), batch_size=128, verbose=0)
        for data in held_out:
            one.evaluate(*data, batch_size=1000, verbose=0)

    ours, plain = take_turns(
        ours, lambda: seconds(plain_epoch) / STEPS * 1e6, rounds=max(3, ROUNDS // 2)
    )
    compare("the primer's protocol, a run's step", ours, "Keras' own fit", plain)


def compilation(_):
    options = {"batch_size": 10, "shuffle": False, "verbose": 0}

    def taken(size):
        model = notebook(size)
        first, later = (
            seconds(lambda: model.fit(*data(), **options)) for _ in range(2)
        )
        return first - later

    for name, size in (("the notebook's model", None), ("population of 100", 100)):
        times = spread([taken(size) for _ in range(3)], 2)
        print(f"compilation, {name:25}{times} s", flush=True)


def first(_):
    """The first `fit` of a new model, in which all is compiled. Keras' steps behind the
    first 10,000 are extrapolated."""

    def taken(cls, rows, epochs):
        programs.forget()
        model = cls([keras.Input((2,)), keras_nalu.NALU(1)])
        model.compile(keras.optimizers.Adam(1e-3), "mse")
        X, Y = keras_nalu.generate_dataset(rows, seed=0)
        return seconds(lambda: model.fit(X, Y, epochs=epochs, verbose=0))

    def plain(rows, epochs):
        timed = min(epochs, max(1, 10_000 * 32 // rows))
        some = taken(keras.Sequential, rows, timed)
        if timed == epochs:
            return some
        one = taken(keras.Sequential, rows, 1)
        return some + (some - one) / (timed - 1) * (epochs - timed)

    for rows in (100, 1000, 10_000, 100_000):
        for epochs in (1, 10, 100):
            ours, theirs = take_turns(
                lambda: taken(keras_nalu.Sequential, rows, epochs),  # noqa: B023
                lambda: plain(rows, epochs),  # noqa: B023
                rounds=3,
            )
            work = f"first fit, {rows} rows, {epochs} epochs"
            compare(work, ours, "Keras' own fit", theirs, "s", faster=False)


def median(*notebook, **options):
    return np.median(take_turns(of_notebook(*notebook, **options), rounds=3))


def sizes(_):
    for size in SIZES:
        taken = median(size, 2)
        print(
            f"{size:6} members  {taken:8.3f} us a member-step  "
            f"{taken * size / 1e3:8.3f} ms a step",
            flush=True,
        )


def batches(_):
    for batch in (1, 10, 100, 1000):
        taken = median(100, 2, batch=batch)
        print(f"100 members, batch {batch:5}  {taken:8.3f} us a member-step")


def epochs(_):
    for steps in (100, 1000, 10_000):
        taken = median(None, 10, steps=steps) * steps / 1e3
        print(f"an epoch of {steps:6} steps  {taken:8.3f} ms", flush=True)


def layers(options):
    """One layer of three units on ten inputs, batches of 128; or as wide as asked for,
    beside Dense."""
    if options.width:
        for width in options.width:
            layers_beside_dense(width, options.only or keras_nalu.layers.LAYERS)
        return
    x = np.random.default_rng(0).uniform(1, 2, (STEPS * 128, 10)).astype("float32")
    y = np.prod(x[:, :3], axis=-1, keepdims=True) * np.ones(3, "float32")
    for name, cls in keras_nalu.layers.LAYERS.items():
        model = keras_nalu.Sequential([keras.Input((10,)), cls(3)])
        model.compile(keras.optimizers.Adam(1e-3), "mse")
        weights = [keras.ops.copy(w) for w in model.trainable_weights]
        forward = functools.partial(by_hand_for_one, name)
        ours, hand = take_turns(
            of_fit(model, x, y, epochs=1, batch_size=128, shuffle=False),
            of_bare(1, bare.rows_of(x, y, 128), 128 * 3, layer=(forward, weights)),
        )
        compare(f"{name}, a step", ours, BARE, hand, faster=False)


def layers_beside_dense(width, names):
    dense = of_layer(keras.layers.Dense, width)
    peak_of("Dense", width)
    for name in names:
        ours = of_layer(keras_nalu.layers.LAYERS[name], width)
        times = take_turns(ours, dense, rounds=3) / 1e3
        compare(f"{name} of {width}, a step", times[0], "Dense", times[1], "ms", False)
        peak_of(name, width)


def of_layer(cls, width):
    steps = max(2, min(50, 2560 // width))
    x = np.random.default_rng(0).uniform(0.9, 1.1, (steps * 128, width))
    data = x.astype("float32"), np.ones((steps * 128, width), "float32")
    model = keras_nalu.Sequential([keras.Input((width,)), cls(width)])
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    fit = {"batch_size": 128, "shuffle": False}
    return of_fit(model, *data, epochs=1, steps=steps, **fit)


def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def by_hand_for_one(name, i, uniform, x, *weights):
    noise = [uniform(i, x.shape[1:], 1.0, 5.0)] if name == "SNMU" else []
    return CASES[name].equation(keras.ops, x[0], *weights, *noise)[None]


def memory(_):
    for what in (*SIZES, "memmap"):
        peak_of(what)


def peak_of(*what):
    script = Path(__file__).with_name("memory.py")
    subprocess.run([sys.executable, script, *map(str, what)], check=True)


ROWS = (
    step,
    process,
    population,
    drawn,
    benchmark,
    compilation,
    first,
    sizes,
    batches,
    epochs,
    memory,
    layers,
)


def main():
    rows = {row.__name__: row for row in ROWS}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help=f"{', '.join(rows)}; all by default")
    add("--width", nargs="+", type=int, metavar="N", help="layers: N inputs, N units")
    add("--only", nargs="+", metavar="LAYER", help="layers: these, with --width")
    add("--full", action="store_true", help="all 200 epochs of the TF-1 process")
    options = parser.parse_args()
    if unknown := [name for name in options.rows if name not in rows]:
        parser.error(f"unknown: {', '.join(unknown)}. Expected: {', '.join(rows)}")
    print(
        f"{keras.backend.backend()}, Keras {keras.__version__}, {os.cpu_count()} CPUs"
    )
    for name in options.rows or rows:
        keras.utils.set_random_seed(0)
        taken = seconds(lambda: rows[name](options))  # noqa: B023
        print(f"{name} took {taken:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
