"""The fused blocks of transformers: multi-head attention and the whole encoder layer, each one ATen operation.

Knows attention, products, normalization, activations and NumPy. How far a kernel may lie off: see `carried`.
"""

import numpy as np

from convscope.reference.activations import gelu, relu
from convscope.reference.attention import attention, weights_of
from convscope.reference.matmul import linear
from convscope.reference.normalization import layer_norm
from convscope.reference.roundoff import Array


def multi_head_attention(
    query: Array,
    key: Array,
    value: Array,
    embed_dim: int,
    num_head: int,
    qkv_weight: Array,
    qkv_bias: Array,
    proj_weight: Array,
    proj_bias: Array,
    mask: Array | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Array, Array | None]:
    """_native_multi_head_attention: three projections, attention in each head, and a fourth projection.

    Args:
        query, key, value: Shape (N, L, E), (N, S, E), (N, S, E).
        embed_dim: E.
        num_head: Heads, which share out E.
        qkv_weight: The three projections on top of each other, shape (3·E, E); `qkv_bias` (3·E,).
        proj_weight: Shape (E, E); `proj_bias` (E,).
        mask: Boolean, True is left out: (L, S), (N, S) for `mask_type` 1, or (N, heads, L, S).
        need_weights: Also return the weights.
        average_attn_weights: Their mean over the heads.
        mask_type: 0, 1 or 2, as above.

    Returns:
        Shape (N, L, E), and the weights (N, L, S) or (N, heads, L, S), or None.
    """
    weights, biases = qkv_weight.reshape(3, embed_dim, -1), qkv_bias.reshape(3, -1)
    q, k, v = (
        heads_of(linear(x, w, b), num_head) for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    seen = taking_part(mask, mask_type)
    out = linear(joined(attention(q, k, v, seen)), proj_weight, proj_bias)
    if not need_weights:
        return out, None
    shares = weights_of(q, k, seen)[0]
    return out, shares.mean(1) if average_attn_weights else shares


def encoder_layer(
    src: Array,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Array,
    qkv_bias: Array,
    proj_weight: Array,
    proj_bias: Array,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Array,
    norm_bias_1: Array,
    norm_weight_2: Array,
    norm_bias_2: Array,
    ffn_weight_1: Array,
    ffn_bias_1: Array,
    ffn_weight_2: Array,
    ffn_bias_2: Array,
    mask: Array | None = None,
    mask_type: int | None = None,
) -> Array:
    """_transformer_encoder_layer_fwd: attention and a network of two layers, each added to its input and normalized.

    Args:
        src: Shape (N, L, E).
        embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, mask_type: See `multi_head_attention`.
        use_gelu: The network's function: gelu, else relu.
        norm_first: Normalize before attention and before the network, instead of after each sum.
        eps: Added to the variances.
        norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2: Shape (E,).
        ffn_weight_1, ffn_bias_1, ffn_weight_2, ffn_bias_2: Shape (F, E), (F,), (E, F), (E,).

    Returns:
        Shape (N, L, E).
    """

    def attend(x: Array) -> Array:
        return multi_head_attention(
            x, x, x, embed_dim, num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias, mask, False, True, mask_type
        )[0]

    def network(x: Array) -> Array:
        inner = linear(x, ffn_weight_1, ffn_bias_1)
        return linear(gelu(inner) if use_gelu else relu(inner), ffn_weight_2, ffn_bias_2)

    def norm(x: Array, weight: Array, bias: Array) -> Array:
        return layer_norm(x, [embed_dim], weight, bias, eps)[0]

    if norm_first:
        x = src + attend(norm(src, norm_weight_1, norm_bias_1))
        return x + network(norm(x, norm_weight_2, norm_bias_2))
    x = norm(src + attend(src), norm_weight_1, norm_bias_1)
    return norm(x + network(x), norm_weight_2, norm_bias_2)


def heads_of(x: Array, heads: int) -> Array:
    """Shared out over the heads: (N, L, E) -> (N, heads, L, E / heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def joined(x: Array) -> Array:
    """The heads side by side again: (N, heads, L, E / heads) -> (N, L, E)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def taking_part(mask: Array | None, mask_type: int | None) -> Array | None:
    """PyTorch's fused blocks mark what is left out; `attention` takes what takes part."""
    if mask is None:
        return None
    return ~np.asarray(mask[:, None, None, :] if mask_type == 1 else mask, bool)
