"""Wrong functions without a name at first: written without looking at the checker, with others that had one."""

import numpy as np


def windows(x, pool_param):
    rows, columns, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    shape = *x.shape[:2], (x.shape[2] - rows) // stride + 1, (x.shape[3] - columns) // stride + 1
    for n, c, i, j in np.ndindex(*shape):
        yield (n, c, i, j), x[n, c, i * stride : i * stride + rows, j * stride : j * stride + columns]


def pooled(x, pool_param, reduce):
    cells = {cell: reduce(window) for cell, window in windows(x, pool_param)}
    out = np.zeros(tuple(last + 1 for last in max(cells)))
    for cell, value in cells.items():
        out[cell] = value
    return out


def position_returned(x, pool_param):
    return pooled(x, pool_param, np.argmax)


def maximum_of_each_column_averaged(x, pool_param):
    return pooled(x, pool_param, lambda window: window.max(axis=0).mean())


def convolved(x, w, conv_param, reduce=np.sum):
    stride, pad = conv_param["stride"], conv_param["pad"]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    size = {"pool_height": w.shape[2], "pool_width": w.shape[3], "stride": stride}
    shape = max(cell for cell, _ in windows(x, size))
    out = np.zeros((len(x), len(w), shape[2] + 1, shape[3] + 1))
    for n, k, i, j in np.ndindex(*out.shape):
        top, left = i * stride, j * stride
        out[n, k, i, j] = reduce(x[n, :, top : top + w.shape[2], left : left + w.shape[3]] * w[k])
    return out


def all_biases_added(x, w, b, conv_param):
    return convolved(x, w, conv_param) + b.sum()


def largest_product(x, w, b, conv_param):
    return convolved(x, w, conv_param, np.max) + b.reshape(1, -1, 1, 1)


