"""More than one device: each case in processes of its own, with virtual devices.

What runs there is in tests/models/devices.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

BACKEND = keras.backend.backend()
HERE = Path(__file__).parent / "devices"
#: Nothing of this takes so long, on two cores that have other work.
SECONDS = 1500

pytestmark = pytest.mark.slow
jax = pytest.mark.only("jax", reason="keras.distribution is for JAX")
tensorflow = pytest.mark.only("tensorflow", reason="TensorFlow's strategy")
torch = pytest.mark.only("torch", reason="PyTorch's processes")


def environment(devices=1):
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    return os.environ | {"KERAS_BACKEND": BACKEND, "XLA_FLAGS": flags}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.parametrize(
    ("file", "devices"),
    [
        pytest.param("on_jax.py", 8, marks=jax),
        pytest.param("on_tensorflow.py", 1, marks=tensorflow),
    ],
)
def test_several_devices(file, devices):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, HERE / file],
        env=environment(devices),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stdout
    assert re.search(r"^\d+ passed in", run.stdout, re.MULTILINE), run.stdout


def start(engine, ports, count, process, **variables):
    """A process; JAX' coordinator is seen from this machine alone."""
    command = [sys.executable, HERE / "process.py", engine, ports[0]]
    bind = {"JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{ports[0]}"}
    return subprocess.Popen(
        [*command, str(count), str(process), *ports[1:]],
        env=environment(devices=2) | bind | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(*processes):
    """What each has printed to the end; none is left."""
    try:
        return [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()


def ended(*processes):
    printed = end(*processes)
    for process, (_, errors) in zip(processes, printed, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


@jax
def test_two_processes_end_as_one():
    ports = free_ports(1)
    first, second = ended(*(start("jax", ports, 2, i) for i in range(2)))
    (alone,) = ended(start("jax", ports, 1, 0))
    assert first == second
    for kind in ("plain", "fused", "drawn"):
        np.testing.assert_allclose(first[kind], alone[kind], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first["plain"], first["fused"], rtol=1e-5, atol=1e-6)
    assert "of one process. Received: 2 processes" in first["population"]


@jax
def test_a_process_that_dies_ends_the_other():
    ports = free_ports(1)
    left, died = (start("jax-dies", ports, 2, i) for i in range(2))
    (_, errors), _ = end(left, died)
    assert died.returncode == 9
    assert left.returncode != 0
    assert "Connection reset by peer" in errors or "heartbeat" in errors, errors


@jax
def test_a_port_that_is_taken_ends_the_process():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start("jax", [port], 2, 0, TF_CPP_MIN_LOG_LEVEL="0")
        ((_, errors),) = end(process)
    assert process.returncode != 0
    assert "Failed to add port to server" in errors


@tensorflow
def test_fit_of_several_workers_says_which_engine_to_take():
    ports = free_ports(2)
    both = ended(*(start("tensorflow", ports, 2, i) for i in range(2)))
    for said in both:
        assert "does not train under MultiWorkerMirroredStrategy" in said["fit"]
        assert "Try KERAS_BACKEND=jax" in said["fit"]


@torch
def test_fit_in_a_process_group_says_which_engine_to_take():
    ports = free_ports(1)
    both = ended(*(start("torch", ports, 2, i) for i in range(2)))
    for said in both:
        assert "does not add up the gradients of PyTorch's processes" in said["fit"]
        assert "Received: a process group of 2. Try KERAS_BACKEND=jax" in said["fit"]
        assert said["evaluate"] > 0
    # One that is alone trains as it does without a group.
    (alone,) = ended(start("torch", free_ports(1), 1, 0))
    assert alone.keys() == {"evaluate"}
