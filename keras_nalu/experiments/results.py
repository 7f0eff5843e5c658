"""Result rows on disk: a file for every experiment, whole or not there at all."""

import gzip
import json
import os
import re
import tempfile
from pathlib import Path


class Results:
    """The rows of a folder.

    An experiment's file is written once it has ended, in one step: a run that was
    killed leaves no half of it, and two runs in one folder do not mix.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, experiment, backend):
        words = experiment.module, experiment.task.operation, experiment.identity
        name = re.sub(r"[^A-Za-z0-9]+", "-", " ".join(words)).strip("-")
        return self.folder / experiment.suite / f"{name}-{backend}.jsonl"

    def has(self, experiment, backend):
        return self.path(experiment, backend).exists()

    def check(self):
        """Raises OSError where nothing can be written: before the hours of training."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder):
            pass

    def write(self, experiment, backend, rows):
        path = self.path(experiment, backend)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        handle, whole = tempfile.mkstemp(suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(lines)
            # As any other file that is made here.
            os.chmod(whole, 0o666 & ~_umask())
            os.replace(whole, path)
        except BaseException:
            Path(whole).unlink(missing_ok=True)
            raise
        return path

    def pack(self, path):
        """All rows in one small file, which `keras-nalu report` reads, too."""
        files = sorted(self.folder.rglob("*.jsonl"))
        text = "".join(file.read_text() for file in files)
        # No time in it: the same rows are the same file.
        Path(path).write_bytes(gzip.compress(text.encode(), mtime=0))

    def rates(self):
        """Model-steps a second of earlier rows, by suite, module and operation."""
        rates = {}
        for path in self.folder.glob("*/*.jsonl"):
            with path.open() as file:
                row = json.loads(file.readline())
            key = row["suite"], row["module"], row["operation"], row["backend"]
            rates[key] = row["members"] * row["steps"] / row["seconds"]
        return rates


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
