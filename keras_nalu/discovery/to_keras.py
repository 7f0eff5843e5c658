"""A formula as a Keras model: RealNPU, Dense, RealNPU, Dense.

The first RealNPU computes the monomials, the first Dense the sums in the brackets, the
second RealNPU the product of their powers, the last Dense multiplies by the constants.
"""

import numpy as np

from keras_nalu.discovery.forms import Form, Sum


def model(forms, width, dtype=None):
    """A `keras_nalu.Model` (batch, width) -> (batch, len(forms))."""
    import keras

    import keras_nalu

    inputs = keras.Input((width,), dtype=dtype)
    if all(flat(form) for form in forms):
        outputs = sums(inputs, [terms(form) for form in forms], dtype)
    else:
        parts = [
            (number, part)
            for number, form in enumerate(forms)
            for part in (form.parts if isinstance(form, Sum) else (form,))
        ]
        outputs = products(inputs, parts, len(forms), dtype)
    return keras_nalu.Model(inputs, outputs)


def flat(form):
    """Whether the form is a sum of monomials."""
    return isinstance(form, Form) and (
        len(form.brackets) == 0
        or (len(form.brackets) == 1 and form.brackets[0].power == 1)
    )


def terms(form):
    """The coefficients and exponents of a sum of monomials."""
    if not form.brackets:
        return np.array([form.constant]), form.exponents[None]
    (bracket,) = form.brackets
    return (
        form.constant * bracket.coefficients,
        bracket.exponents + form.exponents,
    )


def products(inputs, parts, outputs, dtype):
    """The output of layers that compute sums of products of brackets.

    Each part is a pair: the index of its output, and a form.
    """
    columns, powers = [], []
    for number, (_, form) in enumerate(parts):
        factors = [(np.ones(1), form.exponents[None], 1.0)]
        factors += [(b.coefficients, b.exponents, b.power) for b in form.brackets]
        for coefficients, exponents, power in factors:
            if exponents.any():
                columns.append((coefficients, exponents))
                powers.append((number, power))
    hidden = sums(inputs, columns, dtype)
    exponents = np.zeros((len(columns), len(parts)))
    for at, (number, power) in enumerate(powers):
        exponents[at, number] = power
    hidden = power_layer(hidden, exponents, dtype)
    constants = np.zeros((len(parts), outputs))
    for number, (output, form) in enumerate(parts):
        constants[number, output] = form.constant
    return dense(hidden, constants, np.zeros(outputs), dtype)


def sums(inputs, columns, dtype):
    """RealNPU and Dense: one sum of monomials for each (coefficients, exponents)."""
    exponents = np.concatenate([e for _, e in columns])
    exponents = np.unique(exponents[exponents.any(axis=1)], axis=0)
    if not len(exponents):
        exponents = np.zeros((1, inputs.shape[-1]))
    kernel = np.zeros((len(exponents), len(columns)))
    bias = np.zeros(len(columns))
    for at, (coefficients, powers) in enumerate(columns):
        for c, p in zip(coefficients, powers, strict=True):
            if p.any():
                kernel[(exponents == p).all(axis=1).argmax(), at] += c
            else:
                bias[at] += c
    identity = exponents.sum(axis=1) == 1
    identity &= (exponents == exponents.astype(bool)).all(axis=1)
    if identity.all():
        return dense(inputs, exponents.T @ kernel, bias, dtype)
    return dense(power_layer(inputs, exponents.T, dtype), kernel, bias, dtype)


def power_layer(inputs, kernel, dtype):
    """A RealNPU of these exponents, (in, units); unused inputs are gated out."""
    import keras_nalu

    layer = keras_nalu.RealNPU(kernel.shape[1], epsilon=1e-30, dtype=dtype)
    outputs = layer(inputs)
    layer.set_weights([kernel, kernel.any(axis=1).astype(float)])
    return outputs


def dense(inputs, kernel, bias, dtype):
    """A linear Dense of these weights."""
    import keras

    layer = keras.layers.Dense(kernel.shape[1], dtype=dtype)
    outputs = layer(inputs)
    layer.set_weights([kernel, bias])
    return outputs
