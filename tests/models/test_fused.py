"""Keras' own `fit` and `evaluate` say what is right."""

import contextlib
import functools
import inspect
import itertools

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import keras_nalu
from keras_nalu.models import planning
from keras_nalu.models.feeds import arrays as feeds
from keras_nalu.models.feeds import datasets
from keras_nalu.models.run import Chunks, Run

BACKEND = keras.backend.backend()
ROWS, BATCH, STEPS = 44, 8, 6
ours = pytest.mark.skipif(BACKEND == "torch", reason="no loop on the device there")
slow = pytest.mark.slow


PLAIN = {keras_nalu.Model: keras.Model, keras_nalu.Sequential: keras.Sequential}

#: However short the training is.
LOOP = {} if BACKEND == "torch" else {"steps_per_execution": 100}

_rng = np.random.default_rng(0)
X = _rng.normal(size=(ROWS, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1
CLASSES = (Y > 1).astype("int64")
WEIGHT = _rng.uniform(0.5, 2, size=ROWS)


def line(cls):
    return cls([keras.Input((3,)), layers.Dense(1)])


def deferred(cls):
    return cls([layers.Dense(4, activation="tanh"), layers.Dense(1)])


def mlp(cls):
    x = keras.Input((3,))
    h = layers.Dense(4, activation="relu", kernel_regularizer="l2")(x)
    h = layers.Dropout(0.3)(layers.BatchNormalization()(h))
    return cls(x, layers.Dense(1, kernel_constraint="non_neg")(h))


def without_chance(cls):
    x = keras.Input((3,))
    h = layers.BatchNormalization()(layers.Dense(4, activation="tanh")(x))
    return cls(x, layers.Dense(1)(h))


def dicts(cls):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    h = layers.Dropout(0.3)(layers.Add()([a, b]))
    total = layers.Dense(1, name="total", kernel_regularizer="l2")(h)
    pair = layers.Dense(2, kernel_constraint="non_neg")(a)
    return cls({"a": a, "b": b}, {"total": total, "pair": pair})


def lists(cls):
    a, b = keras.Input((3,)), keras.Input((3,))
    total = layers.Dense(1, name="total")(layers.Add()([a, b]))
    return cls([a, b], [total, layers.Dense(2, name="pair")(a)])


class Away(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean((inputs - 3) ** 2))
        return inputs


def away(cls):
    return cls([keras.Input((3,)), layers.Dense(2), Away()])


def unlabelled():
    return {"optimizer": "sgd", "loss": None}


def momentum():
    return {
        "optimizer": optimizers.SGD(0.02, momentum=0.9),
        "loss": "mse",
        "metrics": ["mae"],
    }


def with_optimizer(make):
    return lambda: momentum() | {"optimizer": make()}


def loops(model, kind="train"):
    """The loops that were compiled for a model."""
    function = getattr(model, f"{kind}_function")
    return function.loops if isinstance(function, Chunks) else {}


def left_to_keras(reason=""):
    return pytest.warns(UserWarning, match=f"^Training step by step.*{reason}")


def train(cls, make, data, compiled=momentum, why_not=None, **fit):
    """The history, and the weights after every epoch."""
    if cls in PLAIN and why_not is not None:
        with left_to_keras(why_not):
            return _train(cls, make, data, compiled, fused=False, **fit)
    return _train(cls, make, data, compiled, fused=cls in PLAIN, **fit)


def _train(cls, make, data, compiled, fused, **fit):
    keras.utils.set_random_seed(1)
    model, weights = make(cls), []
    # As XLA compiles the loop, which is asked for.
    more = LOOP if fused else {"jit_compile": True} if cls not in PLAIN else {}
    model.compile(**more | compiled())
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.get_weights())
    )
    fit = {"batch_size": BATCH, "epochs": 3, "shuffle": False, "verbose": 0} | fit
    fit["callbacks"] = [record, *fit.get("callbacks", ())]
    logs = model.fit(*data, **fit).history
    assert bool(loops(model)) == fused
    return logs, weights


def assert_same(first, second, rtol=1e-5, atol=1e-6):
    (logs, weights), (other_logs, other_weights) = first, second
    assert logs.keys() == other_logs.keys()
    assert len(weights) == len(other_weights) > 0
    for epoch, other in zip(weights, other_weights, strict=True):
        for a, b in zip(epoch, other, strict=True):
            np.testing.assert_allclose(a, b, rtol, atol)
    for name in logs:
        np.testing.assert_allclose(logs[name], other_logs[name], rtol, atol)


def assert_follows_keras(
    make, data, compiled=momentum, cls=keras_nalu.Model, why_not=None, **fit
):
    assert_same(
        train(cls, make, data, compiled, why_not, **fit),
        train(PLAIN[cls], make, data, compiled, **fit),
    )


def sgd_line(cls=keras_nalu.Sequential, **compiled):
    keras.utils.set_random_seed(1)
    model = line(cls)
    compiled = (LOOP if cls in PLAIN else {}) | compiled
    model.compile(optimizers.SGD(0.02), "mse", **compiled)
    return model


