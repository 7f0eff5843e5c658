"""Sets stored weights so that the effective ones are exact, for the layers' `snap`."""

from typing import Any

import numpy as np

from keras_nalu.ops import to_numpy

#: At this value tanh, sigmoid and softmax are 1, in float64 and in a GNALU, too.
SATURATED = 100


def saturate(W_hat: Any, M_hat: Any, kernel: np.ndarray) -> None:
    """`tanh(W_hat) * sigmoid(M_hat)` becomes the kernel, whose entries are -1, 0, 1."""
    W_hat.assign(SATURATED * kernel)
    M_hat.assign(np.full(M_hat.shape, SATURATED))


def open_or_shut(g: Any, is_open: Any) -> None:
    """`sigmoid(g)` becomes 1 or 0."""
    g.assign(np.where(is_open, SATURATED, -SATURATED))


def steepen(G: Any, rows: np.ndarray | None, slope: float = 1.0) -> None:
    """`sigmoid(slope * x G)` becomes 1 or 0 on all rows, whichever is nearer."""
    if rows is None:
        return
    W = to_numpy(G)
    logits = np.abs(slope * rows @ W)
    least = np.where(logits > 0, logits, np.inf).min(axis=0)
    G.assign(W * np.maximum(1, 40 / least))


def choose(V: Any) -> None:
    """`softmax(V)` over the first axis becomes 1 at the largest entry."""
    V.assign(SATURATED * np.eye(V.shape[0])[:, to_numpy(V).argmax(axis=0)])


def hand_out(r: Any, gate_w: Any, gate_b: Any, ones: np.ndarray) -> None:
    """`sigmoid(gate_w + gate_b) * softmax(r)` becomes 1 where `ones` is true.

    Every input goes to some unit; one that no unit lets out goes to a shut unit.
    """
    lets_out = ones.any(axis=0)
    kept = ones.any(axis=1, keepdims=True)
    logits = to_numpy(r)
    prefer = np.where(lets_out == kept, logits, -np.inf)
    prefer = np.where(np.isfinite(prefer).any(axis=1, keepdims=True), prefer, logits)
    r.assign(SATURATED * np.eye(r.shape[1])[prefer.argmax(axis=1)])
    open_or_shut(gate_w, lets_out)
    gate_b.assign(np.zeros(gate_b.shape))
