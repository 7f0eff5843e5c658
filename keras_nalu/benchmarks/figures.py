"""Figures of result rows: the papers' panels, and a heat map of all.

Paul Tol's "muted" colours and matplotlib's cividis suit any kind of colour vision.
"""

import itertools

import numpy as np

from keras_nalu.benchmarks.report import APART, cells, frame, table

COLOURS = (
    *("#332288", "#CC6677", "#117733", "#88CCEE", "#882255"),
    *("#DDCC77", "#44AA99", "#999933", "#AA4499"),
)
MARKERS = "osD^vPX*p"
INCHES = 9


def panels(rows, operation):
    """Success rate, step and sparsity error over the ranges, as in Mistry et al.

    Each module has one colour, the same for all operations; the bars are the 95%
    intervals of `statistics`.

    Args:
        rows: The result rows of one suite and number of inputs.
        operation: The operation to plot.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure

    rows = frame(rows)
    suite, inputs = _only(rows, "suite", "inputs")
    if operation not in (known := rows["operation"].unique()):
        raise ValueError(
            f"There are no rows of operation={operation!r}. "
            f"Expected one of {', '.join(known)}."
        )
    styles = itertools.cycle(zip(COLOURS, MARKERS, strict=True))
    styles = dict(zip(sorted(rows["module"].unique()), styles, strict=False))
    lines = table(rows[rows["operation"] == operation])
    ranges = _ranges(rows)
    modules = [*dict.fromkeys(lines["module"])]
    figure = Figure(figsize=(INCHES, 4.2), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    quantities = {
        "success rate": "Success rate",
        "solved at (mean)": "Solved at step",
        "sparsity error": "Sparsity error",
    }
    for axis, (name, title) in zip(axes, quantities.items(), strict=True):
        for i, module in enumerate(modules):
            of_module = lines[lines["module"] == module]
            x = np.array([ranges.index(a) for a in of_module["range"]])
            # Side by side, as equal values would hide one another.
            x = x + 0.6 * ((i + 0.5) / len(modules) - 0.5)
            _points(axis, x, of_module[name], module, *styles[module])
        axis.set_title(title, fontsize="medium")
        axis.grid(axis="y", alpha=0.3)
        axis.tick_params("x", rotation=90)
        for between in range(1, len(ranges)):
            axis.axvline(between - 0.5, color="0.85", linewidth=0.8, zorder=0)
    _scale(axes, ranges, rows["steps"].max())
    figure.suptitle(f"{operation.capitalize()}, {inputs} inputs ({suite})")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=8, frameon=False)
    return figure


def _points(axis, x, intervals, label, color, marker):
    middle, low, high = np.array([*intervals], float).T
    # The interval of a single run is NaN.
    ends = np.fmax([middle - low, high - middle], 0)
    looks = {"markersize": 4, "linewidth": 1, "linestyle": "none"}
    axis.errorbar(x, middle, ends, label=label, color=color, marker=marker, **looks)


def _scale(axes, ranges, last):
    from matplotlib.ticker import EngFormatter, PercentFormatter

    rates, steps, errors = axes
    rates.set_ylim(-0.03, 1.03)
    rates.yaxis.set_major_formatter(PercentFormatter(1))
    # The interval of a few runs may end far after the last step.
    steps.set_ylim(0, min(steps.get_ylim()[1], 1.03 * last))
    steps.yaxis.set_major_formatter(EngFormatter(sep=""))
    steps.set_xlabel("Range of the training inputs")
    steps.set_xticks(range(len(ranges)), ranges)
    steps.set_xlim(-0.5, len(ranges) - 0.5)
    # Clipped weights have an error of 0, others of 1e-8 or more.
    errors.set_yscale("symlog", linthresh=1e-8)
    errors.set_ylim(-2e-9, 1)
    errors.set_yticks([0, 1e-8, 1e-6, 1e-4, 1e-2, 0.5], minor=False)


def heat_map(rows):
    """A heat map: how many seeds of each module solve each operation on each range.

    Args:
        rows: The result rows of one suite and number of inputs.

    Returns:
        A matplotlib Figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    rows = frame(rows)
    suite, inputs = _only(rows, "suite", "inputs")
    ranges = _ranges(rows)
    seeds = {len(runs) for _, runs in cells(rows)}
    groups = [
        (name, group, [*dict.fromkeys(group["module"])])
        for name, group in rows.groupby("operation", sort=False)
    ]
    heights = [len(modules) for *_, modules in groups]
    figure = Figure(figsize=(INCHES, 1.8 + 0.27 * sum(heights)), layout="constrained")
    axes = figure.subplots(
        len(groups), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for axis, (operation, group, modules) in zip(axes, groups, strict=True):
        rates = np.full((len(modules), len(ranges)), np.nan)
        for key, runs in cells(group):
            at = modules.index(key["module"]), ranges.index(key["range"])
            solved = int(runs["solved"].sum())
            rates[at] = solved / len(runs)
            axis.text(
                *at[::-1],
                str(solved) if len(seeds) == 1 else f"{solved}/{len(runs)}",
                color="white" if rates[at] < 0.5 else "black",
                ha="center",
                va="center",
                fontsize="small",
            )
        image = axis.imshow(rates, cmap="cividis", vmin=0, vmax=1, aspect="auto")
        axis.set_yticks(range(len(modules)), modules)
        axis.set_ylabel(operation)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    axes[-1].set_xticks(range(len(ranges)), ranges)
    axes[-1].set_xlabel("Range of the training inputs")
    of_seeds = f", of {seeds.pop()}" if len(seeds) == 1 else ""
    figure.suptitle(f"Seeds that solved it{of_seeds}, {inputs} inputs ({suite})")
    figure.align_ylabels(axes)
    figure.colorbar(
        image,
        ax=axes,
        label="Success rate",
        format=PercentFormatter(1),
        aspect=40,
        pad=0.01,
    )
    return figure


def _only(rows, *names):
    """The values of these columns, which must be the same in all rows."""
    for name in names:
        values = rows[name].unique().tolist()
        if len(values) > 1:
            raise ValueError(
                f"Expected rows of the same {name}. Received: "
                f"{', '.join(map(str, values))}. Choose with "
                f"`rows[rows[{name!r}] == {values[0]!r}]`."
            )
    keys, _ = next(cells(rows))
    if several := [name for name in APART if name in keys]:
        raise ValueError(
            "Expected one experiment for a module, operation and range. Received: "
            f"several, which differ in {' and '.join(several)}. Choose among the rows."
        )
    if rows["solved"].isna().any():
        raise ValueError(
            f"Expected a task with a threshold. Received: rows of {rows['suite'][0]}, "
            "which has only errors. Try `report.table(rows)`."
        )
    return [rows[name][0] for name in names]


def _ranges(rows):
    """The ranges, in the order of the module that was trained on most of them."""
    cells = rows.groupby(["operation", "module"])["range"].unique()
    return [*dict.fromkeys(itertools.chain(*sorted(cells, key=len, reverse=True)))]
