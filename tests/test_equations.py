"""Against what the authors' own code computed, and against scalar loops."""

import functools
import inspect
import itertools
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_nalu.layers import LAYERS

BACKEND = keras.backend.backend()
REFERENCE = Path(__file__).parent / "reference"
#: The authors' module -> our layer.
FAMILIES = {
    "notebook_nac": "NAC",
    "nac": "NAC",
    "nac_mul": "NACMul",
    "notebook_nalu": "NALU",
    "nalu_tied": "NALU",
    "nalu_two_nac": "SeparateNALU",
    "gnalu": "GNALU",
    "inalu_torch": "INALU",
    "inalu_tf_indep": "INALU",
    "inalu_tf_shared": "SharedINALU",
    "nau": "NAU",
    "nmu": "NMU",
    "snmu_eval": "SNMU",
    "snmu_train": "SNMU",
    "npu": "NPU",
    "real_npu": "RealNPU",
    "nru": "NRU",
    "nmru": "NMRU",
    "mcfc": "MCFC",
    "mulmcfc": "MulMCFC",
}
#: Of whose code there are no vectors: the equations alone say what is right.
WITHOUT_VECTORS = {"NaiveNPU", "NSR"}
#: Of which there are vectors elsewhere and no layer here: gates of the iNALU's code
#: that its paper leaves out, a product of sigmoid weights, the forms of NMRU and NRU
#: that did worse, and signs for MulMCFC.
LEFT_OUT = {
    "inalu_tf_matrixgate",
    "inalu_tf_vectorgate",
    "mnac_sigmoid",
    "nmru_plain",
    "nmru_gated",
    "nru_sepsign",
    "mulmcfc_sign_inalu",
    "mulmcfc_sign_realnpu",
}
#: Weights out of range, in the mode without a constraint, whose forward pass clips.
CLIPPED = {"nmu_3", "nru_3", "nmru_3"}
#: More than one unit in the iNALU authors' code, which confuses the signs.
SCRAMBLED = {"inalu_tf_indep_4", "inalu_tf_shared_4"}
FILES = sorted(p.stem for p in REFERENCE.glob("*.npz") if "_seed" not in p.stem)
SANE = [file for file in FILES if file not in CLIPPED | SCRAMBLED]
EPS32 = np.finfo("float32").eps


# Scalar arithmetic that knows how exact it is.


class Number:
    """A float64, what a rounding of every operation may add up to, and its slopes.

    `error` is in units of the machine's epsilon: the magnitude of every intermediate
    result, times what it counts for in this one. No float32 result can be expected to
    be nearer to the exact one. `parents` are pairs of an operand and the slope of it.
    `peak` is the largest magnitude that led to it, its own among them.
    """

    made = itertools.count()

    def __init__(self, value, error=0.0, parents=()):
        self.value, self.error, self.parents = float(value), float(error), parents
        self.peak = max([abs(self.value), *(parent.peak for parent, _ in parents)])
        self.place = next(self.made)

    def __add__(self, other):
        other = number(other)
        value = self.value + other.value
        error = self.error + other.error + abs(value)
        return Number(value, error, ((self, ONE), (other, ONE)))

    def __mul__(self, other):
        other = number(other)
        value = self.value * other.value
        error = abs(self.value) * other.error + abs(other.value) * self.error
        return Number(value, error + abs(value), ((self, other), (other, self)))

    def __neg__(self):
        return Number(-self.value, self.error, ((self, -1.0),))

    def __sub__(self, other):
        return self + -number(other)

    def __rsub__(self, other):
        return number(other) + -self

    def __truediv__(self, other):
        return self * reciprocal(number(other))

    def __abs__(self):
        return self * sign(self)

    __radd__, __rmul__ = __add__, __mul__


def number(value):
    return value if isinstance(value, Number) else Number(value)


def rounded(value):
    """What has to be rounded before all else: a datum, pi, an epsilon."""
    return Number(value, abs(value))


ONE = Number(1)


def function(z, value, slope, of=None):
    """A value whose slope is a number, or is one of the result."""
    result = Number(value, abs(value if of is None else of))
    of_result = slope if callable(slope) else lambda _: slope
    result.error += abs(number(of_result(result)).value) * z.error
    # With all of the result's error, which is that of its slope, too.
    result.parents = ((z, of_result(result)),)
    result.peak = max(result.peak, z.peak)
    return result


def reciprocal(z):
    return function(z, 1 / z.value, lambda y: -(y * y))


def exp(z):
    return function(z, float(np.exp(z.value)), lambda y: y)


def log(z):
    return function(z, math.log(z.value), reciprocal(z))


