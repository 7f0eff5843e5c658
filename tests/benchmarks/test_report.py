"""Result rows become tables, comparisons with the published numbers, and figures."""

import gzip
import io
import json
import math

import pytest

pandas = pytest.importorskip("pandas")

from keras_nalu.benchmarks.published import PUBLISHED, SUITES, find  # noqa: E402
from keras_nalu.benchmarks.report import (  # noqa: E402
    read,
    side_by_side,
    table,
    text,
    to_markdown,
)
from keras_nalu.benchmarks.statistics import (  # noqa: E402
    Interval,
    Spread,
    mean_interval,
    wilson,
)
from keras_nalu.layers import LAYERS  # noqa: E402


def row(seed=0, solved_at=None, **changes):
    """One run of an NMU that multiplies: solved if it says when."""
    return {
        "suite": "single-module",
        "experiment": "5e1f",
        "module": "NMU",
        "operation": "multiply",
        "inputs": 2,
        "range": "[1,2]",
        "seed": seed,
        "steps": 50_000,
        "threshold": 1e-5,
        "solved": solved_at is not None,
        "solved_at": solved_at,
        "selected_step": 49_000,
        "interpolation": 1e-9,
        "extrapolation": 1e-8 if solved_at is not None else 3.0,
        "sparsity_error": 0.001 * (seed + 1),
        "diverged": False,
        "backend": "jax",
        "versions": {"keras": "3.15.1"},
        "seconds": 9.5,
        "members": 4,
    } | changes


def runs(first, count, **changes):
    """Of which the first are solved."""
    return [
        row(seed, 1000 * (seed + 1) if seed < first else None, **changes)
        for seed in range(count)
    ]


