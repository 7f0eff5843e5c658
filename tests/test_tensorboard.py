import contextlib
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from keras import layers
from oracles.tensorboard import DRAWS, get, nalu, serve, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_nalu
from keras_nalu import pictures

BACKEND = keras.backend.backend()
EQUATION = {
    ("W_hat", "nac"),
    ("M_hat", "nac"),
    ("nac", "add_sub"),
    ("nac", "log_space"),
    ("G", "gate"),
    ("gate", "mix"),
    ("add_sub", "mix"),
    ("log_space", "mix"),
}

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


def one_layer():
    return keras.Sequential([keras.Input((2,), name="x"), nalu()])


def read(log_dir, run="model"):
    return EventAccumulator(str(log_dir / run), {"tensors": 0}).Reload()


def steps(events, tag):
    return [event.step for event in events.Tensors(tag)]


def texts(events, tag):
    (event,) = events.Tensors(tag)
    return event.tensor_proto.string_val[0].decode()


def image(events, tag):
    width, height, png = events.Tensors(tag)[-1].tensor_proto.string_val
    pixels = tf.io.decode_png(png, channels=3).numpy()
    assert pixels.shape == (int(height), int(width), 3)
    return pixels


def edges(graph, box=""):
    """The arrows that a person sees on opening a box of the graph."""

    def seen(name):
        name = name.split(":")[0]
        inside = name.startswith(box)
        return name.removeprefix(box).split("/")[0] if inside else None

    pairs = {
        (seen(source), seen(node.name)) for node in graph.node for source in node.input
    }
    return {(a, b) for a, b in pairs if a != b and None not in (a, b)}


def sequential():
    return one_layer(), "", "nalu"


def sequential_without_input():
    return keras.Sequential([nalu(2), layers.Dense(1)]), "nalu/", "nalu"


def functional():
    x = keras.Input((2,))
    return keras.Model(x, layers.Dense(1)(nalu()(x))), "nalu/", "nalu"


def nested():
    x = keras.Input((2,))
    inner = keras.Sequential([keras.Input((2,)), nalu(2), layers.Dense(2)], name="in")
    return keras.Model(x, layers.Dense(1)(inner(x))), "in/nalu/", "in/nalu"


def shared():
    x, layer = keras.Input((2,)), nalu(2)
    return keras.Model(x, layers.Dense(1)(layer(layer(x)))), "nalu/", "nalu"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.branches = {"first": [nalu(2)]}
        self.last = layers.Dense(1)

    def call(self, inputs):
        return self.last(self.branches["first"][0](inputs))


def subclassed():
    return Subclassed(), "nalu/", "nalu"


@pytest.mark.parametrize(
    "build",
    [
        *(sequential, subclassed),
        *(
            pytest.param(build, marks=pytest.mark.slow)
            for build in (sequential_without_input, functional, nested, shared)
        ),
    ],
)
def test_every_kind_of_model_is_drawn_and_recorded(tmp_path, build):
    model, box, tag = build()
    train(model, tmp_path, compile={"run_eagerly": False})
    events = read(tmp_path)
    entries = [(i, j) for i in range(2) for j in range(1 if build is sequential else 2)]
    assert {f"{tag}/kernel/image"} | {
        f"{tag}/kernel/x{i}_y{j}" for i, j in entries
    } >= {name for name in events.Tags()["tensors"] if "kernel" in name}
    assert {f"{tag}/kernel/image", f"{tag}/kernel/x1_y0"} <= {*events.Tags()["tensors"]}
    assert "nalu (NALU) | W_hat (" in texts(events, "layers")
    if DRAWS:
        assert edges(events.Graph(), box) >= EQUATION
        again = {("mix", name) for name in ("add_sub", "gate", "log_space")}
        assert (edges(events.Graph(), box) >= again) == (build is shared)
    else:
        assert not events.Tags()["graph"]


def compiled():
    if BACKEND == "torch":  # where compiling takes 15 s, and steps do not fuse
        return {"run_eagerly": False, "jit_compile": False}
    return {"run_eagerly": False, "jit_compile": True, "steps_per_execution": 2}


@pytest.mark.parametrize(
    "options",
    [compiled(), pytest.param({"run_eagerly": True}, marks=pytest.mark.slow)],
)
def test_every_way_to_run_is_drawn(tmp_path, options):
    train(one_layer(), tmp_path, compile=options)
    events = read(tmp_path)
    for name, value in options.items():
        assert f"| {name} | {value} |" in texts(events, "configuration")
    if DRAWS:
        assert edges(events.Graph()) >= EQUATION