def power(r, w):
    y = exp(w * log(r))
    return Number(y.value, y.error, ((r, w * y * reciprocal(r)), (w, y * log(r))))


def tanh(z):
    return function(z, math.tanh(z.value), lambda y: 1 - y * y)


def sigmoid(z):
    return function(z, float(1 / (1 + np.exp(-z.value))), lambda y: y * (1 - y))


def cos(z):
    # Near its zeros it is as wrong as elsewhere.
    slope = function(z, -math.sin(z.value), 0.0, of=1)
    slope.error += z.error
    return function(z, math.cos(z.value), slope, of=1)


def sign(z):
    return float(np.sign(z.value))


def negative(z):
    return float(z.value < 0)


def clip(z, low, high, through=False):
    inside = low <= z.value <= high or through
    value = min(max(z.value, low), high)
    return Number(value, z.error, ((z, float(inside)),))


# The equations, for one row of inputs and one unit.


def nac_weight(W_hat, M_hat):
    return tanh(W_hat) * sigmoid(M_hat)


def softmax(w, i):
    return exp(w[i]) / sum(map(exp, w))


def nac(x, o, W_hat, M_hat):
    return sum(x[i] * nac_weight(W_hat[i, o], M_hat[i, o]) for i in range(len(x)))


def nac_mul(x, o, W_hat, M_hat, epsilon):
    logs = [log(abs(x_i) + rounded(epsilon)) for x_i in x]
    return exp(nac(logs, o, W_hat, M_hat))


def nalu(x, o, W_hat, M_hat, G, epsilon):
    return separate_nalu(x, o, W_hat, M_hat, W_hat, M_hat, G, epsilon)


def separate_nalu(x, o, W_hat_add, M_hat_add, W_hat_mul, M_hat_mul, G, epsilon):
    a = nac(x, o, W_hat_add, M_hat_add)
    m = nac_mul(x, o, W_hat_mul, M_hat_mul, epsilon)
    g = sigmoid(sum(x[i] * G[i, o] for i in range(len(x))))
    return g * a + (1 - g) * m


def gnalu(x, o, W_hat, M_hat, G, epsilon):
    ln_phi = rounded(math.log((1 + math.sqrt(5)) / 2))
    return nalu(x, o, W_hat * ln_phi, M_hat * ln_phi, G * ln_phi, epsilon)


def inalu(x, o, W_a_hat, M_a_hat, W_m_hat, M_m_hat, g, epsilon, omega, scrambled=False):
    (features, units), inputs = W_m_hat.shape, range(len(x))
    a = nac(x, o, W_a_hat, M_a_hat)
    logs = [log(clip(abs(x_i), epsilon, np.inf)) for x_i in x]
    m = exp(clip(nac(logs, o, W_m_hat, M_m_hat), -np.inf, omega))
    if scrambled:
        places = [divmod(o * features + i, units) for i in inputs]
    else:
        places = [(i, o) for i in inputs]
    W_m = [abs(nac_weight(W_m_hat[place], M_m_hat[place])) for place in places]
    s = math.prod(sign(x[i]) * W_m[i] + (1 - W_m[i]) for i in inputs)
    gate = sigmoid(g[o])
    return gate * a + (1 - gate) * m * s


def shared_inalu(x, o, W_hat, M_hat, g, epsilon, omega, scrambled=False):
    return inalu(x, o, W_hat, M_hat, W_hat, M_hat, g, epsilon, omega, scrambled)


def nau(x, o, W):
    return sum(x[i] * clip(W[i, o], -1, 1) for i in range(len(x)))


def product(factors):
    """In any order: its peak is that of the worst."""
    y = math.prod(factors)
    y.peak = max(y.peak, math.prod(max(1.0, abs(z.value)) for z in factors))
    return y


def nmu(x, o, W):
    return product([W[i, o] * x[i] + (1 - W[i, o]) for i in range(len(x))])


def snmu(x, o, W, noise=None):
    if noise is None:
        return nmu(x, o, W)
    return nmu(x * noise, o, W) / nmu(noise, o, W)


def naive_npu(x, o, W_re, W_im, epsilon):
    return npu(x, o, W_re, W_im, [ONE] * len(x), epsilon)


def npu(x, o, W_re, W_im, g, epsilon):
    size, turn = number(0), number(0)
    for i in range(len(x)):
        c = clip(g[i], 0, 1, through=True)
        log_r = log(c * (abs(x[i]) + rounded(epsilon)) + (1 - c))
        k = rounded(np.pi) * c * negative(x[i])
        size += log_r * W_re[i, o] - k * W_im[i, o]
        turn += k * W_re[i, o] + log_r * W_im[i, o]
    return exp(size) * cos(turn)


