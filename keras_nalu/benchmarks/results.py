"""Result rows on disk: a file for every experiment, complete or absent."""

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path


class Results:
    """The rows of a folder.

    An experiment's file is written atomically once it has ended: a killed run leaves no
    partial file, and two runs in one folder do not mix.
    """

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, experiment, backend):
        words = experiment.module, experiment.task.operation, experiment.identity
        name = re.sub(r"[^A-Za-z0-9]+", "-", " ".join(words)).strip("-")
        return self.folder / experiment.suite / f"{name}-{backend}.jsonl"

    def has(self, experiment, backend):
        """Whether the file has all rows of the experiment."""
        try:
            lines = self.path(experiment, backend).read_bytes()
        except FileNotFoundError:
            return False
        return lines.count(b"\n") == experiment.row_count

    def check(self):
        """Raises OSError if the folder cannot be written, before hours of training."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            # More than the rows of an experiment, as a full disk still makes files.
            file.write(bytes(2**20))

    def write(self, experiment, backend, rows):
        path = self.path(experiment, backend)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with tempfile.TemporaryDirectory(suffix=".part", dir=path.parent) as folder:
            whole = Path(folder) / path.name
            whole.write_text(lines)
            os.replace(whole, path)
        return path

    def rates(self):
        """The steps of one member per second in earlier rows, by (suite, module,
        operation, backend, members)."""
        rates = {}
        for path in self.folder.glob("*/*.jsonl"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(path.read_text().partition("\n")[0])
                names = "suite", "module", "operation", "backend", "members"
                rate = row["members"] * row["steps"] / row["seconds"]
                # The fastest, as compilation dominates short runs.
                key = tuple(row[name] for name in names)
                rates[key] = max(rate, rates.get(key, 0))
        return rates