def gradients(dout, cache, *, dx_from_input=False, first_image=False, dw_from_weight=False):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    dx, dw = np.zeros_like(padded), np.zeros_like(w)
    for n, k, i, j in np.ndindex(*dout.shape):
        rows = slice(i * stride, i * stride + w.shape[2])
        columns = slice(j * stride, j * stride + w.shape[3])
        window = padded[0 if first_image else n, :, rows, columns]
        dx[n, :, rows, columns] += (padded[n, :, rows, columns] if dx_from_input else w[k]) * dout[n, k, i, j]
        dw[k] += (w[k] if dw_from_weight else window) * dout[n, k, i, j]
    return dx[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw, dout.sum(axis=(0, 2, 3)) + 0 * b


def dx_from_the_input(dout, cache):
    return gradients(dout, cache, dx_from_input=True)


def dw_from_the_first_image(dout, cache):
    return gradients(dout, cache, first_image=True)


def dw_from_the_weight(dout, cache):
    return gradients(dout, cache, dw_from_weight=True)


def routed(dout, cache, place):
    x, pool_param = cache
    dx, stride = np.zeros_like(x), pool_param["stride"]
    for cell, window in windows(x, pool_param):
        row, column = place(cell[2], cell[3], *np.unravel_index(window.argmax(), window.shape), stride)
        dx[cell[0], cell[1], row, column] += dout[cell]
    return dx


def stride_left_out(dout, cache):
    return routed(dout, cache, lambda i, j, row, column, _stride: (i + row, j + column))


def place_in_the_window(dout, cache):
    return routed(dout, cache, lambda _i, _j, row, column, _stride: (row, column))


def row_for_column(dout, cache):
    return routed(dout, cache, lambda i, j, row, column, stride: (i * stride + column, j * stride + row))


def times_the_bias(x, w, b):
    return (x @ w.T) * b


def every_bias(x, w, b):
    return x @ w.T + b.sum()


def every_bias_of_the_last_kernel(x, w, b, conv_param):
    return convolved(x, np.repeat(w[-1:], len(w), axis=0), conv_param) + b.reshape(1, -1, 1, 1)


def sign_lost(x, w, b, conv_param):
    return np.abs(convolved(x, w, conv_param) + b.reshape(1, -1, 1, 1))


def dw_averaged_over_the_windows(dout, cache):
    dx, dw, db = gradients(dout, cache)
    return dx, dw / (dout.shape[2] * dout.shape[3]), db


def dx_divided_by_the_window(dout, cache):
    dx, dw, db = gradients(dout, cache)
    return dx / cache[1][0, 0].size, dw, db


def db_times_the_bias(dout, cache):
    dx, dw, db = gradients(dout, cache)
    return dx, dw, db * cache[2]


def relu_first(x, w, b):
    return np.maximum(x, 0) @ w.T + b


def sum_over_the_units(x, w, b):
    return (x @ w.T).sum(axis=1, keepdims=True) + b


def divided_by_the_norm(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / np.sqrt((e**2).sum(axis=1, keepdims=True))


def first_label(logits, labels):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    return -np.log(p[:, labels[0]]).mean()


def zeros_left_out(x, kernel_size, stride):
    size = {"pool_height": kernel_size, "pool_width": kernel_size, "stride": stride}
    return pooled(x, size, lambda window: window.sum() / max(1, np.count_nonzero(window)))


def bias_to_the_padded_window(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (x.shape[2] - w.shape[2]) // stride + 1, (x.shape[3] - w.shape[3]) // stride + 1
    out = np.zeros((len(x), len(w), rows, columns))
    for n, k, i, j in np.ndindex(*out.shape):
        window = x[n, :, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]] + b[k]
        out[n, k, i, j] = np.sum(window * w[k])
    return out


def bias_to_the_image(image, kernel, bias, padding=0):
    image = np.pad(image + bias, padding)
    r, s = kernel.shape
    out = np.zeros((image.shape[0] - r + 1, image.shape[1] - s + 1))
    for i, j in np.ndindex(*out.shape):
        out[i, j] = np.sum(image[i : i + r, j : j + s] * kernel)
    return out


def bias_to_the_kernel(x, w, b, conv_param):
    return convolved(x, w + b.reshape(-1, 1, 1, 1), conv_param)


def bias_to_the_weights(x, w, b):
    return x @ (w + b[:, None]).T


def one_list_for_all_rows(image, kernel):
    r = len(kernel)
    rows, columns = len(image) - r + 1, len(image[0]) - r + 1
    out = [[0] * columns] * rows
    for i in range(rows):
        for j in range(columns):
            out[i][j] = sum(image[i + a][j + b] * kernel[a][b] for a in range(r) for b in range(r))
    return out


def dw_returned_first(dout, cache):
    dx, dw, db = gradients(dout, cache)
    return dw, dx, db


def db_for_each_image(dout, cache):
    dx, dw, _ = gradients(dout, cache)
    return dx, dw, dout.sum((1, 2, 3))


def loss_and_gradient(logits, labels, p=None):
    if p is None:
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
    rows, dx = np.arange(len(p)), p.copy()
    dx[rows, labels] -= 1
    return -np.log(p[rows, labels]).mean(), dx / len(p)


def all_rows_normalized_together(logits, labels):
    p = np.exp(logits - logits.max())
    return loss_and_gradient(logits, labels, p / p.sum())


def probabilities_not_copied(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dx = p
    dx[np.arange(len(p)), labels] -= 1
    return -np.log(p[np.arange(len(p)), labels]).mean(), dx / len(p)


def colon_for_the_row(logits, labels):
    dx = np.exp(logits - logits.max(axis=1, keepdims=True))
    dx /= dx.sum(axis=1, keepdims=True)
    dx[:, labels] -= 1
    return loss_and_gradient(logits, labels)[0], dx / len(dx)


def shift_scaled_too(x, gamma, beta, eps):
    return gamma * ((x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps) + beta)


def positive_inputs_returned(dout, x):
    return x * (x > 0)


def powers_normalized_by_column(z):
    powers = [np.e**value for value in z]
    return [power / sum(powers) for power in powers]


def one_image_short(logits, labels):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return sum(-np.log(p[n, labels[n]]) for n in range(len(labels) - 1)) / len(labels)


def shifted_in_the_sum_only(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return (np.log(np.exp(shifted).sum(axis=1)) - logits[np.arange(len(labels)), labels]).mean()


def unfolded(x, kh, kw, stride, pad):
    n, c, h, w = x.shape
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (h + 2 * pad - kh) // stride + 1, (w + 2 * pad - kw) // stride + 1
    out = np.zeros((n, c, kh, kw, rows, columns))
    for i, j in np.ndindex(kh, kw):
        out[:, :, i, j] = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]
    return out


def columns_not_transposed(x, kh, kw, stride=1, pad=0):
    out = unfolded(x, kh, kw, stride, pad)
    return out.reshape(out.shape[0] * out.shape[4] * out.shape[5], -1)


def windows_not_transposed(x, kh, kw, stride=1, pad=0):
    out = unfolded(x, kh, kw, stride, pad)
    return out.transpose(0, 4, 5, 1, 2, 3).reshape(out.shape[1] * kh * kw, -1)


def images_not_transposed(x, kh, kw, stride=1, pad=0):
    out = unfolded(x, kh, kw, stride, pad)
    return out.reshape(out.shape[1] * kh * kw, -1)