def real_npu(x, o, W_re, g, epsilon):
    return npu(x, o, W_re, 0 * W_re, g, epsilon)


def nru(x, o, W, training):
    y = number(1)
    for i in range(len(x)):
        t = tanh(1000 * W[i, o])
        A = t * t if training else abs(W[i, o])
        y *= sign(x[i]) * power(abs(x[i]), W[i, o]) * A + (1 - A)
    return y


def nmru(x, o, W, epsilon, training):
    z = [*x, *(reciprocal(x_i + rounded(epsilon) if training else x_i) for x_i in x)]
    y, turn = number(1), number(0)
    for i in range(len(z)):
        y *= W[i, o] * abs(z[i]) + (1 - W[i, o])
        turn += W[i, o] * negative(z[i])
    return y * cos(rounded(np.pi) * turn)


def mcfc(x, o, r, gate_w, gate_b):
    gate = sigmoid(gate_w[o] + gate_b[o])
    return sum(x[i] * (gate * softmax(r[i], o)) for i in range(len(x)))


def mul_mcfc(x, o, r, gate_w, gate_b, bias):
    return exp(mcfc([log(x_i) for x_i in x], o, r, gate_w, gate_b) + bias[o])


def nsr(x, o, V_1, V_2, W_s, W_0, b, scale):
    (redundancy, units), inputs = W_s.shape, range(len(x))
    z = b[o]
    for n in range(redundancy):
        v_1, v_2 = V_1[:, n * units + o], V_2[:, n * units + o]
        left = sum(x[i] * softmax(v_1, i) for i in inputs)
        right = sum(x[i] * softmax(v_2, i) for i in inputs)
        t = tanh(rounded(scale) * (left - right))
        z += t * W_s[n, o] + (1 - 2 * (t * t)) * W_0[n, o]
    return sigmoid(z)


LOOPS = {
    "NAC": nac,
    "NACMul": nac_mul,
    "NALU": nalu,
    "SeparateNALU": separate_nalu,
    "GNALU": gnalu,
    "INALU": inalu,
    "SharedINALU": shared_inalu,
    "NAU": nau,
    "NMU": nmu,
    "SNMU": snmu,
    "NaiveNPU": naive_npu,
    "NPU": npu,
    "RealNPU": real_npu,
    "NRU": nru,
    "NMRU": nmru,
    "MCFC": mcfc,
    "MulMCFC": mul_mcfc,
    "NSR": nsr,
}


def numbers(array):
    array = np.asarray(array, "float64")
    return np.vectorize(rounded, otypes=[object])(array)


def evaluate(loop, x, c, weights, noise=None, **options):
    """`y` and the gradients of `sum(c * y)` by name, as pairs of values and errors."""
    x, c = numbers(x), numbers(c)
    weights = {name: numbers(value) for name, value in weights.items()}
    y = np.empty(c.shape, object)
    for b, o in np.ndindex(c.shape):
        if noise is not None:
            options["noise"] = numbers(noise[b])
        y[b, o] = loop(x[b], o, **weights, **options)
    slopes = gradients(y.ravel(), c.ravel())
    found = {"y": y} | {
        name: np.vectorize(lambda z: slopes.get(z, number(0)), otypes=[object])(leaf)
        for name, leaf in {"x": x, **weights}.items()
    }
    return {
        name: [np.vectorize(lambda z, k=k: getattr(z, k))(array) for k in PAIR]
        for name, array in found.items()
    }


PAIR = "value", "error"


def gradients(outputs, seeds):
    """Of `sum(seeds * outputs)`, towards everything that went into it."""
    nodes, todo = {}, list(outputs)
    while todo:
        node = todo.pop()
        if node.place not in nodes:
            nodes[node.place] = node
            todo += [parent for parent, _ in node.parents]
    slopes = dict(zip(outputs, seeds, strict=True))
    for place in sorted(nodes, reverse=True):
        node = nodes[place]
        for parent, slope in node.parents:
            more = slopes[node] * slope
            slopes[parent] = slopes[parent] + more if parent in slopes else more
    return slopes


# The vectors.


@functools.cache
def vectors(file):
    with np.load(REFERENCE / f"{file}.npz") as z:
        data = {name: z[name] for name in z.files}
    meta = json.loads(str(data["meta"]))
    # The authors' own code, and not the PyTorch ports, lets it through the clip.
    data["d_g"] = data.get("d_g_straight_through", data.get("d_g"))
    return data, meta


def has(name, option):
    return option in inspect.signature(LAYERS[name]).parameters


