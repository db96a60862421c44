"""Functions as courses teach them: right, except on some inputs, where PyTorch does something else."""

import math

import numpy as np


def softmax(X):
    X_exp = np.exp(X)
    partition = X_exp.sum(1, keepdims=True)
    return X_exp / partition


def softmax_loss(x, y):
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    N = len(x)
    loss = -np.log(p[np.arange(N), y]).mean()
    dx = p.copy()
    dx[np.arange(N), y] -= 1
    return loss, dx / N


def pool_backward(dA, cache, mode="max"):
    (A_prev, hparameters) = cache
    stride, f = hparameters["stride"], hparameters["f"]
    m, n_H, n_W, n_C = dA.shape
    dA_prev = np.zeros(A_prev.shape)
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    rows, columns = slice(h * stride, h * stride + f), slice(w * stride, w * stride + f)
                    if mode == "max":
                        part = A_prev[i, rows, columns, c]
                        dA_prev[i, rows, columns, c] += (part == np.max(part)) * dA[i, h, w, c]
                    else:
                        dA_prev[i, rows, columns, c] += np.ones((f, f)) * dA[i, h, w, c] / f**2
    return dA_prev


def softmax_of_lists(x):
    return [[math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in x]


def cross_entropy_of_lists(logits, y):
    return sum(math.log(sum(math.exp(v) for v in row)) - row[k] for row, k in zip(logits, y, strict=True)) / len(y)
