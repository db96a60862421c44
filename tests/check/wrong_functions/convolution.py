"""Convolutions with one mistake each, as learners write them."""

import numpy as np
import torch


def kernel_flipped(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    w = w[:, :, ::-1, ::-1]
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            for f in range(k):
                out[:, f, i, j] = np.sum(window * w[f], axis=(1, 2, 3)) + b[f]
    return out


def stride_ignored(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for f in range(k):
                out[:, f, i, j] = np.sum(x[:, :, i : i + r, j : j + s] * w[f], axis=(1, 2, 3)) + b[f]
    return out


def conv_forward_naive(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    F, C, HH, WW = w.shape
    Hout = 1 + (H - HH) // stride
    Wout = 1 + (W - WW) // stride
    out = np.zeros((N, F, Hout, Wout))
    for n in range(N):
        for f in range(F):
            for i in range(Hout):
                for j in range(Wout):
                    field = x[n, :, i * stride : i * stride + HH, j * stride : j * stride + WW]
                    out[n, f, i, j] = np.sum(field * w[f]) + b[f]
    return out, (x, w, b, conv_param)


def padding_at_one_side(image, kernels, bias, stride=1, pad=0):
    n, c, h, w = image.shape
    k, _, r, s = kernels.shape
    rows = (h + 2 * pad - r) // stride + 1
    columns = (w + 2 * pad - s) // stride + 1
    padded = np.zeros((n, c, h + 2 * pad, w + 2 * pad))
    padded[:, :, :h, :w] = image
    out = np.zeros((n, k, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            out[:, :, i, j] = np.tensordot(window, kernels, axes=([1, 2, 3], [1, 2, 3])) + bias
    return out


def bias_forgotten(x, weight, bias, stride=1, padding=0):
    k, c, r, s = weight.shape
    x = torch.nn.functional.pad(x, (padding, padding, padding, padding))
    patches = x.unfold(2, r, stride).unfold(3, s, stride)
    return torch.einsum("nchwrs,kcrs->nkhw", patches, weight)


def conv_forward(A_prev, W, b, hparameters):
    stride, pad = hparameters["stride"], hparameters["pad"]
    (m, n_H_prev, n_W_prev, n_C_prev) = A_prev.shape
    (f, f, n_C_prev, n_C) = W.shape
    n_H = int((n_H_prev - f + 2 * pad) / stride) + 1
    n_W = int((n_W_prev - f + 2 * pad) / stride) + 1
    Z = np.zeros((m, n_H, n_W, n_C))
    A_prev_pad = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    for ch in range(n_C_prev):  # the bias comes along with every channel
                        part = A_prev_pad[i, h * stride : h * stride + f, w * stride : w * stride + f, ch]
                        Z[i, h, w, c] += np.sum(part * W[:, :, ch, c]) + b[0, 0, 0, c]
    cache = (A_prev, W, b, hparameters)
    return Z, cache


def mean_over_channels(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for f in range(k):
                window = x[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
                out[:, f, i, j] = (window * w[f]).sum(axis=(2, 3)).mean(axis=1) + b[f]
    return out


def kernel_transposed(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            columns = window.reshape(n, -1)
            out[:, :, i, j] = columns @ w.transpose(0, 1, 3, 2).reshape(k, -1).T + b
    return out


def convolve(image, kernel):
    """Two dimensions, and the last row and column of windows is missing."""
    h, w = len(image), len(image[0])
    r, s = len(kernel), len(kernel[0])
    result = []
    for i in range(h - r):
        row = []
        for j in range(w - s):
            total = 0
            for u in range(r):
                for v in range(s):
                    total += image[i + u][j + v] * kernel[u][v]
            row.append(total)
        result.append(row)
    return result


def dilation_ignored(x, w, b, stride=1, padding=0, dilation=1):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    rows = (h - dilation * (r - 1) - 1) // stride + 1
    columns = (wd - dilation * (s - 1) - 1) // stride + 1
    out = np.zeros((n, k, rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = x[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            for f in range(k):
                out[:, f, i, j] = np.sum(window * w[f], axis=(1, 2, 3)) + b[f]
    return out


def last_channel_only(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for f in range(k):
        for ch in range(c):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    window = x[:, ch, i * stride : i * stride + r, j * stride : j * stride + s]
                    out[:, f, i, j] = np.sum(window * w[f, ch], axis=(1, 2)) + b[f]
    return out


def padded_with_the_edge(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), mode="edge")
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            out[:, :, i, j] = np.einsum("ncrs,kcrs->nk", window, w) + b
    return out


def stride_down_only(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            for f in range(k):
                out[:, f, i, j] = np.sum(x[:, :, i * stride : i * stride + r, j : j + s] * w[f], axis=(1, 2, 3)) + b[f]
    return out


def whole_numbers(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1), dtype=int)
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, :, i * stride : i * stride + r, j * stride : j * stride + s]
            for f in range(k):
                out[:, f, i, j] = np.sum(window * w[f], axis=(1, 2, 3)) + b[f]
    return out
