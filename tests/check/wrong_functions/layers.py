"""ReLU, linear, softmax, losses, batch norm, im2col with one mistake each, as learners write them."""

import numpy as np


def relu(x):
    return np.abs(x)


def relu_backward(dout, cache):
    x = cache
    return dout * (dout > 0)


def weight_not_transposed(x, weight, bias):
    return x @ weight.reshape(x.shape[1], -1) + bias


def affine_forward(x, w, b):
    out = x.reshape(x.shape[0], -1).dot(w)
    return out, (x, w, b)


def softmax_over_the_batch(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def softmax_overflows(x):
    e = np.exp(x)
    return e / e.sum(axis=1, keepdims=True)


def softmax_twice(logits, labels):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    e = np.exp(p)
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(p[np.arange(len(labels)), labels]).mean()


def softmax_loss(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    Z = np.sum(np.exp(shifted), axis=1, keepdims=True)
    log_probs = shifted - np.log(Z)
    N = x.shape[0]
    loss = -np.sum(log_probs[np.arange(N), y])
    dx = np.exp(log_probs)
    dx[np.arange(N), y] -= 1
    return loss, dx


def variance_of_a_sample(x, gamma, beta, eps):
    mean = x.mean(axis=0)
    var = x.var(axis=0, ddof=1)
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


def spatial_batchnorm_forward(x, gamma, beta, bn_param):
    mean = x.mean(axis=0)
    var = x.var(axis=0)
    x_hat = (x - mean) / np.sqrt(var + bn_param.get("eps", 1e-5))
    return gamma.reshape(1, -1, 1, 1) * x_hat + beta.reshape(1, -1, 1, 1), None


def im2col(x, kernel_size, stride, padding):
    n, c, h, w = x.shape
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = (h + 2 * padding - kernel_size) // stride + 1
    columns = (w + 2 * padding - kernel_size) // stride + 1
    out = np.zeros((n, c * kernel_size * kernel_size, rows * columns))
    for i in range(rows):
        for j in range(columns):
            y, z = i * stride, j * stride
            window = x[:, :, y : y + kernel_size, z : z + kernel_size]
            out[:, :, i * columns + j] = window.transpose(0, 2, 3, 1).reshape(n, -1)
    return out


def mse_halved(y_pred, y_true):
    return ((y_pred - y_true) ** 2).mean() / 2
