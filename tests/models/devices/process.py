"""One of several processes that train together: run by test_devices.py.

    python tests/models/devices/process.py ENGINE PORT PROCESSES PROCESS [ANOTHER_PORT]

Prints the weights that each kind of training ended with, as JSON.
"""

import json
import os
import sys

engine, port, count, process, *others = sys.argv[1:]
count, process = int(count), int(process)
address = f"127.0.0.1:{port}"
BATCH = 16
together = count > 1

if engine == "tensorflow":
    workers = [address, f"127.0.0.1:{others[0]}"]
    task = {"type": "worker", "index": process}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    import tensorflow as tf

    strategy = tf.distribute.MultiWorkerMirroredStrategy()

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_nalu  # noqa: E402

if engine.startswith("jax") and together:
    if engine == "jax-dies":
        import jax

        # `keras.distribution.initialize` would wait for 100 s.
        jax.distributed.initialize(
            address, count, process, heartbeat_timeout_seconds=10
        )
    else:
        keras.distribution.initialize(address, count, process)
if engine == "torch":
    import torch.distributed

    where = f"tcp://{address}"
    torch.distributed.init_process_group(
        "gloo", init_method=where, world_size=count, rank=process
    )
if engine.startswith("jax"):
    parallel = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(parallel)

rng = np.random.default_rng(0)
X = rng.uniform(1, 2, (320, 2)).astype("float32")
Y = X.sum(1, keepdims=True) * np.arange(1, 5, dtype="float32")
#: A share of each batch.
mine, labels = (
    a.reshape(20, count, BATCH // count, -1)[:, process].reshape(-1, a.shape[1])
    for a in (X, Y)
)


def draw(stream):
    x = stream.uniform((BATCH, 2), 1, 2)
    return x, x[..., :1] * np.arange(1, 5, dtype="float32")


def make(cls, **compiled):
    keras.utils.set_random_seed(1)
    first = keras_nalu.NAC(8) if engine == "torch" else keras_nalu.layers.NAU(8)
    model = cls([keras.Input((2,)), first, keras.layers.Dense(4)])
    if cls is keras_nalu.Sequential:
        # The loop, however short the training is.
        compiled = {"steps_per_execution": 100} | compiled
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", **compiled)
    return model


arrays = {"x": mine, "y": labels, "batch_size": BATCH // count, "shuffle": False}
ended = {}
if engine == "jax":
    kinds = {
        "plain": (keras.Sequential, arrays),
        "fused": (keras_nalu.Sequential, arrays | {"validation_data": (mine, labels)}),
        "drawn": (keras_nalu.Sequential, {"x": draw, "steps_per_epoch": 20}),
    }
    for kind, (cls, data) in kinds.items():
        model = make(cls)
        model.fit(**data, epochs=3, verbose=0)
        weights = [weight.ravel() for weight in model.get_weights()]
        ended[kind] = np.concatenate(weights).tolist()
    if together:
        try:
            keras_nalu.Population(make(keras.Sequential), 4)
        except ValueError as error:
            ended["population"] = str(error)
elif engine == "jax-dies":
    model = make(keras_nalu.Sequential)
    model.fit(**arrays, verbose=0)
    if process == 1:
        os._exit(9)
    model.fit(**arrays, epochs=10**9, verbose=0)
elif engine == "tensorflow":
    with strategy.scope():
        model = make(keras_nalu.Sequential)
    try:
        model.fit(**arrays, verbose=0)
    except ValueError as error:
        ended["fit"] = str(error)
else:
    model = make(keras_nalu.Sequential)
    try:
        model.fit(**arrays, verbose=0)
    except ValueError as error:
        ended["fit"] = str(error)
    ended["evaluate"] = model.evaluate(mine, labels, verbose=0)
    torch.distributed.destroy_process_group()
print(json.dumps(ended))