def test_half_precision_is_drawn(tmp_path):
    layer = nalu(dtype="mixed_bfloat16")
    train(keras.Sequential([keras.Input((2,)), layer]), tmp_path)
    events = read(tmp_path)
    assert image(events, "nalu/kernel/image").shape[2] == 3
    if DRAWS:
        assert edges(events.Graph(), "nalu/") >= EQUATION


def test_inputs_and_outputs_are_drawn_by_name(tmp_path):
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    outputs = nalu()(layers.Concatenate(name="both")([a, b]))
    x = {"a": np.ones((8, 2)), "b": np.ones((8, 2))}
    train(keras.Model({"a": a, "b": b}, outputs), tmp_path, x=x)
    if DRAWS:
        graph = read(tmp_path).Graph()
        boxes = {("a", "both"), ("b", "both"), ("both", "nalu"), ("nalu", "output")}
        assert edges(graph) == boxes
        assert edges(graph, "nalu/") == EQUATION


def test_several_inputs_of_a_subclassed_model_are_drawn(tmp_path):
    class Sum(Subclassed):
        def call(self, inputs):
            return super().call(inputs["a"] + inputs["b"])

    x = {"a": np.ones((8, 2)), "b": np.ones((8, 2))}
    train(Sum(), tmp_path, x=x)
    if DRAWS:
        assert edges(read(tmp_path).Graph(), "nalu/") == EQUATION


def test_a_layer_in_a_wrapper_is_drawn_and_recorded(tmp_path):
    model = keras.Sequential([keras.Input((3, 2)), layers.TimeDistributed(nalu())])
    train(model, tmp_path, x=np.ones((8, 3, 2)), y=np.ones((8, 3, 1)))
    events = read(tmp_path)
    assert "time_distributed" in "".join(events.Tags()["tensors"])
    if DRAWS:
        assert edges(events.Graph()) >= EQUATION


def test_the_graph_is_the_equation_and_nothing_else(tmp_path):
    train(one_layer(), tmp_path)
    if DRAWS:
        graph = read(tmp_path).Graph()
        inputs = {("x", "add_sub"), ("x", "log_space"), ("x", "gate")}
        assert edges(graph) == EQUATION | inputs | {("mix", "output")}
        shapes = {
            node.name: [
                [size.size for size in shape.dim]
                for shape in node.attr["_output_shapes"].list.shape
            ]
            for node in graph.node
        }
        assert shapes["x"] == [[-1, 2]]
        assert shapes["W_hat"] == shapes["M_hat"] == shapes["G"] == [[2, 1]]
        assert shapes["output"] == [[-1, 1]]
        assert all(shapes.values())


def test_drawing_does_not_change_the_training(tmp_path):
    def losses(*callbacks):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                keras.Input((2,)),
                layers.Dense(4, activity_regularizer="l2"),
                layers.Dropout(0.5),
                layers.BatchNormalization(),
                nalu(),
            ]
        )
        model.compile(loss="mse", run_eagerly=True)
        x = np.arange(16, dtype="float32").reshape(8, 2)
        fit = {"epochs": 2, "batch_size": 4, "verbose": 0, "callbacks": callbacks}
        return model.fit(x, x[:, :1], **fit).history["loss"]

    alone = losses()
    told = contextlib.nullcontext()
    if not DRAWS:
        told = pytest.warns(UserWarning, match="torch")
    with told:
        watched = losses(keras_nalu.TensorBoard(tmp_path))
    assert watched == alone


class Undrawable(Subclassed):
    refuses = False

    def call(self, inputs):
        if self.refuses:
            raise ValueError("this model is not for tracing")
        return super().call(inputs)


def test_a_model_that_cannot_be_drawn_trains_on(tmp_path):
    model = Undrawable()

    def refuse(batch, logs):
        # Its step is traced by now; PyTorch calls the model anew for every batch.
        model.refuses = DRAWS

    first = keras.callbacks.LambdaCallback(on_train_batch_end=refuse)
    model.compile(loss="mse", run_eagerly=False)
    reason = "this model is not for tracing" if DRAWS else "the torch backend"
    with pytest.warns(UserWarning, match=f"(?s)stays empty.*{reason}") as warned:
        model.fit(
            np.ones((8, 2), "float32"),
            np.ones((8, 1), "float32"),
            epochs=2,
            batch_size=4,
            verbose=0,
            callbacks=[first, keras_nalu.TensorBoard(tmp_path)],
        )
    assert [warning.category for warning in warned].count(UserWarning) == 1
    events = read(tmp_path)
    assert steps(events, "nalu/kernel/image") == [0, 1]
    assert not events.Tags()["graph"]
    assert "own (Undrawable)" in texts(events, "configuration")


