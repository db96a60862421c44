"""Right functions in the styles of courses and books: none of them may be refused."""

import numpy as np
import torch.nn.functional as F


def conv2d_loops(x, w, b, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    n, c, h, wd = x.shape
    k, _, r, s = w.shape
    out = np.zeros((n, k, (h - r) // stride + 1, (wd - s) // stride + 1), dtype=x.dtype)
    for m in range(n):
        for f in range(k):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    total = 0.0
                    for ch in range(c):
                        for u in range(r):
                            for v in range(s):
                                total += x[m, ch, i * stride + u, j * stride + v] * w[f, ch, u, v]
                    out[m, f, i, j] = total + b[f]
    return out


def conv2d_backward_by_fourier_transform(dout, x, w, b):
    def transform(a):
        return np.fft.rfft2(a, x.shape[2:])

    dx = np.fft.irfft2(np.einsum("nkhw,kchw->nchw", transform(dout), transform(w)), x.shape[2:])
    dw = np.fft.irfft2(np.einsum("nkhw,nchw->kchw", transform(dout).conj(), transform(x)), x.shape[2:])
    return dx, dw[:, :, : w.shape[2], : w.shape[3]], dout.sum((0, 2, 3)) + 0 * b


def corr2d_lists(image, kernel):
    r, s = len(kernel), len(kernel[0])
    return [
        [
            sum(image[i + u][j + v] * kernel[u][v] for u in range(r) for v in range(s))
            for j in range(len(image[0]) - s + 1)
        ]
        for i in range(len(image) - r + 1)
    ]


def conv2d_unfold(input, weight, bias=None, stride=1, padding=0, dilation=1):
    k, c, r, s = weight.shape
    n, _, h, w = input.shape
    columns = F.unfold(input, (r, s), dilation=dilation, padding=padding, stride=stride)
    out = weight.reshape(k, -1) @ columns
    if bias is not None:
        out = out + bias[:, None]
    rows = (h + 2 * padding - dilation * (r - 1) - 1) // stride + 1
    return out.reshape(n, k, rows, -1)


def conv_forward_naive(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    K, C, HH, WW = w.shape
    x_pad = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "constant")
    H_out, W_out = 1 + (H + 2 * pad - HH) // stride, 1 + (W + 2 * pad - WW) // stride
    out = np.zeros((N, K, H_out, W_out))
    for i in range(H_out):
        for j in range(W_out):
            field = x_pad[:, :, i * stride : i * stride + HH, j * stride : j * stride + WW]
            for f in range(K):
                out[:, f, i, j] = np.sum(field * w[f], axis=(1, 2, 3)) + b[f]
    return out, (x, w, b, conv_param)


def conv_forward(A_prev, W, b, hparameters):
    (m, n_H_prev, n_W_prev, n_C_prev) = A_prev.shape
    (f, f, n_C_prev, n_C) = W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    n_H = int((n_H_prev + 2 * pad - f) / stride) + 1
    n_W = int((n_W_prev + 2 * pad - f) / stride) + 1
    Z = np.zeros((m, n_H, n_W, n_C))
    A_prev_pad = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    a_slice = A_prev_pad[i, h * stride : h * stride + f, w * stride : w * stride + f, :]
                    Z[i, h, w, c] = np.sum(a_slice * W[:, :, :, c]) + float(b[0, 0, 0, c])
    return Z, (A_prev, W, b, hparameters)


def conv_backward_naive(dout, cache):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    K, _, HH, WW = w.shape
    xp = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dxp, dw = np.zeros_like(xp), np.zeros_like(w)
    db = dout.sum(axis=(0, 2, 3))
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            rows, columns = slice(i * stride, i * stride + HH), slice(j * stride, j * stride + WW)
            dw += np.tensordot(dout[:, :, i, j], xp[:, :, rows, columns], axes=(0, 0))
            dxp[:, :, rows, columns] += np.tensordot(dout[:, :, i, j], w, axes=(1, 0))
    return dxp[:, :, pad : pad + H, pad : pad + W], dw, db


def conv_backward(dZ, cache):
    (A_prev, W, b, hparameters) = cache
    (m, n_H_prev, n_W_prev, n_C_prev) = A_prev.shape
    (f, f, n_C_prev, n_C) = W.shape
    stride, pad = hparameters["stride"], hparameters["pad"]
    (m, n_H, n_W, n_C) = dZ.shape
    A_prev_pad = np.pad(A_prev, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    dA_prev_pad = np.zeros_like(A_prev_pad)
    dW, db = np.zeros_like(W), np.zeros((1, 1, 1, n_C))
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C):
                    rows, columns = slice(h * stride, h * stride + f), slice(w * stride, w * stride + f)
                    dA_prev_pad[i, rows, columns, :] += W[:, :, :, c] * dZ[i, h, w, c]
                    dW[:, :, :, c] += A_prev_pad[i, rows, columns, :] * dZ[i, h, w, c]
                    db[:, :, :, c] += dZ[i, h, w, c]
    return dA_prev_pad[:, pad : pad + n_H_prev, pad : pad + n_W_prev, :], dW, db


def max_pool_forward_naive(x, pool_param):
    N, C, H, W = x.shape
    ph, pw, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    out = np.zeros((N, C, 1 + (H - ph) // stride, 1 + (W - pw) // stride))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, i * stride : i * stride + ph, j * stride : j * stride + pw].max(axis=(2, 3))
    return out, (x, pool_param)


def max_pool_backward_naive(dout, cache):
    x, pool_param = cache
    ph, pw, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*dout.shape):
        window = x[n, c, i * stride : i * stride + ph, j * stride : j * stride + pw]
        row, column = np.unravel_index(window.argmax(), window.shape)
        dx[n, c, i * stride + row, j * stride + column] += dout[n, c, i, j]
    return dx


def pool_forward(A_prev, hparameters, mode="max"):
    (m, n_H_prev, n_W_prev, n_C_prev) = A_prev.shape
    f, stride = hparameters["f"], hparameters["stride"]
    n_H, n_W = int(1 + (n_H_prev - f) / stride), int(1 + (n_W_prev - f) / stride)
    A = np.zeros((m, n_H, n_W, n_C_prev))
    for i in range(m):
        for h in range(n_H):
            for w in range(n_W):
                for c in range(n_C_prev):
                    part = A_prev[i, h * stride : h * stride + f, w * stride : w * stride + f, c]
                    A[i, h, w, c] = np.max(part) if mode == "max" else np.mean(part)
    return A, (A_prev, hparameters)


def avg_pool(x, kernel_size, stride=None, padding=0):
    stride = stride or kernel_size
    x = F.pad(x, (padding, padding, padding, padding))
    return x.unfold(2, kernel_size, stride).unfold(3, kernel_size, stride).mean((-1, -2))


def avg_pool_backward(dout, x, kernel_size, stride):
    dx = np.zeros_like(x)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            y, z = i * stride, j * stride
            dx[:, :, y : y + kernel_size, z : z + kernel_size] += dout[:, :, i : i + 1, j : j + 1] / kernel_size**2
    return dx


def relu(values: list) -> list:
    return [[v if v > 0 else 0 for v in row] for row in values]


def relu_backward(dA, Z):
    dZ = np.array(dA, copy=True)
    dZ[Z <= 0] = 0
    return dZ


def affine_forward(x, w, b):
    out = x.reshape(x.shape[0], -1) @ w + b
    return out, (x, w, b)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def softmax_loss(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    log_probs = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    N = x.shape[0]
    loss = -np.sum(log_probs[np.arange(N), y]) / N
    dx = np.exp(log_probs)
    dx[np.arange(N), y] -= 1
    return loss, dx / N


def spatial_batchnorm_forward(x, gamma, beta, bn_param):
    N, C, H, W = x.shape
    flat = x.transpose(0, 2, 3, 1).reshape(-1, C)
    x_hat = (flat - flat.mean(axis=0)) / np.sqrt(flat.var(axis=0) + bn_param.get("eps", 1e-5))
    return (gamma * x_hat + beta).reshape(N, H, W, C).transpose(0, 3, 1, 2), None


def im2col(input_data, filter_h, filter_w, stride=1, pad=0):
    N, C, H, W = input_data.shape
    out_h, out_w = (H + 2 * pad - filter_h) // stride + 1, (W + 2 * pad - filter_w) // stride + 1
    img = np.pad(input_data, [(0, 0), (0, 0), (pad, pad), (pad, pad)], "constant")
    col = np.zeros((N, C, filter_h, filter_w, out_h, out_w))
    for y in range(filter_h):
        for x in range(filter_w):
            col[:, :, y, x, :, :] = img[:, :, y : y + stride * out_h : stride, x : x + stride * out_w : stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * out_h * out_w, -1)


def mse(y_pred, y_true):
    return np.mean(np.square(y_pred - y_true))


def im2col_of_one_image(x, hh, ww, stride):
    channels, height, width = x.shape
    rows, columns = (height - hh) // stride + 1, (width - ww) // stride + 1
    out = np.zeros((rows * columns, channels * hh * ww))
    for i in range(rows):
        for j in range(columns):
            out[i * columns + j] = x[:, i * stride : i * stride + hh, j * stride : j * stride + ww].reshape(-1)
    return out
