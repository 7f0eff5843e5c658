"""Products over the inputs of wide layers, whose factors do not fit into memory."""

from collections.abc import Callable
from typing import Any

from keras import backend, ops

#: From this number of weights on, the product is computed in groups of inputs. For a
#: batch of 128, a training step of an NMU is then faster: at 32 x 32 by 4.0 (JAX) and
#: 2.6 times (TensorFlow), at 16 x 16 by 1.4 and 1.5 times. On PyTorch, which compiles
#: nothing, groups are 3 times slower at 256 x 256 and only save memory.
WEIGHTS = 2**18 if backend.backend() == "torch" else 1024


def is_wide(x: Any, W: Any) -> bool:
    """Whether the product of inputs (..., in) and weights (in, units) is computed in
    groups. Without rows it is not, because TensorFlow updates no empty tensor."""
    return 0 not in x.shape and W.shape[0] * W.shape[1] >= WEIGHTS


def product(factor: Callable, gradients: Callable, x: Any, *W: Any) -> Any:
    """`prod_i factor(x_i, *W_i)`, with the factors of only a few inputs in memory.

    The gradient computes the factors again, and the products of all factors but one;
    dividing the product by a factor would be NaN where that is 0. There is no
    forward-mode derivative; on TensorFlow XLA compiles no second derivative; on PyTorch
    `torch.func` and `torch.vmap` refuse it.

    Args:
        factor: An elementwise function, which is 1 where `x` is 1 and all of `W` is 0.
        gradients: A function of `E`, the gradient by the factors, of shape (few, batch,
            units), and of the arguments of `factor`; it returns their gradients.
        x: Inputs of shape (..., in). The functions get them as (few, batch, 1).
        *W: Weights of shape (in, units). The functions get them as (few, 1, units).
    """
    inputs, units = W[0].shape
    rows = ops.shape(x)[:-1]
    # About as many groups as inputs in each: the gradient keeps a number for every
    # group and for every input of the current group.
    few = 2 ** max(2, (inputs // 2).bit_length() // 2)
    missing = -inputs % few
    x = ops.transpose(ops.reshape(x, (-1, inputs)))
    x = ops.pad(ops.expand_dims(x, -1), ((0, missing), (0, 0), (0, 0)), "constant", 1)
    padded = [ops.expand_dims(ops.pad(w, ((0, missing), (0, 0))), 1) for w in W]
    return ops.reshape(_product(factor, gradients, few)(x, *padded), (*rows, units))


def _product(factor, gradients, few):
    def of_group(group):
        return (_product_of(factor(*group)),)

    def by_group(group):
        *group, g = group
        return gradients(exclusive(factor(*group), g), *group)

    @ops.custom_gradient
    def forward(*args):
        def backward(*given, upstream=None):
            # On PyTorch the arguments come by position, and the gradient by name.
            g = given[0] if upstream is None else upstream
            groups = _groups(args, few)
            ones = ops.ones((groups[0].shape[0], *ops.shape(g)), g.dtype)
            (of_groups,) = _each(of_group, groups, [ones])
            E = exclusive(of_groups, g)
            slopes = _each(by_group, [*groups, E], map(ops.zeros_like, groups))
            return tuple(
                ops.reshape(s, ops.shape(a)) for s, a in zip(slopes, args, strict=True)
            )

        fours = _groups(args, 4)
        (y,) = of_group([a[0] for a in fours])

        def multiply(i, y):
            return y * of_group([a[i] for a in fours])[0]

        return ops.fori_loop(1, fours[0].shape[0], multiply, y), backward

    return forward


def _groups(args, few):
    return [ops.reshape(a, (a.shape[0] // few, few, *ops.shape(a)[1:])) for a in args]


def _each(function, groups, results):
    """`function` of every group, written into `results`. `ops.map` would not do:
    TensorFlow cannot compile it within a `vectorized_map` over a population."""

    def put(i, results):
        index = ops.reshape(ops.cast(i, "int32"), (1, 1))
        new = function([a[i] for a in groups])
        return tuple(
            ops.scatter_update(old, index, ops.expand_dims(r, 0))
            for old, r in zip(results, new, strict=True)
        )

    return ops.fori_loop(0, groups[0].shape[0], put, tuple(results))


def _product_of(factors):
    """The product in fours: XLA compiles short products to faster code than long."""
    while factors.shape[0] > 4:
        (factors,) = _groups([factors], 4)
        factors = ops.prod(factors, axis=1)
    return ops.prod(factors, axis=0)


def exclusive(factors: Any, g: Any) -> Any:
    """For each factor, `g` times the product of all others, in a tree of pairs."""
    count, *shape = ops.shape(factors)
    if count == 1:
        return ops.expand_dims(g, 0)
    if count % 2:
        factors = ops.concatenate([factors, ops.ones_like(factors[:1])])
    (pairs,) = _groups([factors], 2)
    above = exclusive(ops.prod(pairs, axis=1), g)
    others = ops.expand_dims(above, 1) * ops.flip(pairs, 1)
    return ops.reshape(others, (count + count % 2, *shape))[:count]