@contextlib.contextmanager
def warns_on_torch():
    if BACKEND == "torch":
        with pytest.warns(
            UserWarning, match=r"^Training step by step, as Keras does: "
        ):
            yield
    else:
        yield


def test_fit_and_evaluate_on_every_backend():
    logs = []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        model = sgd_line(cls)
        with warns_on_torch() if cls in PLAIN else contextlib.nullcontext():
            history = model.fit(
                X, Y, BATCH, epochs=2, shuffle=False, verbose=0, validation_data=(X, Y)
            ).history
        with warns_on_torch() if cls in PLAIN else contextlib.nullcontext():
            history["after"] = model.evaluate(X, Y, BATCH, verbose=0)
        logs.append((history, [model.get_weights()]))
    assert_same(*logs)


@pytest.mark.only("torch", reason="there is a loop on the device")
def test_the_warning_is_one_line_and_names_the_caller():
    model = sgd_line()
    with pytest.warns(UserWarning, match=r"^Training") as caught:
        model.fit(X, Y, verbose=0)
    (warning,) = (w for w in caught if w.category is UserWarning)
    assert str(warning.message) == (
        "Training step by step, as Keras does: there is no loop on the device for the "
        "torch backend."
    )
    assert warning.filename == __file__


def test_a_model_without_weights_and_without_an_optimizer():
    losses = []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        model = cls([keras.Input((3,)), layers.ReLU()])
        model.compile(None, "mse")
        with warns_on_torch() if cls in PLAIN else contextlib.nullcontext():
            losses.append(model.evaluate(X, X, BATCH, verbose=0))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[1] > 0


@pytest.mark.parametrize(
    "compiled",
    [
        {"steps_per_execution": 1},
        pytest.param({"jit_compile": False}, marks=slow),
        pytest.param({"run_eagerly": True}, marks=slow),
    ],
)
def test_trains_step_by_step_on_demand_and_without_a_warning(compiled):
    seen, logs = [], []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        auto = {"steps_per_execution": "auto"} if cls in PLAIN else {}
        model = sgd_line(cls, **auto | compiled)
        step = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(batch)
        )
        kwargs = {"shuffle": False, "verbose": 0, "callbacks": [step]}
        history = model.fit(X, Y, BATCH, **kwargs).history
        history["after"] = model.evaluate(X, Y, BATCH, verbose=0)
        logs.append((history, [model.get_weights()]))
    assert seen == 2 * [*range(STEPS)]
    assert_same(*logs)


def test_a_layer_that_cannot_be_compiled_trains_step_by_step(monkeypatch):
    seen = []
    model = sgd_line(steps_per_execution="auto")
    monkeypatch.setattr(planning, "PAYING_STEPS", 0)
    # What Keras' own layers say of themselves where they leave the backend.
    model.layers[0].supports_jit = False
    step = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model.fit(X, Y, BATCH, verbose=0, callbacks=[step])
    assert seen == [*range(STEPS)]


@pytest.mark.parametrize("steps", ["auto", 5])
def test_compile_config_is_what_was_asked(steps):
    model = line(keras_nalu.Sequential)
    model.compile("sgd", "mse", steps_per_execution=steps)
    config = model.get_compile_config()
    # Keras knows no "auto", and can read what is stored.
    assert config.get("steps_per_execution", "auto") == steps
    assert config["jit_compile"] == "auto"
    plain = line(keras.Sequential)
    plain.compile_from_config(config)
    assert plain.steps_per_execution == (1 if steps == "auto" else steps)


SCHEDULE = optimizers.schedules.ExponentialDecay(0.05, 5, 0.5)


@ours
@pytest.mark.parametrize(
    ("make", "data", "compiled", "fit"),
    [
        pytest.param(
            mlp,
            (X, Y),
            lambda: momentum() | {"weighted_metrics": ["mse"]},
            {"sample_weight": WEIGHT, "validation_split": 0.3},
            id="batchnorm-dropout-penalty-constraint-weights-split",
            marks=slow,
        ),
        pytest.param(
            dicts,
            (
                {"a": X[:40], "b": X[39::-1].copy()},
                {"total": Y[:40], "pair": X[:40, :2]},
            ),
            lambda: momentum() | {"metrics": None, "loss_weights": {"total": 2}},
            {"sample_weight": {"total": WEIGHT[:40], "pair": WEIGHT[39::-1].copy()}},
            id="dicts-dropout-penalty-constraint-weights",
        ),
        pytest.param(
            lists,
            ([X[:40], X[39::-1].copy()], [Y[:40], X[:40, :2]]),
            lambda: {
                "optimizer": optimizers.Adam(0.02),
                "loss": keras.losses.MeanSquaredError(),
            },
            {"sample_weight": [WEIGHT[:40], WEIGHT[39::-1].copy()]},
            id="lists",
            marks=slow,
        ),
        pytest.param(
            dicts,
            ({"a": X, "b": X}, {"total": Y, "pair": None}),
            lambda: momentum() | {"metrics": None, "loss": {"total": "mse"}},
            {},
            id="output-without-labels",
            marks=[
                slow,
                pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning"),
            ],
        ),
    ]
    + [
        pytest.param(
            deferred, (X, Y), momentum, {"cls": keras_nalu.Sequential}, marks=slow
        ),
        pytest.param(
            away, (X,), unlabelled, {"cls": keras_nalu.Sequential}, marks=slow
        ),
    ]
    + [
        pytest.param(mlp, (X, Y), with_optimizer(make), {}, id=name, marks=slow)
        for name, make in {
            "sgd": lambda: optimizers.SGD(0.02),
            "adam": lambda: optimizers.Adam(0.02),
            "schedule": lambda: optimizers.SGD(SCHEDULE),
            "clipnorm": lambda: optimizers.Adam(0.02, clipnorm=0.1),
            "global-clipnorm": lambda: optimizers.SGD(0.02, global_clipnorm=0.1),
            "ema-accumulation": lambda: optimizers.AdamW(
                0.02,
                use_ema=True,
                ema_overwrite_frequency=4,
                gradient_accumulation_steps=2,
            ),
            "ema-at-the-end": lambda: optimizers.AdamW(0.02, use_ema=True),
        }.items()
    ]
    + [
        pytest.param(mlp, (X, Y), momentum, {"batch_size": n}, id=f"{n}", marks=slow)
        for n in (1, 7, 11, 22, 43)
    ],
)
def test_follows_keras(make, data, compiled, fit):
    assert_follows_keras(make, data, compiled, **fit)


