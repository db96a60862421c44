"""Adjoints of fused attention and encoder layers: their parts, one after the other, at the recorded input."""

import math

import numpy as np

from convscope.rules.adjoints.pulled import Pulled, Varies, first_result, only, tangent, wide
from convscope.rules.call import Array, Call
from convscope.rules.functions.activations import gelu, gelu_slope


def multi_head_attention(call: Call, weights: Array, varies: Varies) -> Pulled:
    """By query, key and value."""
    first_result(call)
    only(call, varies, "query", "key", "value")
    names = ("query", "key", "value")
    attention = _Attention(call, *(wide(call[name]) for name in names))
    found = dict(zip(names, attention.pull(weights), strict=True))
    gradients = {name: gradient for name, gradient in found.items() if name in varies}
    return tangent(gradients, call, float(np.sum(weights * attention.result)))


def encoder_layer(call: Call, weights: Array, varies: Varies) -> Pulled:
    """By the layer's input."""
    only(call, varies, "src")
    image, before = wide(call["src"]), call["norm_first"]
    given, first = _normed(call, image, 1) if before else (image, None)
    attention = _Attention(call, given, given, given)
    kept = image + attention.result
    if not before:
        kept, first = _normed(call, kept, 1)
    fed, second = _normed(call, kept, 2) if before else (kept, None)
    hidden = fed @ wide(call["ffn_weight_1"]).T + wide(call["ffn_bias_1"])
    bent = gelu(hidden) if call["use_gelu"] else np.maximum(hidden, 0)
    slope = gelu_slope(hidden) if call["use_gelu"] else (hidden > 0).astype(np.float64)
    result = kept + bent @ wide(call["ffn_weight_2"]).T + wide(call["ffn_bias_2"])
    if not before:
        result, second = _normed(call, result, 2)
    assert first is not None
    assert second is not None
    pulled = weights if before else second.pull(weights)
    by_fed = ((pulled @ wide(call["ffn_weight_2"])) * slope) @ wide(call["ffn_weight_1"])
    by_kept = pulled + (second.pull(by_fed) if before else by_fed)
    by_sum = by_kept if before else first.pull(by_kept)
    by_given = sum(attention.pull(by_sum))
    gradient = by_sum + (first.pull(np.asarray(by_given)) if before else by_given)
    return tangent({"src": np.asarray(gradient)}, call, float(np.sum(weights * result)))


class _Attention:
    """Multi-head attention with everything that its adjoint needs."""

    def __init__(self, call: Call, query: Array, key: Array, value: Array) -> None:
        self.heads = call.get("num_head") or call["num_heads"]
        self.matrices = np.split(wide(call["qkv_weight"]), 3)
        self.out = wide(call["proj_weight"])
        biases = np.split(wide(call["qkv_bias"]), 3)
        parts = zip((query, key, value), self.matrices, biases, strict=True)
        self.q, self.k, self.v = (self._by_head(x @ matrix.T + bias) for x, matrix, bias in parts)
        self.scale = 1 / math.sqrt(self.q.shape[-1])
        scores = self.q @ np.swapaxes(self.k, -1, -2) * self.scale
        masked = _masked(call)
        if masked is not None:
            scores = np.where(masked, -np.inf, scores)
        grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
        self.shares = grown / grown.sum(axis=-1, keepdims=True)  # (N, heads, L, S)
        self.result = self._joined(self.shares @ self.v) @ self.out.T + wide(call["proj_bias"])

    def pull(self, weights: Array) -> list[Array]:
        """Weights of the result as weights of query, key and value."""
        by_context = self._by_head(weights @ self.out)
        by_share = by_context @ np.swapaxes(self.v, -1, -2)
        by_score = self.shares * (by_share - (by_share * self.shares).sum(axis=-1, keepdims=True)) * self.scale
        by_parts = (
            by_score @ self.k,
            np.swapaxes(by_score, -1, -2) @ self.q,
            np.swapaxes(self.shares, -1, -2) @ by_context,
        )
        return [self._joined(part) @ matrix for part, matrix in zip(by_parts, self.matrices, strict=True)]

    def _by_head(self, rows: Array) -> Array:
        batch, length, width = rows.shape
        return rows.reshape(batch, length, self.heads, width // self.heads).swapaxes(1, 2)

    def _joined(self, rows: Array) -> Array:
        batch, heads, length, width = rows.shape
        return rows.swapaxes(1, 2).reshape(batch, length, heads * width)


class _Norm:
    """A layer norm with what its adjoint needs."""

    def __init__(self, image: Array, scale: Array, eps: float) -> None:
        self.far = image - image.mean(axis=-1, keepdims=True)
        self.root = np.sqrt((self.far**2).mean(axis=-1, keepdims=True) + eps)
        self.scale = scale

    def pull(self, weights: Array) -> Array:
        """Weights of the normalized rows as weights of the rows."""
        pulled = weights * self.scale
        straight = pulled - pulled.mean(axis=-1, keepdims=True)
        bent = self.far / self.root**2 * (pulled * self.far).mean(axis=-1, keepdims=True)
        return np.asarray((straight - bent) / self.root)


def _normed(call: Call, image: Array, which: int) -> tuple[Array, _Norm]:
    norm = _Norm(image, wide(call[f"norm_weight_{which}"]), call["eps"])
    return norm.far / norm.root * norm.scale + wide(call[f"norm_bias_{which}"]), norm


def _masked(call: Call) -> Array | None:
    """True where a key may not be seen, to be broadcast over (batch, heads, query, key)."""
    mask = call.get("mask")
    if mask is None:
        return None
    array: Array = mask.array != 0
    return array if call["mask_type"] == 2 else array[:, None, None, :] if call["mask_type"] == 1 else array[None, None]
