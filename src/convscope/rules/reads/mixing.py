"""Reads of everything that is no window: same cell by same cell, along whole axes, matrix products, attention."""

import numpy as np

from convscope.rules.adjoints.pulled import fitted
from convscope.rules.call import Array, Call
from convscope.rules.gather import dims_of


def marked(marks: Array) -> Array:
    """Marks as 1 and 0."""
    return np.not_equal(marks, 0).astype(np.float32)


def everything(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All of each operand: what is not known better."""
    share = np.float32(marks.any())
    return {name: np.full(operand.shape, share) for name, operand in call.operands().items() if name in varies}


def pointwise(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same cell of each operand, broadcast."""
    operands, marks = call.operands(), marked(marks)
    return {name: marked(fitted(marks, operands[name].shape)) for name in varies}


def glu(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The same cell of both halves."""
    marks = marked(marks)
    return {"self": np.concatenate([marks, marks], axis=call["dim"] % marks.ndim)} if varies else {}


def product(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The row of the first matrix and the column of the second; what is added, the same cell."""
    names = {
        "mv": ("self", "vec"),
        "dot": ("self", "tensor"),
        "addmm": ("mat1", "mat2"),
        "addmv": ("mat", "vec"),
        "baddbmm": ("batch1", "batch2"),
    }
    first, second = names.get(call.op, ("self", "mat2"))
    marks, found, operands = marked(marks), {}, call.operands()
    vector = call.op in {"mv", "dot", "addmv"}
    rows = marks if vector else marks.max(axis=-1)
    if first in varies:
        shape = operands[first].shape
        found[first] = np.broadcast_to(rows if call.op == "dot" else rows[..., None], shape).copy()
    if second in varies:
        shape = operands[second].shape
        columns = marks.max(axis=-1) if vector else marks.max(axis=-2)[..., None, :]
        found[second] = np.broadcast_to(columns, shape).copy()
    if "self" in varies and "self" not in {first, second}:
        found["self"] = marked(fitted(marks, operands["self"].shape))
    return found


def reduction(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells along the axes that are reduced."""
    if not varies:
        return {}
    shape, dims = call["self"].shape, dims_of(call, call["self"])
    kept = marked(marks).reshape([1 if axis in dims else n for axis, n in enumerate(shape)])
    return {"self": np.broadcast_to(kept, shape).copy()}


def along_axis(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells along one axis: a softmax, a ranking."""
    if not varies:
        return {}
    shape = call["self"].shape
    axis = call["dim"] % max(len(shape), 1)
    kept = marked(marks).max(axis=axis, keepdims=True) if shape else marked(marks)
    return {"self": np.broadcast_to(kept, shape).copy()}


def cumsum(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The cell and those before it on one axis."""
    if not varies or not marks.ndim:
        return {"self": marked(marks)} if varies else {}
    axis = call["dim"] % marks.ndim
    return {"self": np.flip(np.maximum.accumulate(np.flip(marked(marks), axis), axis), axis)}


def batch_norm(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """By recorded statistics the same cell; by its own the whole channel of the whole batch."""
    own = own_statistics(call)
    shape = call["input"].shape
    if call.output:  # the statistics, one for each channel
        line = marked(marks).reshape(1, -1, *[1] * (len(shape) - 2))
    else:
        line = marked(marks)
        line = line.max(axis=tuple(a for a in range(line.ndim) if a != 1), keepdims=True) if own else line
    return _with_scale(call, varies, np.broadcast_to(line, shape).copy())


def own_statistics(call: Call) -> bool:
    """Whether a batch norm takes mean and variance from the batch, as in training."""
    return bool(call.get("training", call.op.endswith("batch_norm_legit"))) or call.get("running_mean") is None


def layer_norm(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells along the last axes."""
    shape = call["input"].shape
    axes = tuple(range(len(shape) - len(call["normalized_shape"]), len(shape)))
    kept = marked(marks).max(axis=axes, keepdims=True)
    return _with_scale(call, varies, np.broadcast_to(kept, shape).copy())


def group_norm(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """All cells of a group of channels."""
    shape = call["input"].shape
    grouped = marked(marks).reshape(shape[0], call["group"], -1)
    wide = int(np.prod(shape)) // (shape[0] * call["group"])
    kept = np.broadcast_to(grouped.max(axis=2, keepdims=True), (shape[0], call["group"], wide))
    return _with_scale(call, varies, kept.reshape(shape).copy())


def _with_scale(call: Call, varies: frozenset[str], image: Array) -> dict[str, Array]:
    """A scale or shift that itself depends on the image is taken to be read whole."""
    operands = call.operands()
    rest = {name: np.ones(operands[name].shape, np.float32) for name in varies - {"input"}}
    return {"input": image, **rest} if "input" in varies else rest


def attention(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """The query of the same place; keys and values of all places that it may look at."""
    marks = marked(marks)
    shapes = {name: operand.shape for name, operand in call.operands().items()}
    heads, queries = shapes["query"][1], shapes["query"][2]
    shared, keys = heads // shapes["key"][1], shapes["key"][2]
    asks = marks.reshape((*shapes["query"][:3], -1))  # (N, H, L, D); of the log-sum of exponentials (N, H, L)
    looked = np.matmul(np.swapaxes(asks, -1, -2), _allowed(call, queries, keys))  # (N, H, D, S)
    seen = marked(np.swapaxes(looked, -1, -2))  # (N, H, S, D)
    seen = seen.reshape(seen.shape[0], -1, shared, *seen.shape[2:]).max(axis=2)
    found = {
        "query": np.broadcast_to(asks.max(axis=-1, keepdims=True), shapes["query"]),
        "key": np.broadcast_to(seen.max(axis=-1, keepdims=True), shapes["key"]),
        "value": seen if seen.shape == shapes["value"] else np.ones(shapes["value"], np.float32),
    }
    if "attn_mask" in varies:
        found["attn_mask"] = np.ones(shapes["attn_mask"], np.float32)
    return {name: np.array(found[name]) for name in varies}


def _allowed(call: Call, queries: int, keys: int) -> Array:
    """(..., L, S): where a query may look; a score of minus infinity forbids it."""
    allowed: Array = np.ones((queries, keys), np.float32)
    if call.get("is_causal"):
        allowed = np.tri(queries, keys, dtype=np.float32)
    mask = call.get("attn_mask")
    if mask is not None:
        open_ = mask.array if mask.source.dtype == "bool" else mask.array > -np.inf
        allowed = allowed * open_
    return allowed


def sequence(call: Call, marks: Array, varies: frozenset[str]) -> dict[str, Array]:
    """Fused attention layers: all places of the same sequence."""
    operands = call.operands()
    share = marked(marks).reshape(marks.shape[0], -1).max(axis=1)  # (N,)
    found = {}
    for name in varies:
        shape = operands[name].shape
        first = shape[:1] == share.shape
        line = share.reshape(-1, *[1] * (len(shape) - 1)) if first else share.max()
        found[name] = np.broadcast_to(line, shape).copy()
    return found