def test_write_graph_false_draws_nothing(tmp_path):
    train(one_layer(), tmp_path, write_graph=False)
    assert not read(tmp_path).Tags()["graph"]


def frozen(kernel):
    """A model whose effective weights are these, and stay so."""
    layer = nalu(kernel.shape[1])
    model = keras.Sequential([keras.Input(kernel.shape[:1]), layer, layers.Dense(1)])
    layer.set_weights([40 * kernel, np.full(kernel.shape, 40), 0 * kernel])
    layer.trainable = False
    return model


def record(kernel, log_dir):
    x = np.ones((8, kernel.shape[0]), "float32")
    train(frozen(kernel), log_dir, x=x, write_graph=False)
    return read(log_dir)


def test_the_image_is_the_heat_map_of_the_kernel_and_the_gate(tmp_path):
    kernel = np.array([[-1.0, 0, 1], [0.0, 1, -1]], "float32")
    pixels = image(record(kernel, tmp_path), "nalu/kernel/image")
    half = np.full(3, 0.5, "float32")
    np.testing.assert_array_equal(pixels, pictures.heat_map(kernel, half))


def test_a_large_kernel_has_a_histogram_and_a_small_one_scalars(tmp_path):
    large = np.resize([-1.0, 0, 1], (4, 4))
    events = record(large, tmp_path / "large")
    buckets = tf.make_ndarray(events.Tensors("nalu/kernel/histogram")[0].tensor_proto)
    assert buckets[0, 0] == -1
    assert buckets[-1, 1] == 1
    assert buckets[:, 2].sum() == 16
    assert "nalu/kernel/x0_y0" not in events.Tags()["tensors"]
    small = record(np.array([[0.0, -1.0]]), tmp_path / "small")
    (event,) = small.Tensors("nalu/kernel/x0_y1")
    assert tf.make_ndarray(event.tensor_proto) == -1
    assert "nalu/kernel/histogram" not in small.Tags()["tensors"]


def test_the_last_scalars_are_the_trained_kernel(tmp_path):
    model = one_layer()
    train(model, tmp_path, epochs=2, compile={"optimizer": keras.optimizers.SGD(0.1)})
    events = read(tmp_path)
    for i, value in enumerate(keras.ops.convert_to_numpy(model.layers[0].kernel)):
        event = events.Tensors(f"nalu/kernel/x{i}_y0")[-1]
        np.testing.assert_allclose(tf.make_ndarray(event.tensor_proto), value[0])


@pytest.mark.skipif(not DRAWS, reason="PyTorch trains no populations")
def test_a_population_has_one_picture_of_all_losses(tmp_path):
    template = keras.Sequential([keras.Input((2,)), nalu()])
    population = keras_nalu.Population(template, 3, seed=0)
    population.compile("sgd", "mse")
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    callback = keras_nalu.TensorBoard(tmp_path, kernel_freq=2)
    history = population.fit(x, y, epochs=4, verbose=0, callbacks=[callback])
    events = read(tmp_path)
    assert steps(events, "members/loss") == [0, 2, 3]
    shown = pictures.fan(history.members["loss"])
    np.testing.assert_array_equal(image(events, "members/loss"), shown)
    assert steps(events, "members/diverged") == [0, 1, 2, 3]
    scalars = read(tmp_path, "train").Tags()["tensors"]
    assert "epoch_loss" in scalars
    assert not [tag for tag in scalars if tag.startswith(("epoch_loss_", "epoch_div"))]
    assert {"loss_min", "diverged"} <= history.history.keys()


@pytest.mark.filterwarnings("ignore:Training step by step")
@pytest.mark.parametrize(
    "cls",
    [pytest.param(keras.Sequential, marks=pytest.mark.slow), keras_nalu.Sequential],
)
def test_the_text_tab_says_whether_xla_runs_the_steps(tmp_path, cls):
    model = cls([keras.Input((2,), name="x"), nalu()])
    steps = {"steps_per_execution": 2} if DRAWS else {}
    train(model, tmp_path, compile={"run_eagerly": False, **steps}, write_graph=False)
    rows = texts(read(tmp_path), "configuration").splitlines()
    fused = DRAWS and cls is keras_nalu.Sequential
    assert f"| steps | {'in one compiled loop' if fused else 'one by one'} |" in rows
    if fused:
        assert "| jit_compile | True |" in rows


