"""Gradients of a convolution with one mistake each, as learners write them."""

import numpy as np


def _padded(x, pad):
    return np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))


def overwritten(dout, x, w, stride=1, padding=0):
    p = padding
    xp = _padded(x, p)
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    (n, k, rows, columns), (r, s) = dout.shape, w.shape[2:]
    for i in range(rows):
        for j in range(columns):
            for m in range(n):
                total = 0
                for f in range(k):
                    window = xp[m, :, i * stride : i * stride + r, j * stride : j * stride + s]
                    dw[f] += dout[m, f, i, j] * window
                    total = total + dout[m, f, i, j] * w[f]
                dxp[m, :, i * stride : i * stride + r, j * stride : j * stride + s] = total
    return dxp[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    F, _, HH, WW = w.shape
    xp = _padded(x, pad)
    dxp, dw, db = np.zeros_like(xp), np.zeros_like(w), np.zeros_like(b)
    for n in range(N):
        for f in range(F):
            for i in range(dout.shape[2]):
                for j in range(dout.shape[3]):
                    rows, columns = slice(i * stride, i * stride + HH), slice(j * stride, j * stride + WW)
                    dxp[n, :, rows, columns] += dout[n, f, i, j] * w[f]
                    dw[f] += dout[n, f, i, j] * xp[n, :, rows, columns]
                    db[f] += dout[n, f, i, j]
    return dxp[:, :, :H, :W], dw, db


def divided_by_the_batch(dout, x, w, stride=1, padding=0):
    p = padding
    xp = _padded(x, p)
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    (n, k, rows, columns), (r, s) = dout.shape, w.shape[2:]
    for i in range(rows):
        for j in range(columns):
            window = xp[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            for f in range(k):
                dw[f] += np.sum(dout[:, f, i, j].reshape(-1, 1, 1, 1) * window, axis=0)
                dxp[:, :, i * stride : i * stride + r, j * stride : j * stride + s] += (
                    dout[:, f, i, j].reshape(-1, 1, 1, 1) * w[f]
                )
    db = dout.sum(axis=(0, 2, 3))
    return dxp[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw / n, db / n


def flipped(dout, x, w, stride=1, padding=0):
    p = padding
    xp = _padded(x, p)
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    (n, k, rows, columns), (r, s) = dout.shape, w.shape[2:]
    turned = np.rot90(w, 2, axes=(2, 3))
    for i in range(rows):
        for j in range(columns):
            window = xp[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            dw += np.einsum("nk,ncrs->kcrs", dout[:, :, i, j], window)
            dxp[:, :, i * stride : i * stride + r, j * stride : j * stride + s] += np.einsum(
                "nk,kcrs->ncrs", dout[:, :, i, j], turned
            )
    return dxp[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))


def bias_gradient_averaged(dout, x, w, stride=1, padding=0):
    p = padding
    xp = _padded(x, p)
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    (n, k, rows, columns), (r, s) = dout.shape, w.shape[2:]
    for i in range(rows):
        for j in range(columns):
            window = xp[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            dw += np.einsum("nk,ncrs->kcrs", dout[:, :, i, j], window)
            dxp[:, :, i * stride : i * stride + r, j * stride : j * stride + s] += np.einsum(
                "nk,kcrs->ncrs", dout[:, :, i, j], w
            )
    return dxp[:, :, p : p + x.shape[2], p : p + x.shape[3]], dw, dout.mean(axis=(0, 2, 3))


def conv_backward(dZ, cache):
    (A_prev, W, b, hparameters) = cache
    (m, n_H_prev, n_W_prev, n_C_prev) = A_prev.shape
    (f, f, n_C_prev, n_C) = W.shape
    pad = hparameters["pad"]
    (m, n_H, n_W, n_C) = dZ.shape
    A_prev_pad = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dA_prev_pad = np.zeros(A_prev_pad.shape)
    dW, db = np.zeros(W.shape), np.zeros(b.shape)
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):  # h and w are not multiplied by the stride
                    a_slice = A_prev_pad[i, h : h + f, w : w + f, :]
                    dA_prev_pad[i, h : h + f, w : w + f, :] += W[:, :, :, c] * dZ[i, h, w, c]
                    dW[:, :, :, c] += a_slice * dZ[i, h, w, c]
                    db[:, :, :, c] += dZ[i, h, w, c]
    return dA_prev_pad[:, pad : pad + n_H_prev, pad : pad + n_W_prev, :], dW, db
