import contextlib
import os
import warnings

import keras
import numpy as np

import keras_nalu
from keras_nalu import pictures
from keras_nalu.graph import graph_def, unused
from keras_nalu.layers.base import ArithmeticLayer, walk_layers
from keras_nalu.models.run import current

#: A kernel with more entries is recorded as a histogram instead of scalars.
FEW = 12


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback, with a graph that reads like the paper and effective weights.

    A drop-in replacement, which writes a run `model` beside Keras' runs:

    - Graphs: a box for every layer. The box of an arithmetic layer has the equation:
      `W_hat` and `M_hat` go into `nac`, then `add_sub` and `log_space`, `G` into
      `gate`, and all into `mix`. A lone layer is shown from the inside; the calls of a
      shared layer share a box; a subclassed model gets float inputs. If there is no
      graph, as on PyTorch, which keeps no name scopes, a warning says why.
    - Images: the effective weights of every arithmetic layer, with their values. A row
      is an input, a column a unit; -1 is blue, 0 white, +1 red, not-a-number black. The
      row below is the gate for inputs that are all 1.
    - Scalars: the entries of a kernel that has up to 12, or else their histogram.
    - Text: the run's configuration, and the layers with their weights.

    For a `Population` it shows the graph of the template, one picture of all members'
    losses instead of the effective weights, and as scalars `members/diverged` and the
    medians of what is logged.

    With an integer `update_freq` Keras drops the metrics of epochs and validations that
    do not end on a multiple of it. This callback keeps them.

    Args:
        log_dir: Folder of the runs; use a new one for each training.
        histogram_freq: Epochs between two histograms of the stored weights.
        write_graph: Whether to write the graph.
        *args: Further arguments of Keras' callback, in its order.
        kernel_freq: Epochs between two records of the effective weights, or of the
            members' losses. The last epoch is always recorded, unless this is 0.
        config: Further rows of the run's configuration, as a dictionary.
        **kwargs: Further arguments of Keras' callback, such as `update_freq`.

    Raises:
        ValueError: `kernel_freq` is not an integer of 0 or more.
        OSError: the training begins, and `log_dir` cannot be written.

    Example:

    ```python
    tensorboard = keras_nalu.TensorBoard("logs/first", config={"seed": 1})
    model.fit(x, y, epochs=10, callbacks=[tensorboard])
    # In a shell: tensorboard --logdir logs
    ```
    """

    def __init__(
        self,
        log_dir="logs",
        histogram_freq=0,
        write_graph=True,
        *args,
        kernel_freq=1,
        config=None,
        **kwargs,
    ):
        if not isinstance(kernel_freq, int) or kernel_freq < 0:
            raise ValueError(
                "Expected `kernel_freq` to be an integer of 0 or more. Received: "
                f"kernel_freq={kernel_freq!r}. Try kernel_freq=1."
            )
        # It writes the files on every backend; if it is missing, fail before training.
        import tensorflow  # noqa: F401

        # With Keras' graph the Graphs tab would open on "Malformed GraphDef".
        super().__init__(log_dir, histogram_freq, False, *args, **kwargs)
        self.writes_graph = write_graph
        self.kernel_freq = kernel_freq
        self.config = dict(config or {})

    def set_model(self, model):
        # Keras puts its embeddings into the folder, which it makes only for its graph.
        with contextlib.suppress(OSError):  # `on_train_begin` says what is wrong.
            os.makedirs(self.log_dir, exist_ok=True)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        # In a separate folder, because TensorBoard loses events of two writers in one.
        self._model_writer = _open_writer(self.log_dir, "model")
        self._epoch = self._recorded_epoch = None
        self._arithmetic = []
        self._losses = []
        self._configuration = _configuration(self.model, self.params)
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        if self._configuration is not None:
            self._begin(self._configuration, logs or {})
        self._epoch = epoch
        if isinstance(self.model, keras_nalu.Population):
            self._losses.append(self.model.member_logs["loss"])
            logs = self._record_diverged(dict(logs or {}))
        if self.kernel_freq and epoch % self.kernel_freq == 0:
            self._record()
        with self._every_batch_due():
            super().on_epoch_end(epoch, logs)

    def on_test_end(self, logs=None):
        with self._every_batch_due():
            super().on_test_end(logs)

    def on_train_end(self, logs=None):
        if self.kernel_freq and self._recorded_epoch != self._epoch:
            self._record()
        self._model_writer.close()
        super().on_train_end(logs)

    def _begin(self, configuration, logs):
        """Called after an epoch, when models are built and metrics have names."""
        metrics = ", ".join(name for name in logs if not name.startswith("val_"))
        self._describe(configuration | {"metrics": metrics} | self.config)
        self._configuration = None
        self._arithmetic = [
            layer
            for layer in walk_layers(self.model)
            if isinstance(layer, ArithmeticLayer) and layer.built
        ]

    def _describe(self, configuration):
        import tensorflow as tf

        model = self.model
        if isinstance(model, keras_nalu.Population):
            model = model.template
        with self._recording(step=0):
            tf.summary.text(
                "configuration", _table(["setting", "value"], configuration)
            )
            tf.summary.text("layers", _table(["layer", "weights"], _weights(model)))
            if self.writes_graph:
                try:
                    tf.summary.graph(graph_def(model))
                except Exception as error:
                    message = f"TensorBoard's Graphs tab stays empty: {error}"
                    warnings.warn(message, stacklevel=2)

    def _record_diverged(self, logs):
        """Records `diverged`; returns the logs without what the picture shows."""
        import tensorflow as tf

        with self._recording(self._epoch):
            tf.summary.scalar("members/diverged", logs.pop("diverged"))
        ends = "_min", "_q1", "_q3", "_max"
        return {name: a for name, a in logs.items() if not name.endswith(ends)}

    def _record(self):
        import tensorflow as tf

        with self._recording(self._epoch):
            if self._losses:
                losses = np.array(self._losses)
                tf.summary.image(
                    "members/loss",
                    pictures.fan(losses)[None],
                    description="All members light, the middle half darker, the median "
                    "a line.",
                )
            for name, (kernel, gate) in _kernels(self.model, self._arithmetic).items():
                # Under one tag TensorBoard would show only the first kind of record.
                picture = pictures.heat_map(kernel, gate)
                tf.summary.image(f"{name}/image", picture[None])
                if kernel.size > FEW:
                    tf.summary.histogram(f"{name}/histogram", kernel)
                    continue
                for (i, j), value in np.ndenumerate(kernel):
                    tf.summary.scalar(f"{name}/x{i}_y{j}", value)
        self._recorded_epoch = self._epoch

    @contextlib.contextmanager
    def _recording(self, step):
        import tensorflow as tf

        with self._model_writer.as_default(step), tf.summary.record_if(True):
            yield
        self._model_writer.flush()

    @contextlib.contextmanager
    def _every_batch_due(self):
        """Makes Keras write what comes once an epoch, whatever `update_freq` is."""
        every = self.update_freq
        self.update_freq = every if every == "epoch" else 1
        yield
        self.update_freq = every


def _open_writer(log_dir, run):
    import tensorflow as tf

    try:
        return tf.summary.create_file_writer(os.path.join(log_dir, run))
    except tf.errors.OpError as error:
        raise OSError(
            f"TensorBoard cannot write to log_dir={log_dir!r}. Give the path of a "
            f"folder that you may write to. {error.message}"
        ) from error


def _configuration(model, params):
    """The rows of the configuration that are known before the first batch."""

    def name(loss):
        return str(getattr(loss, "name", getattr(loss, "__name__", loss)))

    optimizer = {}
    if model.optimizer is not None:
        rate = keras.ops.convert_to_numpy(model.optimizer.learning_rate)
        optimizer["optimizer"] = type(model.optimizer).__name__
        optimizer["learning rate"] = f"{float(rate):g}"
    return {
        "model": f"{model.name} ({type(model).__name__})",
        **optimizer,
        "loss": ", ".join(map(name, keras.tree.flatten(model.loss))),
        "epochs": params["epochs"],
        "steps per epoch": params["steps"],
        "dtype policy": model.dtype_policy.name,
        "steps": "in one compiled loop" if current(model) else "one by one",
        "jit_compile": bool(current(model)) or model.jit_compile,
        "run_eagerly": model.run_eagerly,
        "steps_per_execution": model.steps_per_execution,
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "keras_nalu": keras_nalu.__version__,
    }


def _weights(model):
    """The weights of every layer without sublayers, by path and class."""
    leaves = [
        layer for layer in walk_layers(model) if len(list(walk_layers(layer))) == 1
    ]
    return {
        # An InputLayer, which is never built, has no path.
        f"{layer.path or layer.name} ({type(layer).__name__})": ", ".join(
            f"{weight.name} {tuple(weight.shape)}" for weight in layer.weights
        )
        for layer in leaves
    }


def _table(head, rows):
    lines = []
    for row in [head, ["---", "---"], *rows.items()]:
        cells = (" ".join(str(cell).split()).replace("|", r"\|") for cell in row)
        lines.append("| {} | {} |".format(*cells))
    return "\n".join(lines)


def _kernels(model, layers):
    """The effective weights of arithmetic layers, and their gates, by tag."""
    kernels = {}
    for layer in layers:
        path = layer.path.removeprefix(f"{model.name}/")
        gate = None
        if hasattr(layer, "gate"):
            features = layer.input_spec.axes[-1]
            gate = _numbers(layer.gate(keras.ops.ones((1, features))))
        for name, kernel in layer.kernels.items():
            kernel = _numbers(kernel)
            kernel = kernel.reshape(-1, kernel.shape[-1])
            fits = gate is not None and gate.size == kernel.shape[-1]
            tag = unused(f"{path}/{name}", kernels)
            kernels[tag] = kernel, gate if fits else None
    return kernels


def _numbers(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))
