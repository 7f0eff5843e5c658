"""Products over the inputs of wide layers, whose factors do not fit into memory."""

from collections.abc import Callable
from typing import Any

from keras import backend, ops

#: From this number of weights on, the product is computed in groups of inputs. For a
#: batch of 128, a training step of an NMU is then faster: at 32 x 32 by 3.6 (JAX) and
#: 4.3 times (TensorFlow), at 16 x 16 by 2.8 and 4.8 times. On PyTorch, which compiles
#: nothing, groups take about as long at 256 x 256 and only save memory.
WEIGHTS = 2**18 if backend.backend() == "torch" else 1024


def is_wide(x: Any, W: Any) -> bool:
    """Whether the product of inputs (..., in) and weights (in, units) is computed in
    groups. Without rows it is not, because TensorFlow updates no empty tensor."""
    return 0 not in x.shape and W.shape[0] * W.shape[1] >= WEIGHTS


def product(factor: Callable, gradients: Callable, x: Any, *W: Any) -> Any:
    """`prod_i factor(x_i, *W_i)`, with the factors of only a few inputs in memory.

    The gradient computes the factors again, and the products of all factors but one;
    dividing the product by a factor would be NaN where that is 0. For every group the
    forward pass keeps the product of the groups before it; the gradient begins with the
    last group, and carries the product of those after it. There is no forward-mode
    derivative; on TensorFlow XLA compiles no second derivative; on PyTorch `torch.func`
    and `torch.vmap` refuse it.

    Args:
        factor: An elementwise function, which is 1 where `x` is 1 and all of `W` is 0.
        gradients: A function of `E`, the gradient by the factors, of shape (few, batch,
            units), and of the arguments of `factor`; it returns their gradients.
        x: Inputs of shape (..., in). The functions get them as (few, batch, 1).
        *W: Weights of shape (in, units). The functions get them as (few, 1, units).
    """
    inputs, units = W[0].shape
    rows = ops.shape(x)[:-1]
    # Sixteen are fastest. The gradient keeps a number for every group and for every
    # input of the current group, so from 1,024 inputs on both numbers grow.
    few = 2 ** max(4, (inputs // 4).bit_length() // 2)
    few = max(4, min(few, 2 ** (inputs - 1).bit_length()))
    missing = -inputs % few
    x = ops.transpose(ops.reshape(x, (-1, inputs)))
    x = ops.pad(ops.expand_dims(x, -1), ((0, missing), (0, 0), (0, 0)), "constant", 1)
    padded = [ops.expand_dims(ops.pad(w, ((0, missing), (0, 0))), 1) for w in W]
    return ops.reshape(_product(factor, gradients, few)(x, *padded), (*rows, units))


def _product(factor, gradients, few):
    def multiply(groups):
        """The product, and for every group that of all groups before it."""
        count = groups[0].shape[0]
        rows, units = ops.shape(groups[0])[2], groups[1].shape[-1]

        def one(i, state):
            y, before = state
            before = _put(before, i, y)
            return y * _product_of(factor, _group(groups, i, y)), before

        before = ops.ones((count, rows, units), groups[1].dtype)
        return ops.fori_loop(0, count, one, (before[0], before))

    def differentiate(groups, before, g):
        count = groups[0].shape[0]

        def one(i, state):
            after, *slopes = state
            i = count - 1 - i
            group = _group(groups, i, after)
            factors = factor(*group)
            others = exclusive(factors, after)
            new = gradients(others * before[i], *group)
            slopes = [_put(s, i, n) for s, n in zip(slopes, new, strict=True)]
            return others[0] * factors[0], *slopes

        _, *slopes = ops.fori_loop(0, count, one, (g, *map(ops.zeros_like, groups)))
        return slopes

    @ops.custom_gradient
    def forward(*args):
        y, before = multiply(_groups(args, few))

        def backward(*given, upstream=None):
            # On PyTorch the arguments come by position and the gradient by name, and
            # what is computed in `forward` has no second derivative.
            groups = _groups(args, few)
            if upstream is None:
                slopes = differentiate(groups, before, given[0])
            else:
                slopes = differentiate(groups, multiply(groups)[1], upstream)
            return tuple(
                ops.reshape(s, ops.shape(a)) for s, a in zip(slopes, args, strict=True)
            )

        return y, backward

    return forward


def _groups(args, few):
    return [ops.reshape(a, (a.shape[0] // few, few, *ops.shape(a)[1:])) for a in args]


def _group(groups, i, last):
    """Group `i`, not before `last` is known."""
    x, *W = (a[i] for a in groups)
    if backend.backend() == "tensorflow":
        # It would compute ten groups at once, in ten times the memory.
        x = ops.where(ops.sum(ops.abs(last[:1])) < 0, 0, x)
    return x, *W


def _put(results, i, new):
    """`ops.map` would not do: TensorFlow cannot compile it within a `vectorized_map`
    over a population."""
    index = ops.reshape(ops.cast(i, "int32"), (1, 1))
    return ops.scatter_update(results, index, ops.expand_dims(new, 0))


def _product_of(factor, group):
    """The product in fours: XLA compiles short products to faster code than long."""
    fours = _groups(group, 4)

    def multiply(i, y):
        return y * ops.prod(factor(*(a[i] for a in fours)), axis=0)

    y = ops.prod(factor(*(a[0] for a in fours)), axis=0)
    return ops.fori_loop(1, fours[0].shape[0], multiply, y)


def exclusive(factors: Any, g: Any) -> Any:
    """For each factor, `g` times the product of all others, in a tree of pairs."""
    count, *shape = ops.shape(factors)
    if count == 1:
        return ops.expand_dims(g, 0)
    pairs = ops.reshape(factors, (count // 2, 2, *shape))
    above = exclusive(ops.prod(pairs, axis=1), g)
    others = ops.expand_dims(above, 1) * ops.flip(pairs, 1)
    return ops.reshape(others, (count, *shape))