@ours
@slow
def test_outputs_losses_are_weighted_by_the_rows_of_a_batch():
    """As on JAX; Keras' own are not, on TensorFlow, and do not sum up to the loss."""
    data = ([X, X[::-1].copy()], [Y, X[:, :2]])
    (logs, weights), (other, other_weights) = (
        train(cls, lists, data, lambda: momentum() | {"metrics": None})
        for cls in (keras_nalu.Model, keras.Model)
    )
    assert_same(({"": logs["loss"]}, weights), ({"": other["loss"]}, other_weights))
    total = np.add(logs["total_loss"], logs["pair_loss"])
    np.testing.assert_allclose(total, logs["loss"], 1e-5)


@ours
@slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        results = [train(cls, mlp, (X, Y)) for cls in (keras_nalu.Model, keras.Model)]
    finally:
        keras.config.set_dtype_policy("float32")
    assert_same(*results, rtol=1e-2, atol=1e-3)


@functools.cache
def keras_on_arrays():
    return train(keras.Sequential, line, (X, Y))


def as_arrays():
    return (X, Y), {"batch_size": BATCH}


def as_tensors():
    return tuple(map(keras.ops.convert_to_tensor, (X, Y))), {"batch_size": BATCH}


def as_dataset():
    import tensorflow as tf

    return (tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH),), {}


def batches():
    for start in range(0, ROWS, BATCH):
        yield X[start : start + BATCH], Y[start : start + BATCH]


def endless():
    while True:
        yield from batches()


def as_generator():
    return (endless(),), {"steps_per_epoch": STEPS}


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return next(itertools.islice(batches(), index, None))


def as_py_dataset():
    return (Batches(),), {}


def as_tables():
    pandas = pytest.importorskip("pandas")
    y = pandas.Series(Y[:, 0])
    return (pandas.DataFrame(X, columns=["a", "b", "c"]), y), {"batch_size": BATCH}


def as_sparse_rows():
    sparse = pytest.importorskip("scipy.sparse")
    return (sparse.csr_matrix(X), Y), {"batch_size": BATCH}


def as_endless_dataset():
    return (as_dataset()[0][0].repeat(),), {"steps_per_epoch": STEPS}


def as_unknown_dataset():
    return (as_dataset()[0][0].filter(lambda x, y: True),), {}


@ours
@pytest.mark.parametrize(
    "source",
    [
        as_tables,
        pytest.param(as_dataset, marks=slow),
        pytest.param(as_tensors, marks=slow),
        pytest.param(as_endless_dataset, marks=slow),
    ],
)
def test_every_source_of_data_trains_as_arrays_do(source):
    data, fit = source()
    compiled = momentum() | {"steps_per_execution": 4}
    fit = {"batch_size": None} | fit
    result = train(keras_nalu.Sequential, line, data, lambda: compiled, **fit)
    assert_same(result, keras_on_arrays())


@ours
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "source",
    [
        as_generator,
        pytest.param(as_py_dataset, marks=slow),
        pytest.param(as_unknown_dataset, marks=slow),
        pytest.param(as_sparse_rows, marks=slow),
    ],
)
def test_other_sources_are_left_to_keras(source):
    results = []
    for cls, more in (
        (keras_nalu.Sequential, {"why_not": "the data are neither"}),
        (keras.Sequential, {}),
    ):
        data, fit = source()
        compiled = momentum() | {"steps_per_execution": 4, "jit_compile": "auto"}
        fit = {"batch_size": None} | fit | more
        results.append(train(cls, line, data, lambda c=compiled: c, **fit))
    assert_same(*results)


