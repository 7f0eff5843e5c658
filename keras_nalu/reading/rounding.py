"""Rounding a model to the formula that it is near to."""

import keras
import numpy as np

from keras_nalu import expect, layers
from keras_nalu.layers.base import walk_layers
from keras_nalu.reading.equations import nearest, slope, to_numpy
from keras_nalu.reading.models import chain, run, to_rows

#: Of the kernels that are tanh(W_hat) * sigmoid(M_hat), the stored weights.
HATS = {
    "W_hat": "kernel",
    "W_hat_add": "kernel_add",
    "W_hat_mul": "kernel_mul",
    "W_a_hat": "kernel_add",
    "W_m_hat": "kernel_mul",
}
#: Of the kernels that are stored as they are.
STORED = {"W": "kernel", "W_re": "kernel", "W_im": "kernel_im", "g": "relevance"}
#: Where tanh, sigmoid and softmax reach 1, also in float64 and at the slope of a GNALU.
SATURATED = 100


def discretize(model, x=None, y=None, tolerance=1e-5):
    """A copy of the model whose kernels are exactly on their targets.

    Every effective weight goes to the nearest of its targets, such as -1, 0 and 1 (the
    powers of an NPU to the nearest whole number, the inputs of an MCFC to one unit
    each), and the gates that do not depend on the inputs to the nearer side. With `x`
    the others are made steeper, until they are open or shut on every row.

    Args:
        model: An arithmetic layer, or a chain of them, as for `formula`. It stays as it
            is; the copy is compiled as it is.
        x: Data as the model is used on.
        y: The right answers. With them the copy must be as good as the model.
        tolerance: How much the mean absolute error may rise, as a share of the mean
            magnitude of `y`: rounding.

    Returns:
        The copy.

    Raises:
        TypeError: the model is no chain of arithmetic layers.
        ValueError: the copy is worse than the model on `x` and `y`; its weights are not
            finite; there is `y` without `x`.

    Example:

    >>> layer = NMU(1)
    >>> layer.build((None, 2))
    >>> layer.set_weights([np.array([[0.98], [0.04]])])
    >>> snapped = keras_nalu.discretize(layer)
    >>> print(keras.ops.convert_to_numpy(snapped.kernel))
    [[1.]
     [0.]]
    """
    originals = chain(model)
    tolerance = expect.not_negative("tolerance", tolerance, "1e-5")
    if y is not None and x is None:
        raise ValueError("Expected the inputs `x` of the labels `y`. Received: x=None.")
    for layer in originals:
        if not all(np.all(np.isfinite(weight)) for weight in layer.get_weights()):
            raise ValueError(
                f"Expected finite weights. Received: NaN or infinite weights in the "
                f"layer {layer.name!r}."
            )
    copy = _clone(model)
    values = None if x is None else to_rows(x, originals[0])
    for layer in chain(copy):
        kernels = {
            name: nearest(layer, name, to_numpy(kernel))
            for name, kernel in layer.kernels.items()
        }
        _snap(layer, kernels)
        if values is not None:
            if hasattr(layer, "G"):
                _saturate(layer, values)
            values = run([layer], values)[-1]
        for name, kernel in layer.kernels.items():
            w = to_numpy(kernel)
            if np.max(np.abs(w - nearest(layer, name, w))) > 1e-6:
                raise ValueError(
                    f"Expected a layer that can reach its targets. Received: "
                    f"{layer!r}, whose `{name}` stays away from them."
                )
    if y is not None:
        _refuse_if_worse(originals, values, to_rows(x, originals[0]), y, tolerance)
    return copy


def _refuse_if_worse(originals, snapped, rows, y, tolerance):
    labels = to_numpy(expect.real("y", y))
    if labels.size != snapped.size:
        raise ValueError(
            f"Expected a label for each of the {snapped.size} outputs. "
            f"Received: y.shape={labels.shape}."
        )
    labels = labels.reshape(snapped.shape)
    before = np.mean(np.abs(run(originals, rows)[-1] - labels))
    after = np.mean(np.abs(snapped - labels))
    if not after <= before + tolerance * np.mean(np.abs(labels)):
        raise ValueError(
            "The discrete model is worse than the one that was given: its mean "
            f"absolute error on `x` and `y` is {after:.3g}, not {before:.3g}. Train "
            "longer, with the layer's sparsity penalty, or look which entries are not "
            "discrete: `formula(model, x).not_discrete`."
        )


def _clone(model):
    known = {type(layer).__name__: type(layer) for layer in walk_layers(model)}
    with keras.saving.custom_object_scope(known):
        copy = type(model).from_config(model.get_config())
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy.set_weights(model.get_weights())
        if getattr(model, "compiled", False):
            copy.compile_from_config(model.get_compile_config())
    return copy


def _snap(layer, kernels):
    """Assigns the stored weights that give these kernels."""
    for name, kernel in HATS.items():
        if hasattr(layer, name):
            getattr(layer, name).assign(SATURATED * kernels[kernel])
            M_hat = getattr(layer, name.replace("W", "M"))
            M_hat.assign(np.full(M_hat.shape, SATURATED))
    for name, kernel in STORED.items():
        if hasattr(layer, name) and kernel in kernels:
            getattr(layer, name).assign(kernels[kernel])
    match layer:
        case layers.INALU() | layers.SharedINALU():
            _open_or_shut(layer.g, to_numpy(layer.g) >= 0)
        case layers.MCFC() | layers.MulMCFC():
            _snap_masses(layer, kernels["kernel"] == 1)
        case layers.NSR():
            for V in (layer.V_1, layer.V_2):
                chosen = to_numpy(V).argmax(axis=0)
                V.assign(SATURATED * np.eye(V.shape[0])[:, chosen])


def _snap_masses(layer, ones):
    """An input goes somewhere: to a unit that lets it out, or to one that is shut."""
    lets_out = ones.any(axis=0)
    kept = ones.any(axis=1, keepdims=True)
    r = to_numpy(layer.r)
    prefer = np.where(lets_out == kept, r, -np.inf)
    prefer = np.where(np.isfinite(prefer).any(axis=1, keepdims=True), prefer, r)
    layer.r.assign(SATURATED * np.eye(layer.units)[prefer.argmax(axis=1)])
    _open_or_shut(layer.gate_w, lets_out)
    layer.gate_b.assign(np.zeros(layer.units))


def _open_or_shut(g, is_open):
    g.assign(np.where(is_open, SATURATED, -SATURATED))


def _saturate(layer, rows):
    """Makes the gate so steep that no row is between."""
    G = to_numpy(layer.G)
    logits = np.abs(slope(layer) * rows @ G)
    least = np.where(logits > 0, logits, np.inf).min(axis=0)
    layer.G.assign(G * np.maximum(1, 40 / least))
