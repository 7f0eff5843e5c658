"""How much memory a training takes, in a process of its own: a row of `speed.py`.

    python tests/speed/memory.py SIZE|memmap

Of the notebook's training with a population of that size, or of a model on 1 GiB of
data in a file.
"""

import sys
import tempfile
import threading
import time

import numpy as np
from speed import megabytes, notebook, of_notebook, seconds


def population(size):
    before = megabytes("VmHWM")
    of_notebook(size, 1)()
    peak = megabytes("VmHWM")
    print(f"{size:6} members  {peak:6.0f} MB at the peak, {before:.0f} MB before")


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
    memmap() if sys.argv[1] == "memmap" else population(int(sys.argv[1]))
