"""The members of a population on several devices."""

import contextlib

import keras

from keras_nalu.models.backends.base import Devices


class OneDevice:
    """All members on the device where Keras computes."""

    def scope(self, stacked=False):
        """Where Keras lays out data; or, if `stacked`, what all members have."""
        return contextlib.nullcontext()

    def devices(self, is_per_member):
        return Devices()


class ManyDevices:
    """The members on the devices of a `keras.distribution`, as many on each.

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
        self._shared = self._parallel({})
        # Of what has an axis of the members in front.
        self._stacked = self._parallel({".*": ("members",)})

    def _parallel(self, layouts):
        layout_map = keras.distribution.LayoutMap(self.mesh)
        layout_map.update(layouts)
        return keras.distribution.ModelParallel(
            layout_map=layout_map, batch_dim_name="batch"
        )

    def scope(self, stacked=False):
        """Where Keras lays out data; or, if `stacked`, what all members have."""
        return (self._stacked if stacked else self._shared).scope()

    def devices(self, is_per_member):
        """How batches lie; `is_per_member(x)` tells whether each member has its own."""
        from keras_nalu.models.backends.jax import Spread

        return Spread(
            1, lambda batch: lambda shape: self._layout(is_per_member(batch[0]), shape)
        )

    def _layout(self, per_member, shape):
        """A member's own data has rows, then members."""
        axes = (None, "members") if per_member else ()
        axes += (None,) * (len(shape) - len(axes))
        return keras.distribution.TensorLayout(axes, self.mesh)


def where(size):
    """Where the members of a population are to be."""
    distribution = keras.distribution.distribution()
    if distribution is None or keras.backend.backend() != "jax":
        return OneDevice()
    return ManyDevices(distribution, size)
