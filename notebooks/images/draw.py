"""Draws `nac_nalu.png`, the two cells of arXiv:1808.00508 in the paper's letters.

python notebooks/images/draw.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

INK, QUIET = "#222222", "#666666"
WEIGHT, SUM, PRODUCT, GATE = "#7b4fa3", "#2166ac", "#c4601d", "#2b7d4f"
TINT = "#e8e2f1"  # where the weights W are used
WIDTH, HEIGHT = 11.0, 4.1  # inches, and the units of every coordinate below
RADIUS = 0.165


def box(ax, x, y, text, color=INK, width=0.86, height=0.56, fill="white"):
    """A box with its centre at (x, y)."""
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=fill,
            edgecolor=color,
            linewidth=1.3,
            zorder=3,
        )
    )
    ax.text(x, y - 0.02, text, ha="center", va="center", color=INK, zorder=4, size=14)


def node(ax, x, y, text, color=INK):
    """An elementwise operation, in a circle."""
    ax.plot(x, y, "o", ms=23, mfc="white", mec=color, mew=1.3, zorder=3)
    ax.text(x, y - 0.01, text, ha="center", va="center", color=INK, zorder=4, size=15)


def arrow(ax, *points, color=INK, label=None, at=(0, 0)):
    """A line through the points that ends in an arrow head, with a label beside it."""
    for start, end in zip(points[:-2], points[1:-1]):
        ax.plot(*zip(start, end), color=color, lw=1.3, zorder=1, solid_capstyle="round")
    ax.annotate(
        "",
        points[-1],
        points[-2],
        arrowprops={
            "arrowstyle": "-|>,head_width=0.22,head_length=0.45",
            "lw": 1.3,
            "color": color,
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=1,
    )
    if label:
        ax.text(*at, label, ha="center", va="center", color=color, size=14)


def panel(ax, left, right, title):
    ax.add_patch(
        FancyBboxPatch(
            (left, 0.1),
            right - left,
            HEIGHT - 0.2,
            boxstyle="round,pad=0,rounding_size=0.15",
            facecolor="#fafafa",
            edgecolor="#cccccc",
            zorder=0,
        )
    )
    ax.text(
        left + 0.2,
        HEIGHT - 0.36,
        title,
        weight="bold",
        color=INK,
        size=12.5,
        va="center",
        family="DejaVu Sans",
    )


def draw_nac(ax):
    panel(ax, 0.1, 4.35, "NAC: Neural Accumulator")
    what, mhat, data = 3.1, 2.3, 0.8
    box(ax, 0.75, what, r"$\hat{W}$", WEIGHT)
    box(ax, 0.75, mhat, r"$\hat{M}$", WEIGHT)
    box(ax, 1.95, what, "tanh")
    box(ax, 1.95, mhat, r"$\sigma$")
    arrow(ax, (1.18, what), (1.52, what))
    arrow(ax, (1.18, mhat), (1.52, mhat))
    middle = (what + mhat) / 2
    node(ax, 2.9, middle, r"$\odot$")
    arrow(ax, (2.38, what), (2.9, what), (2.9, middle + RADIUS))
    arrow(ax, (2.38, mhat), (2.9, mhat), (2.9, middle - RADIUS))
    box(ax, 3.75, middle, r"$W$", WEIGHT, fill=TINT)
    arrow(ax, (2.9 + RADIUS, middle), (3.32, middle))
    ax.text(0.75, data, r"$\mathbf{x}$", ha="center", va="center", size=16)
    box(ax, 2.3, data, r"$\mathbf{x}\,W$")
    arrow(ax, (0.95, data), (1.87, data))
    arrow(
        ax,
        (3.75, middle - 0.28),
        (3.75, 1.55),
        (2.3, 1.55),
        (2.3, data + 0.28),
        color=WEIGHT,
    )
    arrow(ax, (2.73, data), (3.55, data))
    ax.text(3.75, data, r"$\mathbf{a}$", ha="center", va="center", size=16, color=SUM)
    ax.text(
        0.3,
        0.33,
        r"entries of $W$ are drawn to $-1$, $0$ and $1$",
        size=10.5,
        color=QUIET,
        va="center",
    )


def draw_nalu(ax):
    panel(ax, 4.55, WIDTH - 0.1, "NALU: Neural Arithmetic Logic Unit")
    add, gate, mul = 3.05, 2.02, 0.99
    ax.text(4.85, gate, r"$\mathbf{x}$", ha="center", va="center", size=16)
    fan = 5.15
    ax.plot((5.0, fan), (gate, gate), color=INK, lw=1.3, zorder=1)
    # The sum: a NAC.
    box(ax, 7.15, add, r"$\mathbf{x}\,W$", WEIGHT, fill=TINT)
    arrow(ax, (fan, gate), (fan, add), (6.72, add))
    # The gate.
    box(ax, 6.5, gate, r"$\mathbf{x}\,G$", GATE)
    box(ax, 7.7, gate, r"$\sigma$", GATE)
    arrow(ax, (fan, gate), (6.07, gate))
    arrow(ax, (6.93, gate), (7.27, gate))
    # The product: the same NAC between a logarithm and an exponential.
    box(ax, 5.98, mul, r"$\log(|\mathbf{x}|+\epsilon)$", PRODUCT, width=1.32)
    box(ax, 7.24, mul, r"$\cdot\,W$", WEIGHT, width=0.68, fill=TINT)
    box(ax, 8.13, mul, "exp", PRODUCT, width=0.7)
    arrow(ax, (fan, gate), (fan, mul), (5.32, mul))
    arrow(ax, (6.64, mul), (6.9, mul))
    arrow(ax, (7.58, mul), (7.78, mul))
    # The mix: g to the sum, 1 - g to the product.
    mix = 9.3
    node(ax, mix, add, r"$\odot$")
    node(ax, mix, mul, r"$\odot$")
    arrow(
        ax,
        (7.58, add),
        (mix - RADIUS, add),
        color=SUM,
        label=r"$\mathbf{a}$",
        at=(8.75, add + 0.22),
    )
    arrow(
        ax,
        (8.48, mul),
        (mix - RADIUS, mul),
        color=PRODUCT,
        label=r"$\mathbf{m}$",
        at=(8.77, mul - 0.22),
    )
    ax.plot((8.13, mix), (gate, gate), color=GATE, lw=1.3, zorder=1)
    arrow(
        ax,
        (mix, gate),
        (mix, add - RADIUS),
        color=GATE,
        label=r"$\mathbf{g}$",
        at=(mix + 0.2, 2.5),
    )
    arrow(
        ax,
        (mix, gate),
        (mix, mul + RADIUS),
        color=GATE,
        label=r"$1-\mathbf{g}$",
        at=(mix + 0.38, 1.5),
    )
    node(ax, 10.2, gate, r"$+$")
    arrow(ax, (mix + RADIUS, add), (10.2, add), (10.2, gate + RADIUS), color=SUM)
    arrow(ax, (mix + RADIUS, mul), (10.2, mul), (10.2, gate - RADIUS), color=PRODUCT)
    arrow(ax, (10.2 + RADIUS, gate), (10.62, gate))
    ax.text(10.74, gate, r"$\mathbf{y}$", ha="center", va="center", size=16)
    ax.text(
        4.75,
        0.33,
        r"both paths share one $W$; $\odot$ is elementwise",
        size=10.5,
        color=QUIET,
        va="center",
    )


def main():
    plt.rcParams.update({"mathtext.fontset": "stix", "font.family": "STIXGeneral"})
    figure = plt.figure(figsize=(WIDTH, HEIGHT), dpi=120)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    ax.axis("off")
    draw_nac(ax)
    draw_nalu(ax)
    figure.savefig(
        Path(__file__).with_name("nac_nalu.png"), metadata={"Software": None}
    )


if __name__ == "__main__":
    main()
