"""How a population scales over devices of JAX, virtual ones of one processor.

    KERAS_BACKEND=jax python tests/speed/devices.py

Medians of paired samples: the numbers of devices take turns, in one process. Eight
devices on two cores are no more than two; a device alone uses one core at a time here.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import keras
import speed

COUNTS = 1, 2, 8
STEPS = 50


def spread(members, count):
    """A sample of microseconds a member's step, on so many devices."""
    distribution = keras.distribution
    devices = distribution.list_devices()[:count]
    parallel = distribution.DataParallel(devices=devices) if count > 1 else None
    distribution.set_distribution(parallel)
    rows = speed.data(STEPS, 128)
    options = {"batch_size": 128, "shuffle": False}
    sample = speed.of_fit(
        speed.notebook(members), *rows, epochs=2, steps=STEPS, **options
    )

    def on_devices():
        distribution.set_distribution(parallel)
        return sample()

    return on_devices


def main():
    print(f"{keras.backend.backend()}, {os.cpu_count()} CPUs, batches of 128 rows")
    for members in (80, 800, 8000):
        samples = [spread(members, count) for count in COUNTS]
        taken = speed.take_turns(*samples, rounds=5)
        for count, times in zip(COUNTS, taken, strict=True):
            ratio = speed.spread(taken[0] / times, 2)
            print(
                f"{members:5} members on {count}  {speed.spread(times, 3):24} us a "
                f"member-step  {ratio} times as fast as on 1",
                flush=True,
            )


if __name__ == "__main__":
    main()