@functools.cache
def looped(file, **more):
    data, meta = vectors(file)
    name = FAMILIES[meta["module"]]
    loop = LOOPS[name]
    given = {
        "epsilon": meta.get("eps"),
        "omega": 20.0,
        "training": meta.get("training", True),
    }
    named = inspect.signature(loop).parameters
    given = {option: given[option] for option in given if option in named}
    weights = {name: data[name] for name in meta["params"]}
    noise = data.get("noise")
    return evaluate(loop, data["x"], data["c"], weights, noise, **given, **more)


class Trained(keras.Layer):
    """A layer, called in training or not."""

    def __init__(self, layer, training):
        super().__init__(dtype=layer.dtype_policy)
        self.layer, self.training = layer, training
        self.built = True

    def call(self, x):
        return self.layer(x, training=self.training)


def built(file, dtype):
    data, meta = vectors(file)
    name = FAMILIES[meta["module"]]
    given = has(name, "epsilon") and meta["eps"]
    layer = LAYERS[name](
        data["y"].shape[-1], dtype=dtype, **({"epsilon": meta["eps"]} if given else {})
    )
    layer.build(data["x"].shape)
    for variable in layer.trainable_variables:
        variable.assign(data[variable.name])
    if "noise" in data:
        layer.noise = lambda x: layer.cast(data["noise"])
    return Trained(layer, meta.get("training", True))


def test_every_vector_is_used():
    assert {vectors(file)[1]["module"] for file in FILES} == set(FAMILIES)
    assert {*FAMILIES.values(), *WITHOUT_VECTORS} == set(LAYERS) == set(LOOPS)
    assert len(FILES) == 96
    assert len(SANE) == 91
    assert not LEFT_OUT & {*FAMILIES}


def test_vectors_that_are_left_out_clip_what_no_constraint_has_kept():
    for file in CLIPPED:
        data, meta = vectors(file)
        assert meta["opts"]["nac_oob"] == "regualized"
        assert meta["weights"] == "oob"
        y, _ = looped(file)["y"]
        assert np.abs(y - data["y"]).max() > 0.1


def assert_near(value, expected, bound, name):
    error = np.abs(value - expected) / (1 + np.abs(expected))
    assert error.max() < bound, f"{name}: {error.max()}"


def expected_of(data, name):
    return data["y" if name == "y" else f"d_{name}"]


@pytest.mark.parametrize("file", SANE)
def test_loops_are_what_the_authors_compute(file):
    data, meta = vectors(file)
    bound = 1e-10 if meta["dtype"] == "float64" else 1e-5
    for name, (value, _) in looped(file).items():
        assert_near(value, expected_of(data, name), bound, name)


@pytest.mark.only("tensorflow", reason="keeps no float64")
@pytest.mark.parametrize("file", [f for f in SANE if not f.endswith("_f32")])
def test_float64(file, differentiate):
    data, _ = vectors(file)
    y, gradients = differentiate(built(file, "float64"), data["x"], data["c"])
    assert y.dtype == "float64"
    for name, value in {"y": np.array(y), **gradients}.items():
        assert_near(value, expected_of(data, name), 1e-10, name)


@pytest.mark.parametrize("file", SANE)
def test_float32(file, differentiate):
    """Within the error of float32 arithmetic; the worst measured is half of it."""
    data, _ = vectors(file)
    x, c = np.float32(data["x"]), np.float32(data["c"])
    y, gradients = differentiate(built(file, "float32"), x, c)
    for name, value in {"y": keras.ops.convert_to_numpy(y), **gradients}.items():
        _, error = looped(file)[name]
        difference = np.abs(value - expected_of(data, name))
        assert (difference <= EPS32 * error).all(), name


@pytest.mark.parametrize("file", sorted(SCRAMBLED))
def test_signs_of_the_inalu_authors_are_of_other_weights(file, differentiate):
    data, meta = vectors(file)
    assert meta["sign_scrambled"]
    for name, (value, _) in looped(file, scrambled=True).items():
        assert_near(value, expected_of(data, name), 1e-10, name)
    x, c = np.float32(data["x"]), np.float32(data["c"])
    y, _ = differentiate(built(file, "float32"), x, c)
    value, error = looped(file)["y"]
    difference = keras.ops.convert_to_numpy(y) - value
    assert (np.abs(difference) <= EPS32 * error).all()
    assert np.abs(value - data["y"]).max() > 0.01


# Layers with and without vectors, on inputs of all sizes.

TRAINING = [(name, False) for name in LAYERS] + [("NRU", True), ("NMRU", True)]
each_form = pytest.mark.parametrize(("name", "training"), TRAINING)


