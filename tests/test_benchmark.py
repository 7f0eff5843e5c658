"""Experiments, suites, their rows on disk, and the commands around them."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_nalu import NAU, NMU, regularizers
from keras_nalu.benchmarks import experiment as experiments
from keras_nalu.benchmarks import runner
from keras_nalu.benchmarks.experiment import Experiment
from keras_nalu.benchmarks.results import Results
from keras_nalu.benchmarks.suites import PAIRS, SUITES, recipe
from keras_nalu.benchmarks.tasks import RANGES, InaluArithmetic, SingleModule, Task
from keras_nalu.cli import benchmark as commands
from keras_nalu.cli import main

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "notebooks" / "data" / "rows.jsonl.gz"
BACKEND = keras.backend.backend()
TORCH = BACKEND == "torch"
trains_populations = pytest.mark.skipif(TORCH, reason="trains no populations")


def small(module=None, steps=20, **changes):
    given = {
        "module": "NMU",
        "task": SingleModule("multiply", variants=RANGES[6:8]),
        "layers": [module or NMU(1)],
        "optimizer": keras.optimizers.Adam(0.1),
        "seeds": 2,
        "steps": steps,
        "log_every": 10,
    }
    return Experiment(**given | changes)


@pytest.fixture(scope="module")
def run():
    """The rows of the small experiment, and what was told meanwhile."""
    if TORCH:
        pytest.skip("trains no populations")
    told = []
    return small().run(told.append), told


@pytest.fixture
def rows(run):
    return run[0]


# Identity


def test_what_differs_in_nothing_has_one_identity():
    keras.layers.Dense(1), NMU(1)  # which name the next layer "nmu_2"
    assert small().identity == small().identity
    assert small() == small()


@pytest.mark.parametrize(
    "change",
    [
        {"task": SingleModule("multiply", variants=RANGES[5:7])},
        {"task": SingleModule("multiply", variants=RANGES[6:8], threshold="perturbed")},
        {"task": SingleModule("divide", variants=RANGES[6:8])},
        {"layers": [NMU(1, kernel_regularizer=regularizers.Sparsity(0.1, low=0))]},
        {"layers": [NAU(1)]},
        {"optimizer": keras.optimizers.Adam(0.2)},
        {"optimizer": keras.optimizers.SGD(0.1)},
        {"seeds": 3},
        {"steps": 30},
        {"restarts": 2},
    ],
    ids=lambda change: ", ".join(change),
)
def test_whatever_decides_the_results_is_in_the_identity(change):
    changed = small(**change)
    assert changed.identity != small().identity
    assert json.loads(json.dumps(changed.config())) == changed.config()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 25}, r"whole thousands.*Received: seeds=2, .*steps=25"),
        ({"seeds": 0}, r"Received: seeds=0"),
        ({"log_every": 0}, r"log_every=0"),
        (
            {"rules": ("magic",), "log_every": 1000, "steps": 1000},
            r"Received: 'magic'\. Expected one of inalu",
        ),
        ({"rules": ("inalu",)}, r"log_every=1000\. Received: log_every=10\."),
        ({"task": InaluArithmetic("add")}, r"log_every=1000\. Received: log_every=10"),
    ],
)
def test_what_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        small(**change)


# Training


def test_rows(rows):
    assert [(row["range"], row["seed"]) for row in rows] == [
        ("[1,2]", 0),
        ("[1,2]", 1),
        ("[1.1,1.2]", 0),
        ("[1.1,1.2]", 1),
    ]
    for row in rows:
        assert row["module"] == "NMU"
        assert row["operation"] == "multiply"
        assert row["experiment"] == small().identity
        assert row["selected_step"] in (0, 10, 20)
        assert row["versions"]["keras"] == keras.__version__
        assert row["solved"] == (row["extrapolation"] < row["threshold"] == 1e-5)
        assert row["interpolation"] >= 0
        assert 0 <= row["sparsity_error"] <= 0.5
        assert row["backend"] == BACKEND
        assert row["seconds"] > 0
        json.dumps(row, allow_nan=False)


@pytest.mark.slow
def test_the_same_experiment_has_the_same_rows(rows):
    np.random.seed(7)  # noqa: NPY002
    keras.utils.set_random_seed(5)
    for row, again in zip(rows, small().run(), strict=True):
        assert again | {"seconds": 0} == row | {"seconds": 0}


@pytest.mark.slow
def test_a_range_alone_gives_what_it_gives_among_others(rows):
    alone = small(task=SingleModule("multiply", variants=RANGES[7:8])).run()
    for row, again in zip(rows[2:], alone, strict=True):
        assert again["extrapolation"] == pytest.approx(row["extrapolation"], rel=1e-4)


@trains_populations
def test_a_seed_begins_with_the_same_weights_in_all_ranges():
    (w,) = small().population().get_weights()
    np.testing.assert_array_equal(w[:2], w[2:])
    assert not np.array_equal(w[0], w[1])


@pytest.mark.slow
@trains_populations
def test_measurements_are_those_of_the_members():
    experiment = small()
    population = experiment.population()
    log = experiments.Log(experiment, population)
    log.measure(0)
    near, far = log.errors("multiply")
    assert near.shape == far.shape == (1, 4)
    for part, errors in zip(("validation", "test"), (near, far), strict=True):
        draws = log.sets[part]
        batches = [draws[i] for i in range(10)]
        x, y = (
            np.concatenate([keras.ops.convert_to_numpy(batch[i]) for batch in batches])
            for i in (0, 1)
        )
        assert x.shape == (10_000, 4, 2)
        for member in range(4):
            model = population.member(member)
            error = model.predict(x[:, member], verbose=0) - y[:, member]
            assert np.mean(error**2) == pytest.approx(errors[0, member], rel=1e-4)


@pytest.mark.slow
@trains_populations
def test_divergence_is_a_result():
    explosive = small(optimizer=keras.optimizers.SGD(1e30), layers=[NAU(1)])
    free = keras.layers.Dense(1)
    rows = dataclasses.replace(explosive, layers=[free]).run()
    assert all(row["diverged"] and not row["solved"] for row in rows)
    assert all(row["solved_at"] is None for row in rows)
    json.dumps(rows, allow_nan=False)


@pytest.mark.slow
def test_of_several_tries_the_best_validation_counts(rows):
    task = SingleModule("multiply", inputs=3, variants=RANGES[6:8])
    twice = small(task=task, restarts=2)
    population = twice.population()
    log = experiments.Log(twice, population)
    log.measure(0)
    x, y = (keras.ops.convert_to_numpy(a) for a in log.sets["test"][0])
    for seed in range(2):
        tries = [*twice._tries(1, seed)]
        assert tries == [4 + seed, 6 + seed]
        np.testing.assert_array_equal(y[:, tries[0]], y[:, tries[1]])
    assert not np.array_equal(y[:, 4], y[:, 5])  # another place of the two inputs
    near, far = log.errors("multiply")
    judged = [*twice._rows(log, task.thresholds())]
    for row, seed in zip(judged[2:], range(2), strict=True):
        tries = [*twice._tries(1, seed)]
        best = tries[np.argmin(near[0, tries])]
        assert row["extrapolation"] == pytest.approx(far[0, best], rel=1e-6)
    assert x.shape[-1] == 3


def test_progress_is_told(run):
    assert run[1] == [10, 10]


STEPS = [0, 10, 20, 30]
NEAR = np.array([3.0, 1.0, 0.5, np.nan])


@pytest.mark.parametrize(
    ("far", "expected"),
    [
        ([9, 1e-6, 1e-6, 9], {"solved": True, "solved_at": 10, "selected_step": 20}),
        ([9, 1e-6, 1e-4, 9], {"solved": False, "solved_at": None}),
        ([0, 9, 0, 9], {"solved": True, "solved_at": 0}),
        ([np.nan] * 4, {"solved": False, "extrapolation": None}),
    ],
)
def test_a_run_is_judged_where_the_validation_was_best(far, expected):
    result = experiments._result(STEPS, NEAR, np.array(far), NEAR, 1e-5, "best")
    assert result["diverged"]
    assert result["sparsity_error"] == 0.5
    assert expected.items() <= result.items()


def test_or_after_its_last_step():
    far = np.array([0, 0, 0, 1.0])
    result = experiments._result(STEPS, far, far, far, 1e-5, "last")
    assert result["selected_step"] == 30
    assert not result["solved"]


@dataclasses.dataclass(frozen=True)
class Maximum(Task):
    """A task of one's own."""

    variants = RANGES[:1]
    inputs = 2

    def answer(self, x, seeds):
        return keras.ops.max(x, axis=-1, keepdims=True)