@ours
@slow
@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize("source", [as_tensors, as_dataset, as_py_dataset])
def test_evaluate_and_validate_every_source(source):
    logs = []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        model = sgd_line(cls)
        data, size = source()
        history = model.fit(
            *as_arrays()[0],
            BATCH,
            epochs=2,
            shuffle=False,
            verbose=0,
            validation_data=data if len(data) == 2 else data[0],
        ).history
        history["after"] = model.evaluate(*data, **size, verbose=0)
        logs.append((history, [model.get_weights()]))
    assert_same(*logs)


def blocks(monkeypatch, steps):
    """Arrays are no longer held on the device; returns the sizes of what goes there."""
    sizes, to_device = [], feeds.to_device
    monkeypatch.setattr(feeds, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(feeds, "BLOCK_BYTES", steps * BATCH * (X[0].nbytes + 4))

    def recorded(data):
        sizes.append(sum(a.nbytes for a in feeds.leaves(data)))
        return to_device(data)

    monkeypatch.setattr(feeds, "to_device", recorded)
    return sizes


@ours
def test_a_file_larger_than_the_limit_goes_to_the_device_in_blocks(
    tmp_path, monkeypatch
):
    sizes, files = blocks(monkeypatch, steps=2), []
    for name, a in (("x", X), ("y", Y)):
        files.append(np.memmap(tmp_path / name, "float32", "w+", shape=a.shape))
        files[-1][:] = a
    result = train(keras_nalu.Sequential, line, files)
    assert_same(result, keras_on_arrays())
    assert sum(sizes) >= 3 * (X.nbytes + Y.nbytes)
    assert max(sizes) <= feeds.BLOCK_BYTES


@slow
@ours
@pytest.mark.parametrize("steps", [None, 4])
def test_the_order_is_numpys(steps, monkeypatch):
    sizes = blocks(monkeypatch, steps) if steps else None
    model, plain = sgd_line(), sgd_line(keras.Sequential)
    weights = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: weights.append(model.get_weights())
    )
    keras.utils.set_random_seed(7)
    model.fit(X, Y, BATCH, epochs=3, verbose=0, callbacks=[record])
    np.random.seed(7)  # noqa: NPY002
    for ours in weights:
        order = np.random.permutation(ROWS)  # noqa: NPY002
        plain.fit(X[order], Y[order], BATCH, shuffle=False, verbose=0)
        for a, b in zip(ours, plain.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)
    assert not sizes or max(sizes) <= feeds.BLOCK_BYTES


@ours
@pytest.mark.parametrize("rows", [44, pytest.param(40, marks=slow)])
@pytest.mark.parametrize("steps", [None, pytest.param(2, marks=slow)])
def test_every_row_exactly_once_an_epoch(rows, steps, monkeypatch):
    if steps:
        blocks(monkeypatch, steps)
    counts = layers.Embedding(rows, 1, embeddings_initializer="zeros")
    model = keras_nalu.Sequential([keras.Input((), dtype="int32"), counts])
    loss = keras.losses.MeanAbsoluteError("sum")
    model.compile(optimizers.SGD(1.0), loss, **LOOP)
    far = np.full((rows, 1), 1e6)
    model.fit(np.arange(rows), far, BATCH, epochs=3, verbose=0)
    np.testing.assert_array_equal(counts.get_weights()[0], np.full((rows, 1), 3))
    assert loops(model)


class Total(keras.layers.Layer):
    def __init__(self, seen):
        super().__init__(autocast=False)
        self.see = seen.update

    def build(self, shapes):
        self.kernel = self.add_weight(shape=(3, 1))

    def call(self, inputs):
        self.see({k: keras.backend.standardize_dtype(inputs[k].dtype) for k in inputs})
        total = sum(keras.ops.cast(x, "float32") for x in inputs.values())
        return total @ self.kernel


@ours
@slow
def test_dtypes_are_those_that_keras_passes_on():
    names = "bool", "uint8", "int32", "int64", "float16", "float32", "float64"
    data = {name: np.abs(3 * X).astype(name) for name in names}
    seen = []

    def make(cls):
        seen.append({})

        class Own(cls):
            def __init__(self):
                super().__init__(dtype=keras.DTypePolicy("float32"))
                self.total = Total(seen[-1])

            def call(self, inputs):
                return self.total(inputs)

        return Own()

    assert_follows_keras(
        make, (data, Y > 0), with_optimizer(lambda: optimizers.SGD(1e-3))
    )
    assert seen[0] == seen[1]
    assert seen[0].keys() == data.keys()


#: What `fit` is left to Keras with.
LEFT = {"why_not": ""}


@slow
@ours
@pytest.mark.parametrize(
    ("data", "fit"),
    [
        pytest.param(
            (X, Y),
            {
                "validation_data": (X[:30], Y[:30], WEIGHT[:30]),
                "validation_batch_size": 7,
                "validation_freq": 2,
                "initial_epoch": 1,
                "epochs": 4,
            },
            id="validation",
        ),
        *(
            pytest.param((X, Y), fit, id="-".join(fit))
            for fit in (
                {"validation_split": 0.25, "sample_weight": WEIGHT},
                {"validation_data": [X, Y], "validation_split": 0.3},
                LEFT | {"validation_data": [X, Y], "validation_steps": 2},
                LEFT | {"validation_data": Batches(), "validation_freq": [1, 3]},
                LEFT | {"validation_data": Batches(), "validation_steps": 2},
                LEFT | {"steps_per_epoch": 3, "epochs": 2},
            )
        ),
        *(
            pytest.param(
                (X, CLASSES), LEFT | {"class_weight": {0: 1.0, 1: 3.0}} | fit, id=name
            )
            for name, fit in {
                "classes": {},
                "classes-validation_split": {"validation_split": 0.25},
            }.items()
        ),
    ],
)
def test_arguments_of_fit(data, fit):
    assert_follows_keras(line, data, cls=keras_nalu.Sequential, **fit)