def draw(name, seed=0, rows=12, **options):
    """A layer of three units with weights, and inputs from its domain."""
    rng = np.random.default_rng(seed)
    x = rng.choice([-1, 1], (rows, 4)) * 10 ** rng.uniform(-3, 1, (rows, 4))
    if name == "MulMCFC":
        x = np.abs(x)
    elif name not in ("NRU", "NMRU"):
        x[0], x[1, 2:] = 0, 0
    layer = LAYERS[name](3, **options)
    layer.build(x.shape)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return layer, x


def options_of(layer, training=False):
    """What the scalar loop of a layer takes beside its weights."""
    given = {**vars(layer), "training": training}
    named = inspect.signature(LOOPS[type(layer).__name__]).parameters
    names = ("training", "epsilon", "omega", "scale")
    return {name: given[name] for name in names if name in named}


def looped_layer(layer, x, c, training=False):
    loop = LOOPS[type(layer).__name__]
    weights = {v.name: np.array(v) for v in layer.trainable_variables}
    return evaluate(loop, x, c, weights, **options_of(layer, training))


@each_form
def test_against_scalar_loops(name, training, differentiate):
    layer, x = draw(name)
    c = np.random.default_rng(1).normal(size=(len(x), 3))
    expected = looped_layer(layer, x, c, training)
    y, gradients = differentiate(Trained(layer, training), np.float32(x), np.float32(c))
    for name, got in {"y": keras.ops.convert_to_numpy(y), **gradients}.items():
        value, error = expected[name]
        assert (np.abs(got - value) <= EPS32 * error).all(), name


@pytest.mark.only("tensorflow", reason="keeps no float64")
@each_form
def test_against_scalar_loops_in_float64(name, training, differentiate):
    layer, x = draw(name, dtype="float64")
    c = np.random.default_rng(1).normal(size=(len(x), 3))
    expected = looped_layer(layer, x, c, training)
    y, gradients = differentiate(Trained(layer, training), x, c)
    for name, got in {"y": y, **gradients}.items():
        assert_near(got, expected[name][0], 1e-10, name)


@pytest.mark.parametrize(
    ("policy", "eps"), [("mixed_float16", 2**-10), ("mixed_bfloat16", 2**-7)]
)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.slow
def test_half_precision_against_scalar_loops(name, policy, eps):
    """Most is done in float32: the worst measured is an eighth of it."""
    layer, x = draw(name, dtype=policy)
    x = np.sign(x + 1e-9) * np.sqrt(np.abs(x) + 0.1)  # In the range of float16.
    value, error = looped_layer(layer, x, np.ones((len(x), 3)))["y"]
    y = layer(x.astype("float32"))
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    y = numpy(keras.ops.cast(y, "float32"))
    assert (np.abs(y - value) <= eps / 4 * error).all()