ROWS = [
    *runs(3, 4),
    *runs(0, 4, module="NALU", diverged=True),
    *runs(2, 4, operation="add", module="NAU", range="[-2,-1]"),
    *runs(4, 4, operation="add", module="NAU", range="[1,2]"),
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_reads_files_and_folders(tmp_path):
    write(tmp_path / "a/rows.jsonl", runs(1, 2))
    write(tmp_path / "a/b/rows.jsonl.gz", runs(1, 3, module="NAU"))
    write(tmp_path / "c.jsonl", runs(1, 4, module="NPU", experiment="1234e5"))
    rows = read([tmp_path / "a", str(tmp_path / "c.jsonl")])
    assert rows["module"].value_counts().to_dict() == {"NMU": 2, "NAU": 3, "NPU": 4}
    assert set(rows["experiment"]) == {"5e1f", "1234e5"}
    assert len(read(tmp_path / "c.jsonl")) == 4


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    write(tmp_path / "1.jsonl", runs(1, 3))
    write(tmp_path / "2.jsonl", runs(2, 3))
    assert table(read(tmp_path))[["runs", "solved"]].to_dict("list") == {
        "runs": [3],
        "solved": [2],
    }


def test_paths_without_rows(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    for path in (tmp_path, tmp_path / "empty.jsonl", tmp_path / "none.jsonl"):
        with pytest.raises(
            ValueError,
            match=rf"No result rows in {path}\. .*Try `keras-nalu benchmark single-mod",
        ):
            read([path])
    with pytest.raises(ValueError, match=r"rows. Received: none. Try"):
        table([])


@pytest.mark.parametrize(
    "line", [b'{"suite": "single-', b'{"suite": 1}', b"null", b"7", b"\x8b\xff"]
)
def test_lines_that_are_no_rows(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    write(path, runs(1, 2))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"in line 3 of .*rows.jsonl. Received: '"):
        read(path)


@pytest.mark.parametrize("damage", [slice(0, -9), slice(5, None)], ids=["end", "begin"])
def test_a_packed_file_that_is_not_whole(tmp_path, damage):
    path = tmp_path / "rows.jsonl.gz"
    write(path, runs(1, 2))
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(ValueError, match=rf"a whole gzip file. Received: {path}: "):
        read(tmp_path)


def test_a_line_a_cell():
    lines = table(ROWS).to_dict("records")
    assert [(a["operation"], a["module"], a["range"]) for a in lines] == [
        ("add", "NAU", "[-2,-1]"),
        ("add", "NAU", "[1,2]"),
        ("multiply", "NALU", "[1,2]"),
        ("multiply", "NMU", "[1,2]"),
    ]
    nalu, nmu = lines[2:]
    assert (nmu["runs"], nmu["solved"], nmu["diverged"]) == (4, 3, 0)
    assert (nalu["runs"], nalu["solved"], nalu["diverged"]) == (4, 0, 4)
    assert nmu["success rate"] == wilson(3, 4)
    assert nmu["solved at (median)"] == 2000
    assert nmu["solved at (mean)"] == mean_interval([1000, 2000, 3000])
    assert nmu["sparsity error"] == mean_interval([0.001, 0.002, 0.003])
    assert nalu["success rate"] == wilson(0, 4)
    assert nalu["solved at (median)"] is None
    assert math.isnan(nalu["sparsity error"].estimate)


def test_pooled_over_ranges():
    nau = table(pandas.DataFrame(ROWS), pooled=True).iloc[0]
    assert "range" not in nau
    assert (nau["runs"], nau["solved"]) == (8, 6)
    steps = [1000, 2000, 1000, 2000, 3000, 4000]
    assert nau["solved at (mean)"] == mean_interval(steps)


def test_sparsity_errors_that_are_unknown_are_no_obstacle():
    rows = runs(4, 4)
    rows[0]["sparsity_error"] = None
    rows[1]["sparsity_error"] = 1.5
    expected = mean_interval([1.5, 0.003, 0.004])
    assert table(rows)["sparsity error"][0] == expected


def test_errors_where_there_is_no_threshold():
    rows = [
        row(seed, solved=None, extrapolation=error)
        for seed, error in enumerate([1.0, 3.0, None, 2.0, 5.0])
    ]
    line = table(rows).iloc[0]
    assert not {"solved", "success rate", "sparsity error"} & set(line.index)
    assert line["error (median)"] == (3, 2)
    assert text(line["error (mean)"]) == "not finite"


def test_experiments_of_one_cell_are_told_apart():
    other = runs(1, 4, experiment="c0de")
    lines = table(ROWS + other, pooled=True)
    assert lines[lines["module"] == "NMU"]["experiment"].tolist() == ["5e1f", "c0de"]
    assert "backend" not in lines
    lines = table(ROWS + runs(1, 4, backend="tensorflow"))
    assert set(lines["backend"]) == {"jax", "tensorflow"}
    assert "experiment" not in lines


def test_by_their_steps_where_these_differ():
    lines = table(ROWS + runs(1, 4, experiment="c0de", steps=2000), pooled=True)
    nmu = lines[lines["module"] == "NMU"]
    assert dict(zip(nmu["steps"], nmu["solved"], strict=True)) == {50_000: 3, 2000: 1}
    assert not {"experiment", "backend"} & {*lines}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (math.nan, ""),
        (math.inf, "not finite"),
        (1234567, "1234567"),
        (1520970.3, "1,520,000"),
        (0.98, "0.98"),
        (4.2056e-7, "4.21e-07"),
        (0.0, "0"),
        (Interval(0.98, 0.92999, 0.9943), "0.98 (0.93 to 0.994)"),
        (Interval(2000.0, math.nan, math.nan), "2,000"),
        (Interval(math.nan, math.nan, math.nan), ""),
        (Spread(0.08, 0.021), "0.08 ± 0.021"),
        (Spread(2.0, math.nan), "2"),
    ],
    ids=str,
)
def test_text(value, expected):
    assert text(value) == expected


def test_markdown():
    lines = to_markdown(table(runs(2, 2))).splitlines()
    assert lines[0].startswith("| suite | inputs | operation | module | range | runs |")
    assert lines[1] == "|" + " --- |" * 12
    assert lines[2].startswith("| single-module | 2 | multiply | NMU | [1,2] | 2 | 0 |")
    assert "| 1 (0.342 to 1) | 1,500 | 1,500 (" in lines[2]
    assert len(lines) == 3