@ours
@pytest.mark.parametrize("make", [line, mlp])
@slow
def test_evaluate(make):
    cls = {line: keras_nalu.Sequential, mlp: keras_nalu.Model}[make]
    logs = []
    for each in (cls, PLAIN[cls]):
        keras.utils.set_random_seed(1)
        model = make(each)
        # With several steps at once, `steps=3` takes more of them in Keras, too.
        model.compile(**momentum() | LOOP | {"weighted_metrics": ["mae"]})
        found = model.evaluate(X, Y, BATCH, sample_weight=WEIGHT, verbose=0)
        named = model.evaluate(X, Y, 50, verbose=0, return_dict=True)
        with left_to_keras() if each is cls else contextlib.nullcontext():
            steps = model.evaluate(X, Y, BATCH, steps=3, verbose=0)
        logs.append(({"found": found, **named, "steps": steps}, [model.get_weights()]))
        assert each is not cls or loops(model, "test")
    assert_same(*logs)


def batch_events(cls, steps, **compiled):
    events = []

    def note(kind):
        def seen(batch, logs=None):
            events.append((kind, batch, {k: float(v) for k, v in (logs or {}).items()}))

        return seen

    callback = keras.callbacks.LambdaCallback(
        on_train_batch_begin=note("begin"), on_train_batch_end=note("end")
    )
    callback.on_test_batch_begin = note("test begin")
    callback.on_test_batch_end = note("test end")
    model = sgd_line(cls, steps_per_execution=steps, **compiled)
    model.fit(
        X,
        Y,
        BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
        validation_data=(X, Y),
    )
    return events


@functools.cache
def steps_of_keras():
    events = batch_events(keras.Sequential, 1)
    return {(kind, batch): logs for kind, batch, logs in events}


@ours
@pytest.mark.parametrize(
    ("steps", "chunks"),
    [
        (4, [(0, 3), (4, 7)]),
        *(
            pytest.param(n, chunks, marks=slow)
            for n, chunks in (
                (3, [(0, 2), (3, 5)]),
                *((6, [(0, 5)]), (9, [(0, 8)])),
            )
        ),
    ],
)
def test_what_callbacks_of_a_batch_see(steps, chunks):
    """A chunk as a batch, with the logs of its last step."""
    every = steps_of_keras()
    events = batch_events(keras_nalu.Sequential, steps)
    expected = []
    for prefix in ("", "test "):
        for first, last in chunks:
            logs = every[prefix + "end", min(last, STEPS - 1)]
            expected.append((prefix + "begin", first, {}))
            expected.append((prefix + "end", last, pytest.approx(logs, rel=1e-5)))
    assert events == expected


def test_a_batch_is_of_32_rows():
    losses = []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        with warns_on_torch() if cls in PLAIN else contextlib.nullcontext():
            history = sgd_line(cls).fit(X, Y, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, 1e-6)


def test_a_prediction_is_seen_batch_by_batch():
    seen, callback = [], keras.callbacks.Callback()
    callback.on_predict_batch_end = lambda batch, logs: seen.append(batch)
    model = sgd_line(steps_per_execution="auto")
    model.predict(X, BATCH, verbose=0, callbacks=[callback])
    assert seen == [*range(STEPS)]


@ours
def test_a_call_is_fused_that_pays_for_the_loop(monkeypatch):
    """By itself, by those before it, or where the loop is there."""
    monkeypatch.setattr(planning, "PAYING_STEPS", 5 * STEPS)

    def fit(model, epochs=1, rows=ROWS):
        model.fit(X[:rows], Y[:rows], BATCH, epochs=epochs, verbose=0)
        return len(loops(model))

    model = sgd_line(steps_per_execution="auto")
    assert [fit(model, epochs) for epochs in (2, 2, 1, 1)] == [0, 0, 2, 2]
    assert fit(model, 1, rows=ROWS - 1) == 2
    model = sgd_line(steps_per_execution="auto")
    assert [fit(model, epochs) for epochs in (4, 5)] == [0, 2]
    assert model.optimizer.iterations == 9 * STEPS
    model = sgd_line(steps_per_execution="auto")
    held_out = {"validation_data": (X, Y)}
    model.fit(X, Y, BATCH, epochs=3, verbose=0, **held_out)
    assert len(loops(model)) == len(loops(model, "test")) == 2