def test_naive_npu_is_an_npu_whose_inputs_all_matter(differentiate):
    naive, x = draw("NaiveNPU")
    layer = LAYERS["NPU"](3)
    layer.build(x.shape)
    layer.set_weights([*naive.get_weights(), np.ones(4)])
    c = np.ones((len(x), 3), "float32")
    y, gradients = differentiate(naive, np.float32(x), c)
    other_y, others = differentiate(layer, np.float32(x), c)
    np.testing.assert_allclose(numpy(y), numpy(other_y), rtol=1e-5)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, others[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("redundancy", [1, 3])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_registers_of_nsr(redundancy, scale, differentiate):
    layer, x = draw("NSR", rows=6, redundancy=redundancy, scale=scale)
    assert layer.V_1.shape == (4, 3 * redundancy)
    c = np.ones((len(x), 3), "float32")
    expected = looped_layer(layer, x, c)
    y, gradients = differentiate(layer, np.float32(x), c)
    for name, got in {"y": numpy(y), **gradients}.items():
        value, error = expected[name]
        assert (np.abs(got - value) <= EPS32 * error).all(), name


# What a second implementation gets wrong.


def numpy(y):
    return keras.ops.convert_to_numpy(y)


def layer_of(name, *weights, **options):
    """One layer with these weights, a float32 array each."""
    weights = [np.array(w, "float32") for w in weights]
    layer = LAYERS[name](weights[0].shape[-1], **options)
    layer.build((None, FEATURES.get(name, len)(weights[0])))
    for variable, value in zip(layer.trainable_variables, weights, strict=True):
        variable.assign(value)
    return layer


FEATURES = {"NMRU": lambda W: len(W) // 2}


def slopes(layer, x, differentiate, training=False):
    """`y` and the gradients of its sum."""
    x = np.array(x, "float32")
    c = np.ones((len(x), layer.units), "float32")
    y, gradients = differentiate(Trained(layer, training), x, c)
    return numpy(y), gradients


@pytest.mark.only("jax", reason="cannot be told by the product")
@pytest.mark.parametrize("cls", LAYERS.values())
def test_no_matrix_product_is_rounded_by_a_gpu(cls):
    import jax

    layer = cls(2)
    layer.build((None, 3))

    def total(weights, x):
        y, _ = layer.stateless_call(weights, layer.non_trainable_variables, x)
        return y.sum()

    weights = [variable.value for variable in layer.trainable_variables]
    jaxpr = str(jax.make_jaxpr(jax.grad(total, (0, 1)))(weights, np.ones((4, 3))))
    products = jaxpr.count("dot_general[")
    assert jaxpr.count("precision=(Precision.HIGHEST,") == products
    assert bool(products) == (cls.__name__ not in {"NMU", "SNMU", "NRU"})


@pytest.mark.parametrize("name", ["NACMul", "NPU", "RealNPU", "NaiveNPU"])
def test_slope_of_the_magnitude_is_zero_at_zero(name, differentiate):
    layer, _ = draw(name)
    _, gradients = slopes(layer, np.zeros((1, 4)), differentiate)
    assert (gradients["x"] == 0).all()


@pytest.mark.parametrize("name", ["INALU", "SharedINALU"])
def test_slope_of_the_sign_is_zero(name, differentiate):
    layer, _ = draw(name)
    layer.g.assign(np.full(3, -1e9))  # The product alone.
    _, gradients = slopes(layer, np.zeros((1, 4)), differentiate)
    assert (gradients["x"] == 0).all()
    # A sign of 0 leaves 1 - |W|, which is not the sign of anything.
    kernel = numpy(layer.kernels["kernel" if "Shared" in name else "kernel_mul"])
    y = numpy(layer(np.zeros((1, 4), "float32")))[0]
    m = np.exp(np.minimum(np.log(1e-7) * kernel.sum(0), 20))
    np.testing.assert_allclose(y, m * np.prod(1 - np.abs(kernel), axis=0), rtol=1e-5)


def test_nau_lets_the_gradient_through_at_its_bounds(differentiate):
    layer = layer_of("NAU", [[-1], [1], [1.5], [-1.5], [0.5]])
    y, gradients = slopes(layer, [[2, 3, 5, 7, 11]], differentiate)
    assert y == -2 + 3 + 5 - 7 + 5.5
    np.testing.assert_array_equal(gradients["W"][:, 0], [2, 3, 0, 0, 11])


@pytest.mark.parametrize("name", ["NMU", "SNMU", "NRU", "NMRU"])
def test_what_a_constraint_keeps_is_not_clipped_in_the_forward_pass(name):
    weights = {"NMRU": [[3.0], [0.0]], "NRU": [[2.0]]}.get(name, [[3.0]])
    y = numpy(layer_of(name, weights)(np.array([[5.0]], "float32")))
    assert y == pytest.approx(49 if name == "NRU" else 13, rel=1e-6)


def test_inalu_has_the_greater_of_magnitude_and_epsilon():
    layer = layer_of("INALU", *[[[9.0]]] * 4, [-99.0], epsilon=0.5)
    x = np.array([[1.0], [0.5], [0.25], [-2]], "float32")
    W = np.tanh(9) / (1 + np.exp(-9))
    y = numpy(layer(x))[:, 0]
    np.testing.assert_allclose(y[:3], [1, 0.5**W, 0.5**W], rtol=1e-6)
    np.testing.assert_allclose(y[3], -(2**W) * (2 * W - 1), rtol=1e-6)


def test_inalu_bounds_its_products():
    layer = layer_of("INALU", *[[[9.0], [9.0]]] * 4, [-99.0])
    y = numpy(layer(np.full((1, 2), 1e9, "float32")))
    np.testing.assert_allclose(y, np.exp(20), rtol=1e-5)


@pytest.mark.parametrize("W_hat", [92, 200, 1e4, -200])
def test_golden_ratio_of_large_weights(W_hat, differentiate):
    layer = layer_of("GNALU", [[W_hat]], [[W_hat]], [[0.1]])
    y, gradients = slopes(layer, [[2.0]], differentiate)
    assert np.isfinite(y).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert numpy(layer.kernel) == pytest.approx(1 if W_hat > 0 else 0, abs=1e-6)


def test_golden_ratio_is_that_of_powers_of_phi():
    phi = (1 + np.sqrt(5)) / 2
    layer, x = draw("GNALU")
    W_hat, M_hat, G = map(np.float64, layer.get_weights())
    W = (phi ** (2 * W_hat) - 1) / (phi ** (2 * W_hat) + 1) / (1 + phi**-M_hat)
    m = phi ** (np.log(np.abs(x) + 1e-7) @ W / np.log(phi))
    g = 1 / (1 + phi ** -(x @ G))
    y = numpy(layer(np.float32(x)))
    np.testing.assert_allclose(y, g * (x @ W) + (1 - g) * m, rtol=1e-4, atol=1e-5)


def test_nmru_does_not_know_the_sign_of_its_epsilon():
    divides = layer_of("NMRU", [[0], [1]])
    x = np.array([[-5e-8], [5e-8], [0]], "float32")
    eps = 2.0**-23
    y = numpy(divides(x, training=True))[:, 0]
    np.testing.assert_allclose(y, 1 / (np.float64(x[:, 0]) + eps), rtol=1e-5)
    assert y[0] > 0
    assert numpy(divides(x[:1])) == pytest.approx(-2e7)
    # The authors' are infinite.
    most = pytest.approx(1 / np.finfo("float32").tiny)
    assert numpy(divides(x[2:])) == most
    assert numpy(divides(np.array([[-eps]], "float32"), training=True)) == most


def test_turn_of_nmru_is_that_of_its_weights():
    layer = layer_of("NMRU", [[0.5, 1, 1.5, 2, 0.25], [0] * 5])
    y = numpy(layer(np.full((1, 1), -3, "float32")))[0]
    np.testing.assert_allclose(y, [0, -3, 0, 5, 1.5 * np.sqrt(0.5)], atol=1e-5)


def test_gate_of_nru_is_open_in_training():
    W = [[0.5, -0.5, 0.0, 0.001]]
    layer, x = layer_of("NRU", W), np.full((1, 1), 4, "float32")
    A = np.tanh([500, 500, 0, 1]) ** 2
    powers = 4 ** np.array(W[0])
    trained, told = numpy(layer(x, training=True))[0], numpy(layer(x))[0]
    np.testing.assert_allclose(trained, powers * A + 1 - A, rtol=1e-6)
    A = np.abs(W[0])
    np.testing.assert_allclose(told, powers * A + 1 - A, rtol=1e-6)
    assert np.abs(trained - told).max() > 0.4


def test_noise_cancels_for_discrete_weights_alone():
    layer = layer_of("SNMU", [[1, 0, 0.5], [0, 0, 1], [1, 0, 0.5]], seed=0)
    x = np.array([[2, 3, -5], [-7, 11, 0.5]], "float32")
    given = x.copy()
    noisy, told = numpy(layer(x, training=True)), numpy(layer(x))
    np.testing.assert_array_equal(x, given)
    np.testing.assert_allclose(noisy[:, :2], told[:, :2], rtol=1e-5)
    assert (np.abs(noisy[:, 2] / told[:, 2] - 1) > 1e-3).all()
    assert (numpy(layer(x, training=True)) != noisy).any()


@pytest.mark.parametrize("noise_range", [(1, 5), (0.1, 0.5), "batch"])
def test_noise_is_uniform_in_its_range(noise_range):
    layer = layer_of("SNMU", [[1.0]], noise_range=noise_range)
    x = np.random.default_rng(0).normal(0, 2, (5000, 1)).astype("float32")
    high = 1 + 1 / np.std(x, ddof=1)
    low, high = (1, high) if noise_range == "batch" else noise_range
    n = (numpy(layer.noise(keras.ops.convert_to_tensor(x))) - low) / (high - low)
    assert n.shape == x.shape
    assert 0 <= n.min() < 0.002
    assert 0.998 < n.max() < 1 + 1e-5
    assert n.mean() == pytest.approx(0.5, abs=0.02)
    assert n.std() == pytest.approx(1 / np.sqrt(12), abs=0.01)


def test_noise_of_a_small_batch():
    """Its deviation is divided by one less than there are entries."""
    x = np.array([[1], [3]], "float32")
    unit = layer_of("SNMU", [[1.0]], noise_range=(0, 1), seed=0)
    layer = layer_of("SNMU", [[1.0]], noise_range="batch", seed=0)
    share, n = (numpy(each.noise(each.cast(x))) for each in (unit, layer))
    np.testing.assert_allclose(n, 1 + share / np.std([1, 3], ddof=1), rtol=1e-6)


@pytest.mark.parametrize("name", ["NMU", "SNMU"])
def test_gradient_of_a_product_with_zeros(name, differentiate):
    layer = layer_of(name, [[1], [1], [1]])
    y, gradients = slopes(layer, [[0, 3, 5], [0, 0, 7], [0, 0, 0]], differentiate)
    np.testing.assert_array_equal(y[:, 0], [0, 0, 0])
    np.testing.assert_array_equal(gradients["x"], [[15, 0, 0], [0, 0, 0], [0, 0, 0]])
    # (0 - 1) 3 * 5; of the factors of a row without others.
    np.testing.assert_array_equal(gradients["W"][:, 0], [-15, 0, 0])


def test_nmu_product_of_a_factor_that_is_zero(differentiate):
    layer = layer_of("NMU", [[0.5], [0.5]])
    y, gradients = slopes(layer, [[-1, 3]], differentiate)
    assert y == 0
    np.testing.assert_array_equal(gradients["x"], [[1, 0]])
    np.testing.assert_array_equal(gradients["W"], [[-4], [0]])


@pytest.mark.parametrize("name", ["MCFC", "MulMCFC"])
def test_mass_for_a_single_unit(name, differentiate):
    more = [[0.3]] if name == "MulMCFC" else []
    layer = layer_of(name, [[0.7], [-3]], [0.4], [0.1], *more)
    y, gradients = slopes(layer, [[2, 3]], differentiate)
    o = 1 / (1 + np.exp(-0.5))
    expected = 5 * o if name == "MCFC" else np.exp(np.log(6) * o + 0.3)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients["r"], 0, atol=1e-6)
    assert (np.abs(gradients["gate_w"]) > 0.1).all()


@pytest.mark.parametrize("name", ["MCFC", "MulMCFC"])
def test_mass_is_conserved(name):
    layer, _ = draw(name)
    layer.gate_w.assign(np.full(3, 99.0))
    np.testing.assert_allclose(numpy(layer.kernel).sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["NPU", "RealNPU"])
def test_relevance_lets_the_gradient_through(name, differentiate):
    im = [[[0], [0]]] if name == "NPU" else []
    clipped = layer_of(name, [[1], [1]], *im, [-2, 3])
    inside = layer_of(name, [[1], [1]], *im, [0, 1])
    y, gradients = slopes(clipped, [[3, 5]], differentiate)
    other_y, others = slopes(inside, [[3, 5]], differentiate)
    np.testing.assert_allclose(y, 5, rtol=1e-6)
    np.testing.assert_array_equal(y, other_y)
    np.testing.assert_array_equal(gradients["g"], others["g"])
    np.testing.assert_allclose(gradients["g"], [10, 4], rtol=1e-5)


# What the authors' code does after a step of the optimizer.

OPTIMIZED = [f for f in FILES if any(k.startswith("after") for k in vectors(f)[0])]


def test_there_are_weights_after_a_step():
    assert OPTIMIZED == ["nau_4", "nmu_4"]


@pytest.mark.parametrize("file", OPTIMIZED)
def test_constraint_is_that_of_the_authors(file):
    layer = built(file, "float32").layer
    data, _ = vectors(file)
    for variable in layer.trainable_variables:
        expected = np.float32(data[f"after_optimize_{variable.name}"])
        assert (expected != numpy(variable)).any()
        np.testing.assert_array_equal(numpy(variable.constraint(variable)), expected)


# Where numbers end.


@pytest.mark.parametrize("epsilon", [1e-7, 1e-3, 0.5])
def test_epsilon_is_added_to_the_magnitude(epsilon):
    layer, x = draw("NALU", epsilon=epsilon)
    value, error = looped_layer(layer, x, np.ones((len(x), 3)))["y"]
    assert (np.abs(numpy(layer(np.float32(x))) - value) <= EPS32 * error).all()


HUGE = np.array([[1e20, 1e20], [3e38, 3e38], [3e38, 1.0]], "float32")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((20, 20), [2e20, np.inf, 3e38]),
        ((-20, 20), [-2e20, -np.inf, -3e38]),
    ],
)
def test_nac_overflows_to_infinity(weights, expected):
    layer = LAYERS["NAC"](1)
    layer.build((None, 2))
    layer.set_weights([np.full((2, 1), w) for w in weights])
    y = keras.ops.convert_to_numpy(layer(HUGE))[:, 0]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # The gate is closed on a path that overflows: 0 * inf, as the docstring says.
        ((20, 20, 20), [np.nan, np.nan, 3e38]),
        ((20, 20, -20), [np.inf, np.nan, 3e38]),
        # Half open: both paths count.
        ((20, 20, 0), [np.inf, np.inf, 3e38]),
        ((-20, 20, 0), [-1e20, -np.inf, -1.5e38]),
    ],
)
def test_nalu_where_a_path_overflows(weights, expected):
    layer = LAYERS["NALU"](1)
    layer.build((None, 2))
    layer.set_weights([np.full((2, 1), w) for w in weights])
    y = keras.ops.convert_to_numpy(layer(HUGE))[:, 0]
    np.testing.assert_allclose(y, expected, rtol=1e-4)
    assert "NaN" in LAYERS["NALU"].__doc__
