"""Pictures for TensorBoard's Images tab, painted with Pillow."""

import math

import numpy as np

#: The sides of a cell that shows its value, and of text, in pixels.
CELL, TEXT = 48, 14
#: TensorBoard stretches a picture that is narrower, in pixels.
NARROWEST = 260
#: A kernel with more rows or columns is painted without values.
MOST_CELLS = 12
#: The longest side of a picture without values; longer axes show every n-th entry.
PIXELS = 512
GRAY, BLUE = (128, 128, 128), (33, 102, 172)


def heat_map(kernel, gate=None):
    """A kernel with a row for each input: -1 is blue, 0 white and 1 red.

    Args:
        kernel: The effective weights, (..., inputs, units).
        gate: The gate of each unit, painted as a row below the kernel.

    Returns:
        An array of `uint8`, (height, width, 3).
    """
    rows = kernel.reshape(-1, kernel.shape[-1])
    if max(rows.shape) > MOST_CELLS:
        return _large(rows)
    labels = [f"x{i}" for i in range(len(rows))]
    parts = [(rows, labels)]
    if gate is not None:
        parts.append((gate.reshape(1, -1), ["gate"]))
    top, left, gap = 2 * TEXT, 4 * TEXT, TEXT
    height = top + CELL * sum(len(part) for part, _ in parts) + gap * (len(parts) - 1)
    width = left + CELL * rows.shape[1] + 5 * TEXT
    image, pen, font = _canvas(max(NARROWEST, width), height + TEXT)
    for column in range(rows.shape[1]):
        center = left + CELL * (column + 0.5), top - 6
        pen.text(center, f"y{column}", "black", font, anchor="ms")
    y = top
    for part, names in parts:
        for name, values in zip(names, part, strict=True):
            pen.text((left - 8, y + CELL / 2), name, "black", font, anchor="rm")
            for column, value in enumerate(values):
                x = left + CELL * column
                color = tuple(_colors(value).tolist())
                pen.rectangle((x, y, x + CELL, y + CELL), color, GRAY)
                dark = np.isnan(value) or abs(value) > 0.7
                center, words = (x + CELL / 2, y + CELL / 2), f"{value:.2f}"
                ink = "white" if dark else "black"
                pen.text(center, words, ink, font, anchor="mm")
            y += CELL
        y += gap
    _scale(pen, font, left + CELL * rows.shape[1] + TEXT, top, y - gap)
    return np.asarray(image)


def _colors(values):
    """-1 blue, 0 white, +1 red, not-a-number black."""
    w = np.clip(values, -1, 1)
    rgb = np.stack([1 + np.minimum(w, 0), 1 - np.abs(w), 1 - np.maximum(w, 0)], axis=-1)
    return np.round(255 * np.nan_to_num(rgb)).astype("uint8")


def _scale(pen, font, left, top, bottom):
    for y in range(top, bottom + 1):
        color = _colors(1 - 2 * (y - top) / (bottom - top))
        pen.line((left, y, left + TEXT, y), tuple(color.tolist()))
    for value in (1, 0, -1):
        y = top + (1 - value) * (bottom - top) / 2
        pen.text((left + TEXT + 4, y), str(value), "black", font, anchor="lm")


def _large(rows):
    down, right = (math.ceil(size / PIXELS) for size in rows.shape)
    image = _colors(rows[::down, ::right])
    for axis in (0, 1):
        image = np.repeat(image, max(1, PIXELS // image.shape[axis]), axis)
    return image


def fan(losses, width=340, height=240):
    """The losses of all members over the epochs, on a logarithmic scale.

    The light area spans all members, the darker one the middle half; the line is the
    median. The picture is small because TensorBoard shows it 260 pixels wide.

    Args:
        losses: (epochs, members); values that are not finite or positive are left out.

    Returns:
        An array of `uint8`, (height, width, 3).
    """
    with np.errstate(all="ignore"):
        logs = np.log10(np.where(losses > 0, losses, np.nan))
    logs = np.where(np.isfinite(logs), logs, np.nan)
    shown = logs[np.isfinite(logs).any(axis=1)]
    image, pen, font = _canvas(width, height)
    if len(shown) == 0:
        pen.text((width / 2, height / 2), "no finite loss", "black", font, anchor="mm")
        return np.asarray(image)
    low, high = math.floor(np.nanmin(shown)), math.ceil(np.nanmax(shown))
    high = max(high, low + 1)
    left, right, top, bottom = 4 * TEXT, width - TEXT, 2 * TEXT, height - 2 * TEXT
    for power in range(low, high + 1, math.ceil((high - low) / 6)):
        y = bottom - (bottom - top) * (power - low) / (high - low)
        pen.line((left, y, right, y), (225, 225, 225))
        pen.text((left - 6, y), f"1e{power}", "black", font, anchor="rm")
    x = np.linspace(left, right, max(2, len(shown)))
    quantiles = np.nanquantile(shown, [0, 0.25, 0.5, 0.75, 1], axis=1)
    quantiles = np.repeat(quantiles, 2, axis=1) if len(shown) == 1 else quantiles
    y = bottom - (bottom - top) * (quantiles - low) / (high - low)
    lines = [[*zip(x, line, strict=True)] for line in y.tolist()]
    for first, color in [(0, (222, 233, 243)), (1, (166, 198, 224))]:
        pen.polygon(lines[first] + lines[4 - first][::-1], color)
    pen.line(lines[2], BLUE, 2)
    title = f"loss of {losses.shape[1]} members"
    pen.text((left, top - 8), title, "black", font, anchor="ls")
    pen.text((left, height - 8), "epoch 0", "black", font, anchor="ls")
    last = f"epoch {len(losses) - 1}"
    pen.text((right, height - 8), last, "black", font, anchor="rs")
    return np.asarray(image)


def _canvas(width, height):
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width, height), "white")
    return image, ImageDraw.Draw(image), ImageFont.load_default(TEXT)
