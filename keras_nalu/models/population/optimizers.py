"""Optimizers that update each member of a population as if it were alone."""

import contextlib

import keras
from keras import ops

from keras_nalu.private import decays

#: Keras' optimizers that treat every weight by itself, so that stacked members do not
#: mix. A user's class declares this by `elementwise = True`.
ELEMENTWISE = "Adadelta Adagrad Adam Adamax AdamW Ftrl Lion Nadam RMSprop SGD".split()


def expect_elementwise(optimizer):
    known = [getattr(keras.optimizers, name) for name in ELEMENTWISE]
    if type(optimizer) not in known and not getattr(optimizer, "elementwise", False):
        raise ValueError(
            "Expected an optimizer that treats every weight by itself, so that each "
            f"member trains as if alone. Received: {type(optimizer).__name__}. "
            f"Try one of {', '.join(ELEMENTWISE)}. If your class does so, set "
            "`elementwise = True` in it."
        )
    clips = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    if clips and optimizer.gradient_accumulation_steps:
        raise ValueError(
            "A population clips by norm the gradients of each step. Received: "
            "`clipnorm` or `global_clipnorm`, and gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}. Try larger batches."
        )
    return optimizer


def exclude_as(other, optimizer, pairs):
    """Excludes from the weight decay the second variable of each pair whose first
    variable is excluded in the `other` optimizer."""
    if optimizer.weight_decay and not optimizer.built:
        left_out = [new for old, new in pairs if not decays(other, old)]
        if left_out:
            optimizer.exclude_from_weight_decay(var_list=left_out)


def clip(optimizer, gradients):
    """Clips one member's gradients by norm; Keras' norm would be over all members."""
    both = optimizer.global_clipnorm, optimizer.clipnorm
    limit = next((limit for limit in both if limit is not None), None)
    if limit is None:
        return gradients
    # Not `ops.norm`, which fails for scalars on TensorFlow.
    norms = [ops.sqrt(ops.sum(ops.square(gradient))) for gradient in gradients]
    if optimizer.global_clipnorm is not None:
        norms = [ops.sqrt(sum(ops.square(norm) for norm in norms))] * len(norms)
    return [
        gradient * (limit / ops.maximum(norm, limit))
        for gradient, norm in zip(gradients, norms, strict=True)
    ]


@contextlib.contextmanager
def unclipped(optimizer):
    """Switches off Keras' clipping, which would take the norm over all members."""
    names = "clipnorm", "global_clipnorm"
    limits = {name: getattr(optimizer, name) for name in names}
    vars(optimizer).update(dict.fromkeys(names))
    try:
        yield
    finally:
        vars(optimizer).update(limits)
