"""A small training with TensorBoard's callback, and a TensorBoard server."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest

import keras_nalu

DRAWS = keras.backend.backend() != "torch"


def train(model, log_dir, epochs=1, x=None, y=None, compile=None, fit=None, **options):
    """Trains on 8 samples in 2 steps an epoch, and returns the callback.

    Eagerly by default, which is the fastest for so few samples.
    """
    x = np.ones((8, 2), "float32") if x is None else x
    y = np.ones((8, 1), "float32") if y is None else y
    model.compile(**{"loss": "mse", "run_eagerly": True, **(compile or {})})
    callback = keras_nalu.TensorBoard(log_dir, **options)
    expected = contextlib.nullcontext()
    if not DRAWS and options.get("write_graph", True):
        expected = pytest.warns(UserWarning, match="Graphs tab stays empty: the torch")
    with expected:
        fit = {"batch_size": 4, "verbose": 0, "callbacks": [callback], **(fit or {})}
        model.fit(x, y, epochs=epochs, **fit)
    return callback


def nalu(units=1, **options):
    return keras_nalu.NALU(units, name="nalu", **options)


@contextlib.contextmanager
def serve(log_dir):
    """Runs a TensorBoard server; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tensorboard.main", "--load_fast=false"]
    command += ["--logdir", str(log_dir), "--host", "127.0.0.1", "--port", port]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while not loaded(url):
                assert server.poll() is None, "TensorBoard ended"
                assert time.monotonic() < deadline, "TensorBoard does not answer"
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()


def loaded(url):
    try:
        return "model" in get(url, "runs")
    except OSError:
        return False


def get(url, path, **query):
    address = f"{url}/data/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        body = answer.read()
    return json.loads(body) if "json" in answer.headers["Content-Type"] else body