@pytest.mark.slow
@trains_populations
def test_a_task_and_a_module_of_ones_own():
    rows = small(task=Maximum("maximum"), layers=[keras.layers.Dense(1)]).run()
    assert [row["operation"] for row in rows] == ["maximum"] * 2
    assert rows[0]["sparsity_error"] is None


# Suites


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_is_a_list_of_different_experiments(name):
    made = list(SUITES[name].experiments())
    assert made
    assert {experiment.suite for experiment in made} == {name}
    assert len({experiment.identity for experiment in made}) == len(made)
    assert made == list(SUITES[name].experiments())


def test_the_primers_grid():
    made = list(SUITES["single-module"].experiments())
    assert len(made) == len(PAIRS) == 23
    for experiment in made:
        assert experiment.members == 225
        assert experiment.steps == 50_000
        assert experiment.task.batch_size == 128


@dataclasses.dataclass(frozen=True)
class Smaller(SingleModule):
    batch_size = 64


def test_what_a_class_of_tasks_has_in_common_is_in_the_identity():
    usual = small(task=SingleModule("multiply"))
    assert usual.config()["task"]["batch_size"] == 128
    assert usual.config()["task"]["sets"] == {"validation": 43953907, "test": 8689336}
    assert small(task=Smaller("multiply")).config()["task"]["batch_size"] == 64


