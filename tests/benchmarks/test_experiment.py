"""Experiments: what counts of them, what they measure, and the suites of the papers."""

import collections
import dataclasses
import gzip
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from oracles.experiments import BACKEND, TORCH, small, trains_populations

from keras_nalu import NAU, NMU, regularizers
from keras_nalu.benchmarks import runner
from keras_nalu.benchmarks.measuring import Log, result
from keras_nalu.benchmarks.recipes import recipe
from keras_nalu.benchmarks.suites import PAIRS, SUITES
from keras_nalu.benchmarks.tasks import RANGES, InaluArithmetic, SingleModule, Task
from keras_nalu.layers import LAYERS

COMMITTED = Path(__file__).parents[2] / "notebooks" / "data" / "rows.jsonl.gz"


@pytest.fixture(scope="module")
def rows():
    """The rows of the small experiment."""
    if TORCH:
        pytest.skip("trains no populations")
    return small().run()


# Identity


def test_what_differs_in_nothing_has_one_identity():
    keras.layers.Dense(1), NMU(1)  # which name the next layer "nmu_2"
    assert small().identity == small().identity


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


@pytest.mark.slow
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
    log = Log(experiment, population)
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
    log = Log(twice, population)
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
    found = result(STEPS, NEAR, np.array(far), NEAR, 1e-5, "best")
    assert found["diverged"]
    assert found["sparsity_error"] == 0.5
    assert expected.items() <= found.items()


def test_or_after_its_last_step():
    far = np.array([0, 0, 0, 1.0])
    found = result(STEPS, far, far, far, 1e-5, "last")
    assert found["selected_step"] == 30
    assert not found["solved"]


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
    again = [experiment.identity for experiment in SUITES[name].experiments()]
    assert [experiment.identity for experiment in made] == again


def test_the_primers_grid():
    made = list(SUITES["single-module"].experiments())
    assert len(made) == len(PAIRS) == 23
    for experiment in made:
        assert experiment.members == 225
        assert experiment.steps == 50_000
        assert experiment.task.batch_size == 128


def test_every_operation_of_every_layer_is_a_claim():
    claims = SUITES["claims"].experiments()
    assert [(claim.module, claim.task.operation) for claim in claims] == [
        (name, operation)
        for name, layer in LAYERS.items()
        for operation in layer.operations
    ]


@dataclasses.dataclass(frozen=True)
class Smaller(SingleModule):
    batch_size = 64


def test_what_a_class_of_tasks_has_in_common_is_in_the_identity():
    usual = small(task=SingleModule("multiply"))
    assert usual.config()["task"]["batch_size"] == 128
    assert usual.config()["task"]["sets"] == {"validation": 43953907, "test": 8689336}
    assert small(task=Smaller("multiply")).config()["task"]["batch_size"] == 64


def test_so_are_the_ranges_of_a_task_of_ones_own():
    @dataclasses.dataclass(frozen=True)
    class Other(Maximum):
        variants = RANGES[1:2]

    usual, other = (kind("maximum").config() for kind in (Maximum, Other))
    assert {name for name in usual if usual[name] != other[name]} == {
        "task",
        "variants",
    }


def test_where_a_class_is_written_does_not_count():
    """So rows survive that a file is moved."""
    text = json.dumps(small().config())
    assert "keras_nalu." not in text.replace("keras_nalu.experiments>", "")
    assert "keras_nalu>NMU" in text


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