@pytest.mark.parametrize(
    ("kernel_freq", "recorded"),
    [
        (2, [0, 2, 3]),
        pytest.param(1, [0, 1, 2, 3], marks=pytest.mark.slow),
        pytest.param(9, [0, 3], marks=pytest.mark.slow),
    ],
)
def test_kernels_are_recorded_every_kernel_freq_and_last(
    tmp_path, kernel_freq, recorded
):
    model = frozen(np.ones((2, 1)))
    train(model, tmp_path, epochs=4, kernel_freq=kernel_freq, write_graph=False)
    events = read(tmp_path)
    assert steps(events, "nalu/kernel/image") == recorded
    assert steps(events, "nalu/kernel/x0_y0") == recorded


def test_kernel_freq_zero_records_no_kernel(tmp_path):
    train(one_layer(), tmp_path, kernel_freq=0)
    assert set(read(tmp_path).Tags()["tensors"]) == {"configuration", "layers"}


def test_layers_of_one_name_are_told_apart(tmp_path):
    x = keras.Input((2,))
    halves = [keras.Model(a, nalu()(a)) for a in (keras.Input((2,)), keras.Input((2,)))]
    model = keras.Model(x, layers.add([half(x) for half in halves]))
    train(model, tmp_path, write_graph=False)
    tags = read(tmp_path).Tags()["tensors"]
    assert len([tag for tag in tags if tag.endswith("/image")]) == 2
    assert f"| {model.layers[0].name} (InputLayer) |" in texts(read(tmp_path), "layers")


def test_the_text_tab_holds_the_configuration(tmp_path):
    compile = {
        "optimizer": keras.optimizers.Adam(0.25),
        "loss": keras_nalu.L2Loss(),
        "metrics": ["mae"],
    }
    config = {"seed": 7, "cut|here": "a|b\nc"}
    train(one_layer(), tmp_path, epochs=3, compile=compile, config=config)
    rows = texts(read(tmp_path), "configuration").splitlines()
    assert rows[:2] == ["| setting | value |", "| --- | --- |"]
    for row in [
        "| optimizer | Adam |",
        "| learning rate | 0.25 |",
        f"| loss | {keras_nalu.L2Loss().name} |",
        "| metrics | loss, mae |",
        "| epochs | 3 |",
        "| steps per epoch | 2 |",
        "| dtype policy | float32 |",
        f"| backend | {BACKEND} |",
        f"| keras | {keras.__version__} |",
        f"| keras_nalu | {keras_nalu.__version__} |",
        "| seed | 7 |",
        "| cut\\|here | a\\|b c |",
    ]:
        assert row in rows


@pytest.mark.parametrize(
    ("loss", "row"),
    [
        ({"y": keras.losses.mean_squared_error}, "mean_squared_error"),
        ([keras.losses.Huber()], "huber_loss"),
        ("mae", "mae"),
    ],
)
def test_every_kind_of_loss_has_a_name(tmp_path, loss, row):
    x = keras.Input((2,))
    y = nalu()(x)
    model, y = (
        keras.Model(x, {"y": y} if isinstance(loss, dict) else y),
        np.ones((8, 1)),
    )
    y = {"y": y} if isinstance(loss, dict) else y
    train(model, tmp_path, y=y, compile={"loss": loss}, write_graph=False)
    assert f"| loss | {row} |" in texts(read(tmp_path), "configuration")


def test_the_learning_rate_of_a_scaled_schedule_is_told(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.9)
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule))
    train(one_layer(), tmp_path, compile={"optimizer": optimizer}, write_graph=False)
    assert "| learning rate | 0.5 |" in texts(read(tmp_path), "configuration")


def test_an_integer_update_freq_loses_no_epoch(tmp_path):
    fit = {"validation_data": (np.ones((8, 2)), np.ones((8, 1)))}
    callback = train(one_layer(), tmp_path, epochs=3, fit=fit, update_freq=5)
    for run in ("train", "validation"):
        assert steps(read(tmp_path, run), "epoch_loss") == [0, 1, 2]
    evaluations = read(tmp_path, "validation").Tensors("evaluation_loss_vs_iterations")
    assert len(evaluations) == 3
    assert steps(read(tmp_path, "train"), "batch_loss") == [5]
    assert steps(read(tmp_path), "nalu/kernel/image") == [0, 1, 2]
    assert callback.update_freq == 5


def test_update_freq_batch_writes_every_batch(tmp_path):
    train(one_layer(), tmp_path, epochs=2, update_freq="batch")
    events = read(tmp_path, "train")
    assert steps(events, "batch_loss") == [1, 2, 3, 4]
    assert steps(events, "epoch_loss") == [0, 1]
    assert steps(read(tmp_path), "configuration") == [0]


