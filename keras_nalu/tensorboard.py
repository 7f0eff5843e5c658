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

#: Of a kernel with more entries a histogram is recorded, and no scalars.
FEW = 12


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback, with a graph that reads like the paper and effective weights.

    A drop-in replacement. Beside Keras' runs it writes one of its own, `model`:

    - Graphs: a box for every layer, and in an arithmetic layer's box the equation:
      `W_hat` and `M_hat` into `nac`, on to `add_sub` and `log_space`, `G` into `gate`,
      all into `mix`. A lone layer is shown from the inside; the calls of a shared layer
      share a box; a subclassed model is drawn with float inputs. A model that cannot be
      drawn is a warning and trains on: on PyTorch, which keeps no name scopes, every
      model.
    - Images: the effective weights of every arithmetic layer, with their values. A row
      is an input, a column a unit; -1 is blue, 0 white, +1 red, not-a-number black. The
      row below is the gate, at inputs that are all 1.
    - Scalars: the entries of a kernel of up to 12; of a larger one a histogram.
    - Text: the run's configuration, and the layers with their weights.

    Of a `Population` it draws the template, leaves the effective weights out, and
    paints the losses of all members in one picture. Of the quantiles that are logged,
    Scalars has the median, and `members/diverged`.

    With an integer `update_freq` Keras drops the epoch and validation metrics that do
    not fall on a multiple of it; here they are kept.

    Args:
        log_dir: Folder of the runs; a new one for each training.
        histogram_freq: Epochs between two histograms of the stored weights.
        write_graph: Whether to draw the graph.
        *args: Further arguments of Keras' callback, in its order.
        kernel_freq: Epochs between two records of the effective weights, or of the
            members' losses; those after the last epoch are recorded too. 0 records
            none.
        config: Further rows of the run's configuration, value by name.
        **kwargs: Further arguments of Keras' callback, such as `update_freq`.

    Raises:
        ValueError: `kernel_freq` is not an integer of 0 or more.
        OSError: `log_dir` cannot be written, found when the training begins.

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
                f"kernel_freq={kernel_freq!r}."
            )
        # Found missing here rather than in the middle of a program; it writes for all
        # the backends.
        import tensorflow  # noqa: F401

        # Keras' own graph opens the Graphs tab on "Malformed GraphDef".
        super().__init__(log_dir, histogram_freq, False, *args, **kwargs)
        self.writes_graph = write_graph
        self.kernel_freq = kernel_freq
        self.config = dict(config or {})

    def set_model(self, model):
        # Keras makes it by writing its graph, and puts its embeddings into it.
        with contextlib.suppress(OSError):  # `on_train_begin` says what is wrong.
            os.makedirs(self.log_dir, exist_ok=True)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        # A folder of its own: of two writers in one, TensorBoard loses events.
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
        """Only after an epoch every model is built, and its metrics have names."""
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
        """The logs without what the picture of the members shows."""
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
                # Under one tag TensorBoard shows the first kind alone.
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
        """Keras asks `update_freq` also about what is written once an epoch."""
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
    """What is known of a run before its first batch."""

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
    """The weights of every layer that holds no other layer, by path and class."""
    leaves = [
        layer for layer in walk_layers(model) if len(list(walk_layers(layer))) == 1
    ]
    return {
        f"{layer.path} ({type(layer).__name__})": ", ".join(
            f"{weight.name} {tuple(weight.shape)}" for weight in layer.weights
        )
        for layer in leaves
    }


def _table(head, rows):
    """A table in Markdown."""
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
