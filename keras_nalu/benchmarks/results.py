"""Result rows on disk: a file for every experiment, whole or not there at all."""

import contextlib
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
        """Whether all of its rows are there: not, if its file was cut short."""
        try:
            lines = self.path(experiment, backend).read_bytes()
        except FileNotFoundError:
            return False
        return lines.count(b"\n") == experiment.row_count

    def check(self):
        """Raises OSError where nothing can be written: before the hours of training."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            # More than the rows of an experiment: a full disk makes files, too.
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
        """Steps of one member in a second, of earlier rows: by suite, module,
        operation, backend and how many members there were."""
        rates = {}
        for path in self.folder.glob("*/*.jsonl"):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(path.read_text().partition("\n")[0])
                names = "suite", "module", "operation", "backend", "members"
                rate = row["members"] * row["steps"] / row["seconds"]
                # The fastest: of a few steps most is compilation.
                key = tuple(row[name] for name in names)
                rates[key] = max(rate, rates.get(key, 0))
        return rates