def test_published_cells_are_what_the_papers_say():
    assert {suite for suite, *_ in PUBLISHED} == set(SUITES)
    networks = {"Linear", "ReLU", "ReLU6", "Dense", "RealNPU (modified)"}
    modules = {module.removesuffix(" behind NAC") for _, module, _ in PUBLISHED}
    assert modules <= {*LAYERS, *networks}
    arithmetic = [cell for key, cell in PUBLISHED.items() if key[0] == "arithmetic"]
    assert len(arithmetic) == 48
    assert sum(cell.solved > 0 for cell in arithmetic) == 16
    for module, rate in {
        "RealNPU": 85.3 - 15.1,
        "RealNPU (modified)": 85.3,
        "NMRU": 91.6,
    }.items():
        cell = find("division-10", module, "divide")
        assert f"{100 * cell.solved / cell.runs:.1f}" == f"{rate:.1f}"
    assert find("inalu-simple", "SharedINALU", "subtract").solved == 38
    assert find("npu-simple", "RealNPU", "divide").error == (0.085, 0.038)
    assert find("single-module", "NMU", "multiply") is None


@pytest.mark.parametrize("key", PUBLISHED, ids=" ".join)
def test_published_cells_are_whole(key):
    cell = PUBLISHED[key]
    assert (cell.solved is None) == (cell.error is not None)
    median = cell.solved_at_median
    assert (median is None) == (not cell.solved or "arithmetic" not in key[0])
    assert median is None or 0 < median < cell.steps


def test_side_by_side_with_rates():
    multiply = {"suite": "arithmetic", "inputs": 100, "steps": 5_000_000}
    rows = [
        *runs(24, 25, **multiply),
        *runs(20, 25, **multiply, module="NACMul"),
        *runs(0, 25, **multiply, module="NALU"),
        *runs(25, 25, **multiply, module="NPU"),
    ]
    lines = side_by_side(rows).to_dict("records")
    told = [(a["module"], a["quantity"], a["verdict"]) for a in lines]
    assert told == [
        ("NACMul", "success rate", "above"),
        ("NACMul", "solved at (median)", None),
        ("NALU", "success rate", "inside"),
        ("NMU", "success rate", "inside"),
        ("NMU", "solved at (median)", None),
    ]
    assert lines[0]["published"] == wilson(31, 100)
    assert lines[0]["ours"] == wilson(20, 25)
    assert lines[0]["p"] < 1e-4
    assert lines[3]["p"] > 0.4
    assert (lines[4]["published"], lines[4]["ours"]) == (1.4e6, 12_500)
    assert lines[0]["source"] == "arXiv:2001.05016"


def test_side_by_side_with_errors():
    rows = [
        row(seed, **changes, extrapolation=value + 0.001 * seed)
        for value, operation in ((0.07, "add"), (0.5, "multiply"), (0.0, "divide"))
        for changes in [{"suite": "npu-simple", "steps": 20_000, "module": "RealNPU"}]
        for changes in [changes | {"operation": operation, "solved": None}]
        for seed in range(20)
    ]
    lines = side_by_side(rows).to_dict("records")
    assert [(a["operation"], a["quantity"], a["verdict"]) for a in lines] == [
        ("add", "error, as median", "inside"),
        ("add", "error, as mean", "inside"),
        ("multiply", "error, as median", "above"),
        ("multiply", "error, as mean", "above"),
        ("divide", "error, as median", "below"),
        ("divide", "error, as mean", "inside"),
    ]
    assert lines[0]["published"] == (0.08, 0.021)
    assert lines[0]["ours"] == pytest.approx((0.0795, 0.005))
    low, high = lines[0]["expected"][1:]
    assert low < 0.0795 < high


def test_side_by_side_says_what_is_missing():
    division = {"suite": "division-10", "module": "NMRU", "operation": "divide"}
    rows = [a for name in "abc" for a in runs(25, 25, **division, range=name)]
    line = side_by_side(rows).iloc[0]
    assert line["verdict"] == "3 of 9 ranges, 50,000 of 100,000 steps"
    assert "p" not in line
    rows = [
        a
        for name in "abcdefghi"
        for a in runs(23, 25, **division, range=name, steps=100_000)
    ]
    line = side_by_side(rows).iloc[0]
    assert (line["verdict"], line["runs"]) == ("inside", 225)


