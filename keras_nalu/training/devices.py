"""More than one device: Keras' engines, and what to say where they do not train.

They are `keras.distribution` on JAX and TensorFlow's `MirroredStrategy`. Each batch is
cut over the devices, and the gradients of the parts are put together.
"""

import contextlib
import re
import sys

import keras

from keras_nalu.training import feeds

#: What JAX says of a batch that it cannot cut into equal parts, and TensorFlow.
UNEVEN = r"partitioned \d+ times, but the dimension|operation AddN .*have the same size"


def find(model):
    """How the batches lie on several devices; `None` where there is one."""
    if keras.backend.backend() not in ("jax", "tensorflow"):
        return None
    return feeds.backend_module().find_devices(model)


def refuse_to_fit(model):
    """Where Keras' `fit` would not train, or not on all devices."""
    if keras.backend.backend() == "tensorflow":
        feeds.backend_module().refuse(model)
    # Whoever has processes has imported it.
    torch = sys.modules.get("torch.distributed")
    if keras.backend.backend() == "torch" and torch and torch.is_available():
        if torch.is_initialized() and torch.get_world_size() > 1:
            raise ValueError(
                "Keras' `fit` does not put the gradients of PyTorch's processes "
                "together: each would train by itself. Received: a process group of "
                f"{torch.get_world_size()}. Try KERAS_BACKEND=jax with "
                "`keras.distribution`, or a loop of your own around "
                "DistributedDataParallel. Where each is to train by itself: "
                "`torch.distributed.destroy_process_group()`."
            )


class Members:
    """A population's members on the devices of a `keras.distribution`, as many on each.

    Of all that is Keras', the members alone are cut: a second axis of the devices, of
    one, is what Keras cuts batches over.
    """

    def __init__(self, distribution, size):
        devices = distribution.device_mesh.devices.flatten()
        if distribution.num_processes > 1:
            raise ValueError(
                "A population spreads its members over the devices of one process. "
                f"Received: {distribution.num_processes} processes. Try a population "
                "in each, with a `seed` of its own, without `keras.distribution`."
            )
        if rest := size % devices.size:
            fitting = max(n for n in range(1, devices.size) if size % n == 0)
            raise ValueError(
                f"Expected as many members on each of {devices.size} devices. "
                f"Received: size={size}. Try size={size - rest + devices.size}, or "
                "`keras.distribution.DataParallel(devices=keras.distribution."
                f"list_devices()[:{fitting}])`."
            )
        names = "members", "batch"
        self.mesh = keras.distribution.DeviceMesh((devices.size, 1), names, devices)
        self.scope = self._parallel({}).scope
        # Of what has an axis of the members in front.
        self.stacked_scope = self._parallel({".*": ("members",)}).scope

    def _parallel(self, layouts):
        layout_map = keras.distribution.LayoutMap(self.mesh)
        layout_map.update(layouts)
        return keras.distribution.ModelParallel(
            layout_map=layout_map, batch_dim_name="batch"
        )

    def layout(self, own):
        """Of a batch's arrays: those of each member's own have rows, then members."""

        def layout(shape):
            axes = (None, "members") if own else ()
            axes += (None,) * (len(shape) - len(axes))
            return keras.distribution.TensorLayout(axes, self.mesh)

        return layout


def members(size):
    """Where the members of a population are to be; `None` on one device."""
    distribution = keras.distribution.distribution()
    if distribution is None or keras.backend.backend() != "jax":
        return None
    return Members(distribution, size)


def check_rows(devices, data, batch_size):
    """Arrays tell before anything runs that a batch cannot be cut into equal parts."""
    if not feeds.are_arrays(data) or not (rows := feeds.count_rows(data)):
        return
    batch = min(batch_size or 32, rows)
    for size in (batch, rows % batch):
        if size % devices.parts:
            raise ValueError(
                uneven(devices.parts, f"{rows} rows, in batches of {batch}")
            )


def uneven(parts, received):
    return (
        f"Every batch is cut into {parts} equal parts, one for each device, the last "
        f"batch too. Received: {received}. Try a `batch_size` and a number of rows "
        f"that are multiples of {parts}."
    )


def guarded(model, function):
    """Keras' `function`, which may take uneven batches, and take them wrongly."""
    even = getattr(find(model), "even", None)
    return even(function) if even else function


@contextlib.contextmanager
def explained(devices, model):
    """Says what an engine means by its error, where batches come one by one."""
    hold = getattr(devices, "hold", None)
    held = hold(model) if hold else None
    try:
        yield
    except Exception as error:
        if devices is None or not re.search(UNEVEN, str(error), re.DOTALL):
            raise
        if held:
            devices.put_back(model, held)
        raise ValueError(uneven(devices.parts, "a batch that is not")) from error