def test_so_are_the_ranges_of_a_task_of_ones_own():
    class Other(Maximum):
        variants = RANGES[1:2]

    Other.__qualname__ = Maximum.__qualname__
    usual, other = (small(task=kind("maximum")) for kind in (Maximum, Other))
    assert usual.config()["task"]["class"] == other.config()["task"]["class"]
    assert usual.identity != other.identity


@pytest.mark.skipif(TORCH, reason="Keras names optimizers by private classes")
def test_the_committed_rows_are_of_the_experiments_as_they_are():
    with gzip.open(COMMITTED, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    runs = collections.defaultdict(set)
    for row in rows:
        runs[row["suite"], row["steps"], row["experiment"]].add(row["seed"])
    variations = collections.defaultdict(set)
    for (suite, steps, identity), seeds in runs.items():
        variations[suite, steps, len(seeds)].add(identity)
    for (suite, steps, seeds), identities in variations.items():
        made = runner.select(suite, steps=steps, seeds=seeds)
        assert identities <= {experiment.identity for experiment in made}


def test_operations_are_chosen_by_name_or_its_begin():
    def chosen(*names):
        found = runner.select("comparisons", operations=names)
        return [experiment.task.operation for experiment in found]

    assert chosen("less") == ["less"]
    assert chosen("les") == ["less", "less_equal"]
    assert len(chosen()) == 6


def test_a_recipe_that_nobody_published():
    with pytest.raises(ValueError, match=r"Received: module='NSR'"):
        recipe("NSR", "add")


# A recurrent layer: XLA on TensorFlow does not compile its loop's gradient.
@pytest.mark.filterwarnings("ignore:XLA cannot compile this model's training step")
@pytest.mark.slow
@trains_populations
@pytest.mark.parametrize("name", SUITES)
def test_every_suite_trains(name):
    if (name, BACKEND) == ("running-images", "tensorflow"):
        pytest.skip("TensorFlow cannot map this gradient over members")
    first = next(iter(SUITES[name].experiments()))
    fixed = first.rules or first.task.batches
    brief = {} if fixed else {"log_every": 10}
    brief = dataclasses.replace(first, seeds=2, steps=1000 if fixed else 20, **brief)
    rows = brief.run()
    assert len(rows) == len(brief.task.variants) * 2 * len(brief.task.measures())


# Rows on disk

FOUR = [{"range": name, "seed": seed} for name in "ab" for seed in range(2)]


def test_rows_are_kept_whole(tmp_path):
    results = Results(tmp_path)
    experiment = small()
    assert not results.has(experiment, "jax")
    path = results.write(experiment, "jax", FOUR)
    assert results.has(experiment, "jax")
    assert not results.has(experiment, "tensorflow")
    assert not results.has(small(seeds=3), "jax")
    assert [json.loads(line) for line in path.read_text().splitlines()] == FOUR
    assert [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("end", [0, 30, -1])
def test_a_file_that_was_cut_short_has_no_rows(tmp_path, end):
    results = Results(tmp_path)
    path = results.write(small(), "jax", FOUR)
    path.write_text(path.read_text()[:end])
    assert not results.has(small(), "jax")
    results.write(small(), "jax", FOUR)
    assert results.has(small(), "jax")


def test_runs_that_write_the_same_rows_at_once_do_not_mix(tmp_path):
    results = Results(tmp_path)
    path = results.write(small(), "jax", FOUR)
    whole = path.read_text()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(results.write, small(), "jax", FOUR) for _ in range(200)]
        while not all(write.done() for write in writes):
            assert path.read_text() == whole
    assert [write.result() for write in writes] == [path] * 200
    assert [*path.parent.iterdir()] == [path]


def test_what_cannot_be_written_leaves_no_half(tmp_path):
    results = Results(tmp_path)
    with pytest.raises(TypeError):
        results.write(small(), "jax", [{"seed": 0}, {"seed": object()}])
    assert not results.has(small(), "jax")
    path = results.path(small(), "jax")
    path.mkdir(parents=True)
    (path / "in the way").touch()
    with pytest.raises(OSError, match="directory"):
        results.write(small(), "jax", [{"seed": 0}])
    assert [*path.parent.iterdir()] == [path]


def test_rows_in_one_small_file(capsys, tmp_path):
    row = {"suite": "own", "inputs": 2, "operation": "mine", "module": "NAU"}
    row |= {"range": "[1,2]", "seed": 0, "experiment": "0", "backend": "jax"}
    row |= {"steps": 1000, "extrapolation": 0.0}
    row |= {"solved": True, "solved_at": 10, "sparsity_error": 0.0, "diverged": False}
    Results(tmp_path / "rows").write(small(), "jax", [row])
    packed = tmp_path / "rows.jsonl.gz"
    command = ["report", "--rows", str(tmp_path / "rows"), "--pack", str(packed)]
    assert main(command) == 0
    told = capsys.readouterr().out
    before = packed.read_bytes()
    assert main(["report", "--rows", str(packed)]) == 0
    assert capsys.readouterr().out == told
    assert main(command) == 0
    assert packed.read_bytes() == before


@pytest.mark.parametrize("package", ["pandas", "scipy.stats", "matplotlib.figure"])
def test_a_report_without_a_package_that_it_needs(
    package, monkeypatch, capsys, tmp_path
):
    monkeypatch.setitem(sys.modules, package, None)
    figures = ["--figures", str(tmp_path)]
    assert main(["report", "beyond", "--rows", str(COMMITTED), *figures]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert package in line
    assert line.endswith('Try `pip install ".[experiments]"`.')


@pytest.mark.parametrize("option", ["--pack", "--figures"])
def test_a_report_that_cannot_be_written(option, capsys, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "below"
    assert main(["report", "beyond", "--rows", str(COMMITTED), option, str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot write: [Errno 20] Not a directory" in line
    assert line.endswith(f"Try another {option}.")


@pytest.mark.parametrize("form", ["markdown", "csv", "latex"])
def test_tables_and_pictures(rows, form, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    Results(tmp_path / "rows").write(small(), BACKEND, rows)
    command = ["report", "own", "--rows", str(tmp_path / "rows"), "--format", form]
    assert main([*command, "--by-range", "--figures", str(tmp_path / "pictures")]) == 0
    out, err = capsys.readouterr()
    assert out.count("NMU") == 2
    assert ("suite" in out) == (form == "csv")
    pictures = sorted((tmp_path / "pictures" / "own").iterdir())
    assert [path.name for path in pictures] == ["heat-map.png", "multiply.png"]
    assert sorted(err.split()) == [str(path) for path in pictures]


# The commands


class Bar(contextlib.nullcontext):
    """Says what a bar shows."""

    def __init__(self):
        super().__init__(self)
        self.console = self
        self.shown = []
        self.tasks = [self]
        self.completed = 0

    def print(self, text, highlight):
        self.shown.append(text)

    def add_task(self, description, total):
        self.shown.append(description)

    def update(self, task, completed, description):
        self.shown.append(description)
        self.completed = completed


def test_the_bar_says_what_runs(monkeypatch):
    bar = Bar()
    monkeypatch.setattr(commands, "progress_bar", lambda: bar)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    four = [dataclasses.replace(small(), module=f"M{i}") for i in range(1, 5)]
    with commands._steps(four, at_once=3) as (_, say):
        say(four[1], "done")
        bar.completed += 7  # of another process
        say(four[0], "done")
    assert bar.completed == 2 * 4 * 20
    assert bar.shown[0] == "M1, multiply; M2, multiply and 1 more"
    assert bar.shown[1].startswith("1/4  M2, multiply: done; about ")
    assert bar.shown[2::2] == [
        "M1, multiply; M3, multiply and 1 more",
        "M3, multiply; M4, multiply",
    ]


COMMAND = ["benchmark", "single-module", "--only", "NMU", "--operation", "mul"]
BRIEF = [*COMMAND, "--seeds", "1", "--steps", "1000", "--workers", "1"]


def test_the_list_of_suites(capsys):
    assert main(["benchmark", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        *SUITES
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "which suite? Try `keras-nalu benchmark single-module`"),
        (["primer"], "no suite 'primer'. Expected one of single-module, "),
        (["division", "--only", "NMU"], "no module 'NMU' in division. Expected RealN"),
        (["division", "--operation", "add"], "no operation 'add' in division. Expect"),
        (["running", "--threshold", "1e-5"], "running has one threshold rule"),
        ([*COMMAND[1:], "--steps", "1500"], "whole thousands"),
    ],
)
def test_what_the_command_does_not_know(arguments, text, capsys, tmp_path):
    assert main(["benchmark", *arguments, "--output", str(tmp_path / "rows")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_the_plan(capsys, tmp_path):
    assert main([*COMMAND, "--list", "--output", str(tmp_path / "rows")]) == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"NMU +multiply +225 runs of 50000 steps\n", out)
    assert not (tmp_path / "rows").exists()


@trains_populations
def test_the_command_keeps_rows_and_trains_nothing_twice(capsys, tmp_path):
    output = ["--output", str(tmp_path)]
    assert main([*BRIEF, *output]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^1/1  NMU, multiply: \d of 9 solved, \d+ s$", out, re.M)
    (path,) = tmp_path.rglob("*.jsonl")
    before = path.stat().st_mtime_ns
    assert len(path.read_text().splitlines()) == 9
    assert main([*BRIEF, *output]) == 0
    assert "1 of 1 have rows already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    assert main([*BRIEF, *output, "--dry-run"]) == 0
    assert "has rows" in capsys.readouterr().out
    assert main(["report", "--rows", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("## single-module, 2 inputs\n\n| operation |")
    assert "| NMU | 9 |" in out


@pytest.mark.slow
@trains_populations
def test_a_dry_run_measures_what_has_not_run(capsys, tmp_path):
    assert main([*COMMAND, "--dry-run", "--output", str(tmp_path / "rows")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"50000 steps, about \d+ (s|min)\n", out)
    assert "All in one process: about" in out
    assert not (tmp_path / "rows").exists()


@pytest.mark.slow
@trains_populations
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    command = [sys.executable, "-m", "keras_nalu", "benchmark", "single-module"]
    command += ["--only", "NAU", "--seeds", "2", "--steps", "20000", "--workers", "1"]
    command += ["--output", str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.perf_counter() + 120
    while not (kept := [*tmp_path.rglob("*.jsonl")]):
        assert time.perf_counter() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = kept[0].stat().st_mtime_ns
    assert [*tmp_path.rglob("*.jsonl")] == kept
    assert subprocess.run(command, check=False).returncode == 0
    files = [*tmp_path.rglob("*.*")]
    assert len(files) == 2
    assert kept[0].stat().st_mtime_ns == before
    assert all(len(file.read_text().splitlines()) == 18 for file in files)


@pytest.mark.slow
@trains_populations
def test_one_that_fails_stops_no_other(monkeypatch, tmp_path):
    good, bad = small(), small(seeds=3)
    run = Experiment.run

    def fails(experiment, progress=None):
        if experiment.seeds == 3:
            raise RuntimeError("no luck")
        return run(experiment, progress)

    monkeypatch.setattr(Experiment, "run", fails)
    results = Results(tmp_path)
    outcomes = [*runner.run([bad, good], results)]
    assert [str(error) for _, _, error in outcomes] == ["RuntimeError: no luck", "None"]
    assert results.has(good, BACKEND)
    assert not results.has(bad, BACKEND)


@contextlib.contextmanager
def two_workers(kind):
    """Two, as arguments of `run`, and what kills one of them."""
    if kind == "processes":
        yield {"workers": 2}, lambda: None
        return
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        process = cluster.workers[0].pid
        yield (
            {"scheduler": cluster.scheduler_address},
            lambda: os.kill(process, signal.SIGKILL),
        )


@pytest.mark.slow
@trains_populations
@pytest.mark.parametrize("kind", ["processes", "cluster"])
def test_rows_are_the_same_wherever_they_are_trained(kind, rows, tmp_path):
    results = Results(tmp_path)
    due = [small(), *(small(steps=steps) for steps in (30, 40, 50))]
    with two_workers(kind) as (workers, kill):
        outcomes = runner.run(due, results, **workers)
        ended = [next(outcomes)]
        kill()
        ended += outcomes
    assert [str(error) for *_, error in ended] == ["None"] * 4
    assert {experiment.identity for experiment, *_ in ended} == {
        experiment.identity for experiment in due
    }
    assert len([*tmp_path.rglob("*.jsonl")]) == 4
    assert all(results.has(experiment, BACKEND) for experiment in due)
    again = results.path(small(), BACKEND).read_text().splitlines()
    for row, line in zip(rows, again, strict=True):
        assert json.loads(line) | {"seconds": 0} == row | {"seconds": 0}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_a_full_disk_is_found_out_before_the_training(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "wb"))
    with pytest.raises(OSError, match="No space left on device"):
        Results(tmp_path).check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_without_permission_nothing_is_trained(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert main([*BRIEF, "--output", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_file_where_the_folder_should_be(capsys, tmp_path):
    if TORCH:
        pytest.skip("trains no populations")
    (tmp_path / "rows").write_text("mine")
    assert main([*BRIEF, "--output", str(tmp_path / "rows")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert (tmp_path / "rows").read_text() == "mine"


def test_a_report_of_nothing(capsys, tmp_path):
    assert main(["report", "--rows", str(tmp_path)]) == 2
    assert "Try `keras-nalu benchmark single-module`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "suite",
    [
        *("single-module", "single-module-later", "division-10", "beyond"),
        *("single-module-10", "single-module-100"),
    ],
)
def test_the_tables_of_readme_are_those_of_the_committed_rows(suite, capsys):
    assert main(["report", suite, "--rows", str(COMMITTED)]) == 0
    out = capsys.readouterr().out
    *_, table = [part for part in out.split("\n\n") if part.startswith("|")]
    assert table.strip() in (ROOT / "README.md").read_text()


@pytest.mark.only("torch", reason="elsewhere it trains")
def test_the_command_says_what_pytorch_cannot(capsys, tmp_path):
    assert main([*BRIEF, "--output", str(tmp_path)]) == 2
    assert "a population trains on TensorFlow or JAX" in capsys.readouterr().err
