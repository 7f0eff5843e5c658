"""How much memory a training takes, in a process of its own: a row of `speed.py`.

    python tests/speed/memory.py SIZE|memmap|LAYER WIDTH

Of the notebook's training with a population of that size, of a model on 1 GiB of data
in a file, or of a layer with so many inputs and units.
"""

import sys
import tempfile
import threading
import time

import keras
import numpy as np
from speed import megabytes, notebook, of_layer, of_notebook, seconds

from keras_nalu.layers import LAYERS


def train(name, sample):
    before = megabytes("VmHWM")
    sample()
    peak = megabytes("VmHWM")
    print(f"{name:18}{peak:6.0f} MB at the peak, {before:.0f} MB before")


def population(size):
    train(f"{size:6} members", of_notebook(size, 1))


def layer(name, width):
    train(f"{name} of {width}", of_layer(LAYERS.get(name, keras.layers.Dense), width))


def memmap(rows=89_000_000, batch=1000):
    seen = [megabytes("RssAnon")]

    def watch():
        # Not the pages of the file: the system can drop them.
        while True:
            seen.append(megabytes("RssAnon"))
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    with tempfile.TemporaryFile() as file:
        held = np.memmap(file, "float32", "w+", shape=(3 * rows,))
        X, Y = held[: 2 * rows].reshape(rows, 2), held[2 * rows :].reshape(rows, 1)
        fit = {"batch_size": batch, "shuffle": False, "verbose": 0}
        taken = seconds(lambda: notebook().fit(X, Y, **fit))
    print(
        f"a memmap of 1 GiB  {max(seen):.0f} MB at the peak besides the file, "
        f"{seen[0]:.0f} MB before; {taken:.0f} s for {rows // batch} steps"
    )


if __name__ == "__main__":
    what, *width = sys.argv[1:]
    if width:
        layer(what, int(*width))
    elif what == "memmap":
        memmap()
    else:
        population(int(what))
