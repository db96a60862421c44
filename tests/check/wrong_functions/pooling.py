"""Poolings and their gradients with one mistake each, as learners write them."""

import numpy as np
import torch


def zeros_compete(x, kernel_size, stride, padding):
    n, c, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = (h + 2 * padding - kernel_size) // stride + 1
    columns = (w + 2 * padding - kernel_size) // stride + 1
    out = np.zeros((n, c, rows, columns))
    for i in range(rows):
        for j in range(columns):
            y, z = i * stride, j * stride
            out[:, :, i, j] = padded[:, :, y : y + kernel_size, z : z + kernel_size].max(axis=(2, 3))
    return out


def max_pool_forward_naive(x, pool_param):
    size_h, size_w, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    N, C, H, W = x.shape
    rows, columns = 1 + (H - size_h) // stride, 1 + (W - size_w) // stride
    out = np.zeros((N, C, rows, columns))
    for i in range(rows):
        for j in range(columns):
            out[:, :, i, j] = np.max(x[:, :, i : i + size_h, j : j + size_w], axis=(2, 3))
    return out, (x, pool_param)


def summed(x, kernel_size, stride):
    windows = x.unfold(2, kernel_size, stride).unfold(3, kernel_size, stride)
    return torch.sum(windows, dim=(-1, -2))


def padding_not_counted(x, kernel_size, stride, padding):
    n, c, h, w = x.shape
    rows = (h + 2 * padding - kernel_size) // stride + 1
    columns = (w + 2 * padding - kernel_size) // stride + 1
    out = np.zeros((n, c, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - padding, j * stride - padding
            window = x[:, :, max(top, 0) : top + kernel_size, max(left, 0) : left + kernel_size]
            out[:, :, i, j] = window.mean(axis=(2, 3))
    return out


def every_tie(dout, x, kernel_size, stride):
    dx = np.zeros_like(x)
    n, c, rows, columns = dout.shape
    for m in range(n):
        for ch in range(c):
            for i in range(rows):
                for j in range(columns):
                    a, b = slice(i * stride, i * stride + kernel_size), slice(j * stride, j * stride + kernel_size)
                    window = x[m, ch, a, b]
                    dx[m, ch, a, b] += (window == window.max()) * dout[m, ch, i, j]
    return dx


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    N, C, H, W = x.shape
    ph, pw, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros_like(x)
    for n in range(N):
        for c in range(C):
            for i in range(dout.shape[2]):
                for j in range(dout.shape[3]):
                    window = x[n, c, i * stride : i * stride + ph, j * stride : j * stride + pw]
                    row, column = np.unravel_index(np.argmax(window), window.shape)
                    dx[n, c, i * stride + row, j * stride + column] = dout[n, c, i, j]
    return dx


def not_divided(dout, x, kernel_size, stride):
    dx = np.zeros_like(x)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            y, z = i * stride, j * stride
            dx[:, :, y : y + kernel_size, z : z + kernel_size] += dout[:, :, i, j][:, :, None, None]
    return dx


def shares_overwritten(dout, x, kernel_size, stride):
    dx = np.zeros_like(x)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            y, z = i * stride, j * stride
            share = dout[:, :, i, j][:, :, None, None] / kernel_size**2
            dx[:, :, y : y + kernel_size, z : z + kernel_size] = share
    return dx