def test_side_by_side_of_what_nobody_published():
    with pytest.raises(ValueError, match=r"rows of single-module. Expected"):
        side_by_side(ROWS)


@pytest.fixture
def figures():
    pytest.importorskip("matplotlib")
    from keras_nalu.benchmarks import figures

    return figures


def saved(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert len(file.getvalue()) > 5000


def test_panels(figures):
    rows = [*ROWS, *runs(4, 4, operation="add", module="NMU", range="[1,2]")]
    figure = figures.panels(rows, "add")
    saved(figure)
    rates, steps, _ = figure.axes
    assert [axis.get_title() for axis in figure.axes] == [
        "Success rate",
        "Solved at step",
        "Sparsity error",
    ]
    nau, nmu = (container.lines[0] for container in rates.containers)
    assert nau.get_ydata().tolist() == [0.5, 1]
    assert nmu.get_ydata().tolist() == [1]
    bar = rates.containers[0].lines[2][0].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx(wilson(2, 4)[1:])
    assert [tick.get_text() for tick in rates.get_xticklabels()] == ["[-2,-1]", "[1,2]"]
    # Of the same module in another figure.
    (other,) = (
        container.lines[0]
        for container in figures.panels(rows, "multiply").axes[0].containers
        if container.get_label() == "NMU"
    )
    assert other.get_color() == nmu.get_color() != nau.get_color()
    assert steps.get_ylim()[1] <= 1.03 * 50_000


def test_panels_of_what_nothing_solved(figures):
    saved(figures.panels(runs(0, 4), "multiply"))
    saved(figures.panels(runs(1, 4), "multiply"))


def test_heat_map(figures):
    rows = [*ROWS, *runs(4, 4, operation="add", module="NMU", range="[1,2]")]
    figure = figures.heat_map(rows)
    saved(figure)
    add, multiply, colours = figure.axes
    assert [add.get_ylabel(), multiply.get_ylabel()] == ["add", "multiply"]
    counts = {a.get_position(): a.get_text() for a in add.texts}
    # Columns are ranges; the NMU has no runs on the first.
    assert counts == {(0, 0): "2", (1, 0): "4", (1, 1): "4"}
    shown = add.images[0].get_array()
    assert shown.mask.tolist() == [[False, False], [True, False]]
    assert shown.compressed().tolist() == [0.5, 1, 1]
    assert [a.get_text() for a in multiply.texts] == ["0", "3"]
    assert (
        figure.get_suptitle() == "Seeds that solved it, of 4, 2 inputs (single-module)"
    )
    assert colours.get_ylabel() == "Success rate"


def test_heat_map_of_different_numbers_of_seeds(figures):
    figure = figures.heat_map([*runs(1, 4), *runs(2, 3, module="NPU")])
    assert [a.get_text() for a in figure.axes[0].texts] == ["1/4", "2/3"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"suite": "division"},
            "same suite. Received: division, single-module",
        ),
        ({"inputs": 10}, r"same inputs. Received: 2, 10. .*rows\['inputs'\] == 2"),
        (
            {"experiment": "c0de"},
            "one experiment for .*, which differ in experiment",
        ),
        (
            {"experiment": "c0de", "steps": 1000},
            "several, which differ in steps",
        ),
        ({"solved": None, "module": "NPU"}, "Expected a task with a threshold"),
    ],
    ids=str,
)
def test_rows_that_are_no_figure(figures, more, message):
    rows = ROWS + runs(1, 4, **more)
    with pytest.raises(ValueError, match=message):
        figures.heat_map(rows)
    with pytest.raises(ValueError, match=message):
        figures.panels(rows, "multiply")


def test_panels_of_an_operation_that_is_not_there(figures):
    with pytest.raises(ValueError, match=r"operation='root'. Expected one of add, mu"):
        figures.panels(ROWS, "root")
