"""The notebook that this package began with, in its own TensorFlow 1.

    python tests/speed/notebook_tf1.py [EPOCHS] [FOLDER]

Its cells in their order, but that `train` yields the line instead of printing it.
"""

import sys
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

EPOCHS = 200
LEARNING_RATE = 1e-3
BATCH_SIZE = 10


def NALU(in_dim, out_dim):
    shape = (int(in_dim.shape[-1]), out_dim)
    epsilon = 1e-7
    W_hat = tf.Variable(tf.truncated_normal(shape, stddev=0.02))
    M_hat = tf.Variable(tf.truncated_normal(shape, stddev=0.02))
    G = tf.Variable(tf.truncated_normal(shape, stddev=0.02))
    W = tf.tanh(W_hat) * tf.sigmoid(M_hat)
    a = tf.matmul(in_dim, W)
    m = tf.exp(tf.matmul(tf.log(tf.abs(in_dim) + epsilon), W))
    g = tf.sigmoid(tf.matmul(in_dim, G))
    return g * a + (1 - g) * m


def generate_dataset(size=10000):
    X = np.random.randint(9, size=(size, 2))  # noqa: NPY002
    return X, np.prod(X, axis=1, keepdims=True)


def train(epochs=EPOCHS, folder=None):
    X_data, Y_data = generate_dataset()
    with tf.Graph().as_default():
        X = tf.placeholder(tf.float32, shape=[BATCH_SIZE, 2])
        Y_true = tf.placeholder(tf.float32, shape=[BATCH_SIZE, 1])
        Y_pred = NALU(X, 1)
        loss = tf.nn.l2_loss(Y_pred - Y_true)
        optimizer = tf.train.AdamOptimizer(LEARNING_RATE).minimize(loss)
        sess = tf.Session()
        if folder:
            tf.summary.FileWriter(folder, sess.graph).close()
        sess.run(tf.global_variables_initializer())
    for i in range(epochs):
        g = 0
        for j in range(0, len(X_data), BATCH_SIZE):
            xs, ys = X_data[j : j + BATCH_SIZE], Y_data[j : j + BATCH_SIZE]
            _, ys_pred, last = sess.run(
                [optimizer, Y_pred, loss], feed_dict={X: xs, Y_true: ys}
            )
            g += np.sum(np.isclose(ys, ys_pred, atol=1e-4, rtol=1e-4))
        yield f"epoch {i}, loss: {last}, accuracy: {g / len(Y_data)}"


if __name__ == "__main__":
    epochs = int(sys.argv[1]) if sys.argv[1:] else EPOCHS
    with tempfile.TemporaryDirectory() as folder:
        for line in train(epochs, folder):
            print(line, flush=True)