@ours
@pytest.mark.parametrize(
    ("asked", "fused"), [("auto", False), pytest.param(100, True, marks=slow)]
)
def test_a_convolution_is_left_to_keras(asked, fused, monkeypatch):
    """Until one asks for the loop, which takes several times as long."""
    monkeypatch.setattr(planning, "PAYING_STEPS", 0)
    model = keras_nalu.Sequential(
        [keras.Input((3, 1)), layers.Conv1D(1, 2), layers.Flatten(), layers.Dense(1)]
    )
    model.compile("sgd", "mse", steps_per_execution=asked)
    model.fit(X[:, :, None], Y, BATCH, verbose=0)
    assert bool(loops(model)) == fused


@ours
@slow
@pytest.mark.parametrize(("flops", "chunks"), [(2.5, 3), (1e9, 1)])
def test_a_chunk_is_bounded_by_arithmetic(flops, chunks, monkeypatch):
    weights, forward_and_back = 4, 6
    monkeypatch.setattr(
        planning, "CHUNK_FLOPS", flops * forward_and_back * weights * BATCH
    )
    monkeypatch.setattr(planning, "PAYING_STEPS", 0)
    monkeypatch.setattr(planning, "LEAST_STEPS", 2)
    model, pieces = sgd_line(steps_per_execution="auto"), []
    run = Run.advance

    def advance(self, *args):
        pieces.append(self.steps)
        return run(self, *args)

    monkeypatch.setattr(Run, "advance", advance)
    model.fit(X, Y, BATCH, verbose=0)
    assert len(pieces) == chunks


def test_limits_are_those_that_the_documentation_names():
    text = " ".join(keras_nalu.Sequential.__doc__.split())
    assert f"up to {feeds.RESIDENT_BYTES >> 20} MiB are held on the device" in text
    assert f"go there {feeds.BLOCK_BYTES >> 20} MiB at a time" in text
    assert "more than 10^9 floating-point operations" in text
    assert planning.CHUNK_FLOPS == 10**9
    assert f"as some {planning.PAYING_STEPS:,} steps" in text


