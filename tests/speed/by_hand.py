"""Every layer's mathematics as one would write it down for one model, of rank 2.

`keras.ops` only names the functions of the backend.
"""

import math

from keras import ops

LN_PHI = math.log((1 + math.sqrt(5)) / 2)


def nac(x, W_hat, M_hat):
    return ops.matmul(x, ops.tanh(W_hat) * ops.sigmoid(M_hat))


def nac_mul(x, W_hat, M_hat):
    W = ops.tanh(W_hat) * ops.sigmoid(M_hat)
    return ops.exp(ops.matmul(ops.log(ops.abs(x) + 1e-7), W))


def nalu(x, W_hat, M_hat, G):
    return separate_nalu(x, W_hat, M_hat, W_hat, M_hat, G)


def separate_nalu(x, W_hat_add, M_hat_add, W_hat_mul, M_hat_mul, G):
    g = ops.sigmoid(ops.matmul(x, G))
    a = nac(x, W_hat_add, M_hat_add)
    return g * a + (1 - g) * nac_mul(x, W_hat_mul, M_hat_mul)


def gnalu(x, W_hat, M_hat, G):
    return nalu(x, LN_PHI * W_hat, LN_PHI * M_hat, LN_PHI * G)


def inalu(x, W_a_hat, M_a_hat, W_m_hat, M_m_hat, g):
    W_m = ops.tanh(W_m_hat) * ops.sigmoid(M_m_hat)
    log = ops.log(ops.maximum(ops.abs(x), 1e-7))
    m = ops.exp(ops.minimum(ops.matmul(log, W_m), 20.0))
    A = ops.abs(W_m)
    s = ops.prod(ops.sign(x)[:, :, None] * A + 1 - A, axis=1)
    g = ops.sigmoid(g)
    return g * nac(x, W_a_hat, M_a_hat) + (1 - g) * m * s


def shared_inalu(x, W_hat, M_hat, g):
    return inalu(x, W_hat, M_hat, W_hat, M_hat, g)


def nau(x, W):
    return ops.matmul(x, ops.clip(W, -1, 1))


def nmu(x, W):
    return ops.prod(x[:, :, None] * W + 1 - W, axis=1)


def snmu(x, W, noise):
    return nmu(x * noise, W) / nmu(noise, W)


def naive_npu(x, W_re, W_im):
    return npu(x, W_re, W_im, ops.ones(x.shape[-1]))


def npu(x, W_re, W_im, g):
    g = ops.clip(g, 0, 1)
    log_r = ops.log(g * (ops.abs(x) + 2**-23) + 1 - g)
    k = math.pi * g * ops.cast(x < 0, "float32")
    turn = ops.matmul(k, W_re) + ops.matmul(log_r, W_im)
    return ops.exp(ops.matmul(log_r, W_re) - ops.matmul(k, W_im)) * ops.cos(turn)


def real_npu(x, W_re, g):
    g = ops.clip(g, 0, 1)
    log_r = ops.log(g * (ops.abs(x) + 2**-23) + 1 - g)
    k = math.pi * g * ops.cast(x < 0, "float32")
    return ops.exp(ops.matmul(log_r, W_re)) * ops.cos(ops.matmul(k, W_re))


def nru(x, W):
    A = ops.square(ops.tanh(1000 * W))
    powers = ops.sign(x)[:, :, None] * ops.power(ops.abs(x)[:, :, None], W)
    return ops.prod(powers * A + 1 - A, axis=1)


def nmru(x, W):
    z = ops.concatenate([x, 1 / (x + 2**-23)], -1)
    turn = math.pi * ops.matmul(ops.cast(z < 0, "float32"), W)
    return nmu(ops.abs(z), W) * ops.cos(turn)


def mcfc(x, r, gate_w, gate_b):
    J = ops.exp(r - ops.logsumexp(r, axis=-1, keepdims=True))
    return ops.sigmoid(gate_w + gate_b) * ops.matmul(x, J)


def mul_mcfc(x, r, gate_w, gate_b, bias):
    return ops.exp(mcfc(ops.log(x), r, gate_w, gate_b) + bias)


def nsr(x, V_1, V_2, W_s, W_0, b):
    def softmax(V):
        return ops.exp(V - ops.logsumexp(V, axis=0, keepdims=True))

    d = ops.matmul(x, softmax(V_1)) - ops.matmul(x, softmax(V_2))
    sign = ops.tanh(d)
    return ops.sigmoid(b + sign * W_s + (1 - 2 * sign * sign) * W_0)


LAYERS = {
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
