"""The members of a population on several devices."""

import contextlib

import keras

from keras_nalu.models.backends.base import Devices


class OneDevice:
    """All members on the device that Keras uses."""

    def scope(self, stacked=False):
        """The layout of shared values or, if `stacked`, of those of all members."""
        return contextlib.nullcontext()

    def devices(self, is_per_member):
        return Devices()


class ManyDevices:
    """The members on the devices of a `keras.distribution`, equally many on each.

    Only the axis of the members is cut. The mesh has a second axis of length 1, because
    Keras cuts batches over an axis of it.
    """

    def __init__(self, distribution, size):
        devices = distribution.device_mesh.devices.flatten()
        if distribution.num_processes > 1:
            raise ValueError(
                "A population spreads its members over the devices of one process. "
                f"Received: {distribution.num_processes} processes. Try a population "
                "in each, with another `seed`, without `keras.distribution`."
            )
        if rest := size % devices.size:
            fitting = max(n for n in range(1, devices.size) if size % n == 0)
            raise ValueError(
                f"Expected equally many members on each of {devices.size} devices. "
                f"Received: size={size}. Try size={size - rest + devices.size}, or "
                "`keras.distribution.DataParallel(devices=keras.distribution."
                f"list_devices()[:{fitting}])`."
            )
        names = "members", "batch"
        self.mesh = keras.distribution.DeviceMesh((devices.size, 1), names, devices)
        self._shared = self._parallel({})
        # For values whose first axis is the members.
        self._stacked = self._parallel({".*": ("members",)})

    def _parallel(self, layouts):
        layout_map = keras.distribution.LayoutMap(self.mesh)
        layout_map.update(layouts)
        return keras.distribution.ModelParallel(
            layout_map=layout_map, batch_dim_name="batch"
        )

    def scope(self, stacked=False):
        """The layout of shared values or, if `stacked`, of those of all members."""
        return (self._stacked if stacked else self._shared).scope()

    def devices(self, is_per_member):
        """The devices of batches; `is_per_member(x)` tells whether they are cut."""
        from keras_nalu.models.backends.jax import Spread

        return Spread(
            1, lambda batch: lambda shape: self._layout(is_per_member(batch[0]), shape)
        )

    def _layout(self, per_member, shape):
        """Data per member has rows on its first axis, then members."""
        axes = (None, "members") if per_member else ()
        axes += (None,) * (len(shape) - len(axes))
        return keras.distribution.TensorLayout(axes, self.mesh)


def where(size):
    """The devices for the members of a population."""
    distribution = keras.distribution.distribution()
    if distribution is None or keras.backend.backend() != "jax":
        return OneDevice()
    return ManyDevices(distribution, size)