@ours
@pytest.mark.parametrize("steps", [0, pytest.param(5, marks=slow)])
def test_a_large_model_trains_as_keras_does(steps, monkeypatch):
    monkeypatch.setattr(planning, "CHUNK_FLOPS", steps * 6 * 4 * BATCH)
    monkeypatch.setattr(planning, "PAYING_STEPS", 0)
    model, plain = sgd_line(steps_per_execution="auto"), sgd_line(keras.Sequential)
    losses = [
        m.fit(X, Y, BATCH, shuffle=False, verbose=0).history["loss"]
        for m in (model, plain)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not loops(model)


@ours
@pytest.mark.parametrize("tensorboard", [False, True])
@slow
def test_callbacks_of_keras(tensorboard, tmp_path):
    results = []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        path = tmp_path / f"{cls.__module__}.keras"
        callbacks = [
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 if epoch else 0.01),
            keras.callbacks.ModelCheckpoint(path),
            keras.callbacks.EarlyStopping("loss", 1e9, 1),
            keras.callbacks.TerminateOnNaN(),
        ]
        fit = {"epochs": 5, "callbacks": callbacks}
        if tensorboard:
            logs = tmp_path / "logs"
            callbacks.append(keras_nalu.TensorBoard(logs, update_freq="batch"))
            fit["why_not"] = "TensorBoard looks at single batches"
        results.append(train(cls, line, (X, Y), **fit))
        copy = keras_nalu.load_model(path)
        assert type(copy) is cls
        for a, b in zip(copy.get_weights(), results[-1][1][-1], strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(results[0][1]) == 2
    assert_same(*results)


@ours
@slow
def test_backup_and_restore(tmp_path):
    def fail(epoch, logs):
        if epoch == 2:
            raise RuntimeError("power")

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    crash = keras.callbacks.LambdaCallback(on_epoch_end=fail)
    with pytest.raises(RuntimeError, match="power"):
        train(
            keras_nalu.Model,
            without_chance,
            (X, Y),
            epochs=5,
            callbacks=[backup, crash],
        )
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    logs, weights = train(
        keras_nalu.Model, without_chance, (X, Y), epochs=5, callbacks=[backup]
    )
    whole, every = train(keras_nalu.Model, without_chance, (X, Y), epochs=5)
    start = 5 - len(weights)
    assert start in (2, 3)
    assert_same(
        (logs, weights), ({k: v[start:] for k, v in whole.items()}, every[start:])
    )


@ours
@slow
@pytest.mark.parametrize("terminate", [True, False])
def test_not_a_number(terminate):
    callbacks = [keras.callbacks.TerminateOnNaN()] * terminate
    logs, weights = train(
        keras_nalu.Sequential, line, (X * 1e30, Y), callbacks=callbacks
    )
    plain, others = train(keras.Sequential, line, (X * 1e30, Y), callbacks=callbacks)
    assert len(weights) == len(others) == (1 if terminate else 3)
    assert logs.keys() == plain.keys()
    assert np.isnan(logs["loss"][-1])
    assert np.isnan(weights[-1][0]).all()
    assert terminate or np.isnan(others[-1][0]).all()


@slow
@ours
def test_validation_leaves_the_last_batchs_loss_alone():
    def compiled():
        loss = keras_nalu.L2Loss()
        metrics = [keras_nalu.LastBatchLoss(loss), keras_nalu.IsCloseAccuracy(1e-1)]
        return {"optimizer": optimizers.SGD(0.001), "loss": loss, "metrics": metrics}

    held_out = (X[:20], Y[:20] + 100)
    arguments = keras_nalu.Sequential, line, (X, Y), compiled
    logs, weights = train(*arguments, validation_data=held_out)
    alone, others = train(*arguments)
    assert_same(
        ({k: v for k, v in logs.items() if not k.startswith("val_")}, weights),
        (alone, others),
    )
    last = np.add(X[16:20] @ weights[-1][0], weights[-1][1]) - held_out[1][16:]
    assert logs["val_last_batch_loss"][-1] == pytest.approx(
        float(keras_nalu.L2Loss()(np.zeros_like(last), last)), rel=1e-4
    )
    assert logs["val_last_batch_loss"][-1] > 100 * logs["last_batch_loss"][-1]


def doubled_metrics(cls):
    class Doubled(cls):
        def compute_metrics(self, *args, **kwargs):
            logs = super().compute_metrics(*args, **kwargs)
            return {name: 2 * value for name, value in logs.items()}

    return line(Doubled)


def doubling(cls, name="double"):
    class Own(cls):
        def __init__(self):
            super().__init__()
            self.inner = layers.Dense(1)

        def call(self, inputs):
            return self.inner(inputs)

        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            logs, *state = result if BACKEND == "jax" else (result,)
            logs = {name: 2 * logs["loss"]}
            return (logs, *state) if state else logs

    return Own()


@ours
@pytest.mark.parametrize(
    ("cls", "make", "why_not"),
    [
        (keras_nalu.Model, doubling, "Own has a `train_step` of its own"),
        pytest.param(
            keras_nalu.Sequential,
            doubled_metrics,
            "Doubled has a `compute_metrics`",
            marks=slow,
        ),
    ],
)
def test_steps_of_ones_own(cls, make, why_not):
    compiled = dict(optimizer="sgd", loss="mse")
    assert_follows_keras(make, (X, Y), lambda: compiled, cls, why_not)


@ours
@slow
def test_a_log_of_a_metrics_name():
    """Keras takes the metric of that name, if there is one."""
    compiled = dict(optimizer="sgd", loss="mse")
    make = functools.partial(doubling, name="loss")
    assert_follows_keras(make, (X, Y), lambda: compiled, why_not="Own has a `train_s")


@ours
@pytest.mark.parametrize(
    "before",
    [
        pytest.param(False, marks=slow),
        pytest.param(True),
    ],
)
def test_predictions_before_within_and_after_fit(before):
    model, found = sgd_line(), []

    def look(*_):
        kernel, bias = model.get_weights()
        found.append(model.predict(X, BATCH, verbose=0))
        np.testing.assert_allclose(found[-1], X @ kernel + bias, 1e-4, 1e-5)

    if before:
        look()
    callback = keras.callbacks.LambdaCallback(on_epoch_end=look)
    model.fit(X, Y, BATCH, epochs=2, verbose=0, callbacks=[callback])
    look()
    assert len(found) == 3 + before


@ours
def test_compiles_once():
    traces = []

    class Counts(keras.layers.Layer):
        def call(self, inputs):
            traces.append(1)
            return inputs

    model = keras_nalu.Sequential([keras.Input((3,)), Counts(), layers.Dense(1)])
    model.compile("sgd", "mse", **LOOP)
    kwargs = {"batch_size": BATCH, "verbose": 0}
    model.fit(X, Y, validation_data=(X, Y), **kwargs)
    model.evaluate(X, Y, **kwargs)
    before = len(traces)
    compiled = dict(loops(model)), dict(loops(model, "test"))
    model.fit(X + 1, Y, epochs=3, validation_data=(Y + X, Y), **kwargs)
    model.evaluate(X, Y + 1, **kwargs)
    assert len(traces) == before > 0
    assert (loops(model), loops(model, "test")) == compiled
    assert all(compiled)


@ours
@slow
@pytest.mark.parametrize("steps", ["auto", 4])
def test_saved_and_loaded_it_trains_on(steps, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "PAYING_STEPS", 0)
    keras.utils.set_random_seed(1)
    model = without_chance(keras_nalu.Model)
    model.compile(**momentum(), steps_per_execution=steps)
    kwargs = {"batch_size": BATCH, "verbose": 0, "shuffle": False}
    model.fit(X, Y, **kwargs)
    model.save(tmp_path / "model.keras")
    copy = keras_nalu.load_model(tmp_path / "model.keras")
    assert type(copy) is type(model)
    assert copy.asked_steps == steps
    assert copy.get_compile_config()["jit_compile"] == "auto"
    logs = [m.fit(X, Y, epochs=2, **kwargs).history for m in (model, copy)]
    assert loops(copy)
    assert_same(
        *((log, [m.get_weights()]) for log, m in zip(logs, (model, copy), strict=True))
    )


@ours
@pytest.mark.parametrize("steps", [1, 2])
def test_two_steps_are_fused_and_one_is_not(steps):
    model = sgd_line(steps_per_execution=steps)
    model.fit(X, Y, BATCH, verbose=0)
    assert bool(loops(model)) == (steps == 2)


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize("cls", [keras.Sequential, keras_nalu.Sequential])
def test_it_is_compiled_as_another_before_it_is_built(cls):
    model = cls([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    copy = cls.from_config(model.get_config())
    copy.compile_from_config(model.get_compile_config())
    copy.fit(X, Y, batch_size=BATCH, verbose=0)
    assert copy.optimizer.iterations == STEPS


def test_it_is_compiled_as_another_without_an_optimizer():
    model = keras_nalu.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(None, "mse")
    copy = keras_nalu.Sequential.from_config(model.get_config())
    copy.compile_from_config(model.get_compile_config())
    assert copy.optimizer is None


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize("name", ["fit", "evaluate"])
def test_no_rows(name):
    if BACKEND == "torch":
        pytest.skip("Keras' own")
    with pytest.raises(ValueError, match="Expected rows of data"):
        getattr(sgd_line(), name)(X[:0], Y[:0], verbose=0)


@ours
@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize(
    ("x", "fit"),
    [
        (X, {"y": Y[:5]}),
        pytest.param(X, {"y": Y, "validation_data": (X[:9], Y[:5])}, marks=slow),
        (X, {"y": Y, "validation_split": 1.0}),
        (Batches(), {"y": Y}),
        (X[:, :2], {"y": Y}),
    ],
)
def test_mistakes_are_answered_as_keras_does(x, fit):
    messages = []
    for cls in (keras_nalu.Sequential, keras.Sequential):
        model = sgd_line(cls)
        model.name = "model"
        with pytest.raises(ValueError) as error:  # noqa: PT011
            model.fit(x, **fit, verbose=0)
        messages.append(str(error.value)[:60])
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["compile", "fit", "evaluate", "predict"])
def test_signatures_and_help_are_keras(name):
    for cls in (keras_nalu.Model, keras_nalu.Sequential, keras_nalu.Population):
        if (cls, name) != (keras_nalu.Population, "compile"):
            ours, keras_own = getattr(cls, name), getattr(keras.Model, name)
            assert inspect.signature(ours) == inspect.signature(keras_own)
            assert ours.__doc__ == keras_own.__doc__


@ours
@pytest.mark.parametrize(
    ("event", "steps"),
    [("on_train_batch_end", 4), pytest.param("on_train_batch_begin", 8, marks=slow)],
)
def test_an_interrupt_leaves_the_last_chunks_weights(event, steps):
    """Of the second epoch where it comes at the beginning of its second chunk."""

    def interrupt(batch, logs=None):
        if batch >= 3:
            raise KeyboardInterrupt

    model = sgd_line(steps_per_execution=4)
    callback = keras.callbacks.LambdaCallback(**{event: interrupt})
    kwargs = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, callbacks=[callback], **kwargs)
    plain = sgd_line(keras.Sequential)
    plain.fit(X[: 4 * BATCH], Y[: 4 * BATCH], **kwargs)
    for _ in range(2):
        for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, 1e-5, 1e-6)
        losses = [m.fit(X, Y, **kwargs).history["loss"] for m in (model, plain)]
        np.testing.assert_allclose(*losses, 1e-5)


