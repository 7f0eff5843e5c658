"""The manual's pictures of each module: its outputs, and the path of its weights."""

import keras
import numpy as np

from keras_nalu import formula
from keras_nalu.benchmarks import runner

SEEDS, EPOCH = 5, 50  # steps
#: The epochs before which weights are recorded.
RECORDED = {0, 1, 2, *np.geomspace(3, 1000, 40).astype(int)}
BLUE, ORANGE, GREEN, RED = "#2166ac", "#c4601d", "#2b7d4f", "#d62728"
LEVELS = {
    "add": range(-16, 17, 4),
    "subtract": range(-16, 17, 4),
    "multiply": [-50, -20, -5, 0, 5, 20, 50],
    "divide": [-4, -2, -1, -0.5, 0, 0.5, 1, 2, 4],
    "less": [0.1, 0.5, 0.9],
}
TICKS = np.linspace(-10, 10, 201, dtype="float32")
PLANE = np.stack(np.meshgrid(TICKS, TICKS), axis=-1).reshape(-1, 2)
SQUARE = np.random.default_rng(0).uniform(1, 2, (100, 2))

#: {name: (experiment, model)} of the modules that `show` has trained.
shown = {}


def show(name, operation):
    """Trains five seeds of a module, prints the formula, and plots two pictures.

    Left, the outputs over the plane; right, the effective weights over the steps.

    Args:
        name: A layer's name, such as "NMU".
        operation: One of its operations.
    """
    import matplotlib.pyplot as plt

    claims = runner.select("claims", [name], [operation], seeds=SEEDS)
    claim = next(each for each in claims if each.task.operation == operation)
    population, steps, recorded = _train(claim)
    solved = _solves(claim, population)
    print(sum(solved), "of", SEEDS, "seeds solved it")
    first = int(np.argmax(solved))
    model = population.member(first)
    print(formula(model, _far(claim)))

    figure, (left, right) = plt.subplots(1, 2, width_ratios=(1, 1.3), figsize=(8.5, 3))
    filled = plot_plane(left, claim, model)
    figure.colorbar(filled, ax=left, ticks=LEVELS[operation], format="%g")
    left.set(xlabel="$x_0$", ylabel="$x_1$", title=f"{name}, {operation}")
    _plot_paths(right, population.member(first), steps, recorded, first)
    plt.show()
    shown[name] = claim, model


def family():
    """Plots the planes of all modules that were shown, in one picture."""
    import matplotlib.pyplot as plt

    _, grid = plt.subplots(3, 6, figsize=(10, 5.6))
    for axes, (name, (claim, model)) in zip(grid.flat, shown.items(), strict=True):
        plot_plane(axes, claim, model)
        axes.set_title(f"{name}\n{claim.task.operation}", fontsize=10)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    plt.show()


def plot_plane(axes, claim, model):
    """Plots the outputs of a model as colours, and the exact ones as lines."""
    import matplotlib.pyplot as plt
    from matplotlib import patches

    levels = LEVELS[claim.task.operation]
    plane = keras.ops.convert_to_tensor(PLANE)  # NumPy would warn of 1 / 0
    learned, exact = (
        np.ma.masked_invalid(np.reshape(answer(plane), (201, 201)))
        for answer in (model, lambda x: claim.task.answer(x, None))
    )
    colors = plt.get_cmap("PRGn")(np.linspace(0.05, 0.95, len(levels) + 1))
    filled = axes.contourf(TICKS, TICKS, learned, levels, colors=colors, extend="both")
    axes.contour(TICKS, TICKS, exact, levels, colors="black", linewidths=0.7)
    low, size = (1, 8) if claim.module == "NSR" else (1, 1)
    corner = patches.Rectangle((low, low), size, size, fc="none", ec=RED, lw=1.5)
    axes.add_patch(corner)
    axes.set(aspect="equal", facecolor="lightgray")
    axes.set(xticks=(-10, 0, 10), yticks=(-10, 0, 10))
    axes.grid(False)
    return filled


def _train(claim):
    population = claim.population()
    steps, recorded = [], []

    def record(epoch, logs=None):
        if epoch in RECORDED:
            weights = population.trainable_variables
            recorded.append([keras.ops.convert_to_numpy(w) for w in weights])
            steps.append(epoch * EPOCH)

    epochs = claim.steps // EPOCH
    keras.utils.set_random_seed(0)
    population.fit(
        lambda stream: claim.task.sample(stream, range(SEEDS)),
        steps_per_epoch=EPOCH,
        epochs=epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=record)],
    )
    record(epochs)
    return population, steps, recorded


def _far(claim):
    rng = np.random.default_rng(0)
    if claim.module == "NSR":
        x = rng.integers(10, 100, (1000, 2)).astype("float32")
        x[::4, 1] = x[::4, 0]
        return x
    return rng.uniform(2, 6, (1000, 2)).astype("float32")


def _solves(claim, population):
    x = _far(claim)
    y = keras.ops.convert_to_numpy(claim.task.answer(x, None))
    errors = np.abs(population.predict(x, verbose=0) - y)[..., 0]
    if claim.module == "NSR":
        return np.all(errors < 0.5, axis=1)
    return np.mean(errors**2, axis=1) < 1e-5


def _plot_paths(axes, model, steps, recorded, chosen):
    from matplotlib import lines

    layer, variables = model.layers[0], model.trainable_variables
    paths = []
    for weights in recorded:
        for seed in range(SEEDS):
            for variable, values in zip(variables, weights, strict=True):
                variable.assign(values[seed])
            paths.append(_effective(layer))
    inputs = {"$x_0$": BLUE, "$x_1$": ORANGE}
    handles = [lines.Line2D([], [], color=c, lw=2, label=x) for x, c in inputs.items()]
    for name, style in zip(paths[0], ("-", ":", "--"), strict=False):
        path = np.reshape([found[name] for found in paths], (len(steps), SEEDS, -1))
        colors = (GREEN,) if name == "gate" else (BLUE, ORANGE)
        for entry, color in enumerate(colors):
            axes.plot(steps, path[..., entry], color=color, ls=style, lw=0.8, alpha=0.4)
            width = 3 if color == BLUE else 1.5  # both remain visible where they meet
            axes.plot(steps, path[:, chosen, entry], color=color, ls=style, lw=width)
        color = GREEN if name == "gate" else "gray"
        if len(paths[0]) > 1:
            handles.append(lines.Line2D([], [], color=color, ls=style, label=name))
    for target in {target for each in layer.targets.values() for target in each}:
        axes.axhline(target, color="gray", ls="--", lw=1, zorder=0)
    axes.set_xscale("symlog", linthresh=100, linscale=0.5)
    axes.set(xlim=(0, steps[-1]), xlabel="steps", title="effective weights")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1))


def _effective(layer):
    found = {}
    for name, kernel in layer.kernels.items():
        # Two inputs; the NMRU has two more rows, for their reciprocals.
        pairs = np.reshape(kernel, (-1, 2))
        found |= dict(zip((name, f"{name} of 1/x"), pairs, strict=False))
    if hasattr(layer, "gate"):
        found["gate"] = np.mean(layer.gate(SQUARE))
    return found