@pytest.mark.slow
def test_one_callback_serves_two_trainings(tmp_path):
    model = one_layer()
    callback = train(model, tmp_path)
    told = contextlib.nullcontext()
    if not DRAWS:
        told = pytest.warns(UserWarning, match="torch")
    with told:
        model.fit(
            np.ones((8, 2), "float32"),
            np.ones((8, 1)),
            batch_size=4,
            epochs=3,
            initial_epoch=1,
            verbose=0,
            callbacks=[callback],
        )
    # Each training writes a file, and TensorFlow numbers those of one second without
    # leading zeros: the tenth is read before the ninth.
    assert sorted(steps(read(tmp_path), "nalu/kernel/image")) == [0, 1, 2]
    assert sorted(steps(read(tmp_path, "train"), "epoch_loss")) == [0, 1, 2]


def test_an_empty_training_is_no_error(tmp_path):
    model = one_layer()
    model.compile(loss="mse")
    callback = keras_nalu.TensorBoard(tmp_path)
    model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=0, callbacks=[callback])
    assert read(tmp_path).Tags()["tensors"] == []


def test_a_log_dir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    model = one_layer()
    model.compile(loss="mse")
    callback = keras_nalu.TensorBoard(tmp_path / "file" / "logs")
    with pytest.raises(OSError, match=r"cannot write to log_dir='.*file/logs'"):
        model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0, callbacks=[callback])


def test_it_takes_every_argument_of_keras_callback(tmp_path):
    theirs = inspect.signature(keras.callbacks.TensorBoard).parameters
    defaults = [parameter.default for parameter in theirs.values()]
    by_name = dict(zip(theirs, defaults, strict=True)) | {"update_freq": 3}
    assert keras_nalu.TensorBoard(**by_name).update_freq == 3
    callback = keras_nalu.TensorBoard(*defaults[:5], "batch", *defaults[6:])
    assert callback.update_freq == 1


def test_embeddings_are_described_for_the_projector(tmp_path):
    model = keras.Sequential(
        [keras.Input((2,), dtype="int32"), layers.Embedding(5, 1), layers.Flatten()]
    )
    options = {"embeddings_freq": 1, "embeddings_metadata": "names.tsv"}
    train(model, tmp_path / "new", x=np.ones((8, 2), "int32"), **options)
    assert "names.tsv" in (tmp_path / "new" / "projector_config.pbtxt").read_text()


def test_keras_own_options_go_on_working(tmp_path):
    train(one_layer(), tmp_path, histogram_freq=1, write_steps_per_second=True)
    tags = read(tmp_path, "train").Tags()["tensors"]
    assert "epoch_steps_per_second" in tags
    assert [tag for tag in tags if tag.endswith("nalu/W_hat/histogram")]


@pytest.mark.slow
def test_a_tensorboard_server_shows_it(tmp_path):
    fit = {"validation_data": (np.ones((8, 2)), np.ones((8, 1)))}
    train(one_layer(), tmp_path, epochs=2, fit=fit)
    with serve(tmp_path) as url:
        assert get(url, "runs") == ["model", "train", "validation"]
        graphs = get(url, "plugin/graphs/info")
        if DRAWS:
            # The only graph of all runs: what the Graphs tab opens on.
            assert list(graphs) == ["model"]
            assert graphs["model"]["run_graph"]
            query = {"run": "model", "conceptual": "false"}
            body = get(url, "plugin/graphs/graph", **query)
            graph = text_format.Parse(body, tf.compat.v1.GraphDef())
            assert edges(graph) >= EQUATION
            assert all("_output_shapes" in node.attr for node in graph.node)
        else:
            assert graphs == {}
        images = get(url, "plugin/images/tags")
        assert list(images["model"]) == ["nalu/kernel/image"]
        scalars = get(url, "plugin/scalars/tags")
        assert sorted(scalars["model"]) == ["nalu/kernel/x0_y0", "nalu/kernel/x1_y0"]
        found = get(url, "plugin/text/tags")
        assert sorted(found["model"]) == ["configuration", "layers"]
        (table,) = get(url, "plugin/text/text", run="model", tag="configuration")
        assert "<td>steps per epoch</td>" in table["text"]
        (table,) = get(url, "plugin/text/text", run="model", tag="layers")
        assert "<td>W_hat (2, 1), M_hat (2, 1), G (2, 1)</td>" in table["text"]
        assert "epoch_loss" in get(url, "plugin/scalars/tags")["validation"]