@ours
@slow
@pytest.mark.parametrize(
    ("name", "block"),
    [
        pytest.param("fit", 2**25),
        ("fit", 1),
        pytest.param("evaluate", 2**25),
        pytest.param("evaluate", 1),
    ],
)
def test_an_error_of_the_data_leaves_the_model_usable(name, block, monkeypatch):
    """Within the first chunk, before or after some of its steps."""
    monkeypatch.setattr(datasets, "BLOCK_BYTES", block)

    import tensorflow as tf

    def broken():
        yield from itertools.islice(batches(), 3)
        raise OSError("unplugged")

    signature = as_dataset()[0][0].element_spec
    data = tf.data.Dataset.from_generator(broken, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(STEPS))
    model = sgd_line()
    with pytest.raises(Exception, match="unplugged"):
        getattr(model, name)(data, verbose=0)
    if name == "evaluate":
        before = sgd_line().get_weights()
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
    losses = model.fit(X, Y, BATCH, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]


@pytest.mark.only("jax", reason="variables are changed in place there")
def test_weights_are_not_held_twice():
    model = sgd_line()
    before = [variable.value for variable in model.weights]
    model.fit(X, Y, BATCH, verbose=0)
    assert all(value.is_deleted() for value in before)


@ours
@slow
def test_steps_are_capped_as_in_keras():
    keras.config.set_max_steps_per_epoch(3)
    try:
        losses = []
        for cls in (keras_nalu.Sequential, keras.Sequential):
            model = sgd_line(cls, **LOOP)
            with pytest.warns(UserWarning, match="Limiting steps_per_epoch to 3"):
                logs = model.fit(X, Y, BATCH, shuffle=False, verbose=0).history
            losses.append(logs["loss"])
    finally:
        keras.config.set_max_steps_per_epoch(None)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_compile_takes_positional_arguments():
    model = line(keras_nalu.Sequential)
    model.compile("sgd", "mse", None, None, None, False, 4)
    assert model.get_compile_config()["steps_per_execution"] == 4
