"""The rest of the calls: functions of single cells, reductions, choices; all of them in `more`."""

from collections.abc import Callable, Iterator

import torch

from reference_cases import Case, normal, odd, positive, spread, whole
from reference_cases_moves import moves, resampling, written

SMOOTH = (
    "sigmoid", "tanh", "silu", "mish", "exp", "expm1", "exp2", "sin", "cos", "tan", "erf", "erfc", "hardsigmoid",
    "hardswish", "relu", "relu6", "celu", "atan", "sinh", "cosh", "log_sigmoid_forward",
)  # fmt: skip
EXACT = (
    "neg", "abs", "sign", "sgn", "floor", "ceil", "trunc", "frac", "round", "isnan", "isinf", "isfinite",
    "logical_not", "square",
)  # fmt: skip

Family = Callable[[], Iterator[dict[str, Case]]]


def _functions() -> Iterator[dict[str, Case]]:
    for name in SMOOTH:
        yield {f"{name} spread": Case(f"{name}.default", (spread(7, 41),))}
        yield {f"{name} near 0": Case(f"{name}.default", (normal(3, 5),))}
    for name in EXACT:
        yield {
            f"{name} odd": Case(f"{name}.default", (odd(4, 6) * 2,)),
            f"{name} of 2-d": Case(f"{name}.default", (spread(3, 9),)),
        }
    for name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal"):
        yield {
            name: Case(f"{name}.default", (positive(4, 50) * 3,)),
            f"{name} 0": Case(f"{name}.default", (torch.zeros(2).double(),)),
        }
    x, far = normal(3, 4, 5), spread(5, 41)
    yield {
        "relu odd": Case("relu.default", (odd(4, 5),)),
        "relu_": Case("relu_.default", (normal(4, 5),)),
        "asin": Case("asin.default", (far / 31,)),
        "acos": Case("acos.default", (far / 31,)),
        "atan2": Case("atan2.default", (x, normal(3, 4, 5))),
        "bitwise_not": Case("bitwise_not.default", (x > 0,)),
        "exp of integers": Case("exp.default", (whole(3, 4),)),
        "leaky_relu": Case("leaky_relu.default", (far, 0.2)),
        "_prelu_kernel": Case("_prelu_kernel.default", (x, normal(1, 4, 1))),
        "elu": Case("elu.default", (far, 1.3)),
        "selu": Case("elu.default", (far, 1.6732632423543772, 1.0507009873554805)),
        "elu, input scale": Case("elu.default", (far, 0.7, 1.0, 2.5)),
        "celu alpha": Case("celu.default", (far, 0.3)),
        "hardtanh": Case("hardtanh.default", (far, -0.1, 6.3)),
        "softplus": Case("softplus.default", (far,)),
        "softplus beta": Case("softplus.default", (far, 1.7, 2.0)),
        "gelu": Case("gelu.default", (far,)),
        "gelu near 0": Case("gelu.default", (x,)),
        "gelu tanh": Case("gelu.default", (far,), {"approximate": "tanh"}),
        "glu": Case("glu.default", (spread(6, 8), 0)),
        "hardshrink": Case("hardshrink.default", (x, 0.3)),
        "softshrink": Case("softshrink.default", (x, 0.3)),
        "threshold": Case("threshold.default", (x, 0.1, 2.7)),
        "dropout in evaluation": Case("dropout.default", (x, 0.3, False)),
        "native_dropout in evaluation": Case("native_dropout.default", (x, 0.3, False)),
        "round decimals": Case("round.decimals", (x,), {"decimals": 2}),
        "clamp": Case("clamp.default", (x, -0.3, 0.7)),
        "clamp odd": Case("clamp.default", (odd(4, 5), -0.5, 0.5)),
        "clamp below": Case("clamp.default", (x, None, 0.1)),
        "clamp by tensors": Case("clamp.Tensor", (x, normal(5) - 1, normal(5) + 1)),
        "clamp_min": Case("clamp_min.default", (x, 0.1)),
        "clamp_max": Case("clamp_max.default", (x, 0.1)),
    }  # fmt: skip


def _arithmetic() -> Iterator[dict[str, Case]]:
    x, y, row, n = normal(3, 4, 5), normal(3, 4, 5), normal(4, 1), whole(3, 4, 5)
    for name in ("add", "sub"):
        yield {
            name: Case(f"{name}.Tensor", (x, y)),
            f"{name} broadcast, alpha": Case(f"{name}.Tensor", (x, row), {"alpha": 0.3}),
            f"{name} number": Case(f"{name}.Tensor", (x, 0.1)),
            f"{name} integers": Case(f"{name}.Tensor", (n, whole(5))),
            f"{name} Scalar": Case(f"{name}.Scalar", (x, 1e-5)),
        }
    for name in ("mul", "div"):
        yield {
            name: Case(f"{name}.Tensor", (x, y)),
            f"{name} number": Case(f"{name}.Tensor", (x, 0.1)),
            f"{name} integers": Case(f"{name}.Tensor", (n, whole(5) + 1)),
            f"{name} odd": Case(f"{name}.Tensor", (odd(4, 5), normal(5))),
        }
    for name in ("floor_divide", "remainder", "fmod"):
        form = "default" if name == "floor_divide" else "Tensor"
        yield {
            name: Case(f"{name}.{form}", (3 * x, y)),
            f"{name} whole": Case(f"{name}.{form}", (n - 4, torch.tensor(3))),
        }
    yield {"remainder number": Case("remainder.Scalar", (x, 0.3)), "fmod number": Case("fmod.Scalar", (x, 0.3))}
    for name in ("maximum", "minimum", "logical_and", "logical_or", "logical_xor"):
        yield {name: Case(f"{name}.default", (odd(4, 5), normal(5)))}
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
        yield {name: Case(f"{name}.Tensor", (n, whole(5)))}
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        yield {
            name: Case(f"{name}.Tensor", (whole(3, 4, high=3).double(), whole(4, high=3).double())),
            f"{name} number": Case(f"{name}.Scalar", (torch.tensor([0.1, 0.2, 0.5]).double(), 0.1)),
        }
    yield {
        "rsub": Case("rsub.Scalar", (x, 1, 0.3)),
        "rsub tensor": Case("rsub.Tensor", (x, y)),
        "div floor": Case("div.Tensor_mode", (3 * x, y), {"rounding_mode": "floor"}),
        "div trunc": Case("div.Tensor_mode", (3 * x, 0.7), {"rounding_mode": "trunc"}),
        "div whole, trunc": Case("div.Tensor_mode", (n - 4, 3), {"rounding_mode": "trunc"}),
        "div whole, floor": Case("div.Tensor_mode", (n - 4, 3), {"rounding_mode": "floor"}),
        "pow 2": Case("pow.Tensor_Scalar", (x, 2)),
        "pow 3": Case("pow.Tensor_Scalar", (x, 3)),
        "pow -2": Case("pow.Tensor_Scalar", (x, -2)),
        "pow 0.5": Case("pow.Tensor_Scalar", (positive(4, 5), 0.5)),
        "pow 0.3": Case("pow.Tensor_Scalar", (positive(4, 5) * 50, 0.3)),
        "pow -1.7": Case("pow.Tensor_Scalar", (positive(4, 5) * 50, -1.7)),
        "pow of a number": Case("pow.Scalar", (10000, -positive(4, 5))),
        "pow of 0.1": Case("pow.Scalar", (0.1, x)),
        "pow of tensors": Case("pow.Tensor_Tensor", (positive(4, 5), normal(5))),
        "pow of integers": Case("pow.Tensor_Scalar", (n, 3)),
        "addcmul": Case("addcmul.default", (x, y, row), {"value": 0.3}),
        "addcdiv": Case("addcdiv.default", (x, y, positive(4, 5)), {"value": -0.3}),
        "lerp": Case("lerp.Scalar", (x, y, 0.3)),
        "lerp far": Case("lerp.Scalar", (x, y, 0.8)),
        "lerp tensor": Case("lerp.Tensor", (x, y, positive(4, 1))),
        "add_": Case("add_.Tensor", (normal(3, 4), normal(4))),
    }  # fmt: skip


def _reductions() -> Iterator[dict[str, Case]]:
    x, n, yes = normal(4, 5, 7, shift=0.5), whole(4, 5, 7), whole(4, 5, 7, high=2).bool()
    for name in ("sum", "mean"):
        yield {
            f"{name} all": Case(f"{name}.default", (x,)),
            f"{name} axes": Case(f"{name}.{'dim_IntList' if name == 'sum' else 'dim'}", (x, [0, -1], True)),
            f"{name} no axes": Case(f"{name}.{'dim_IntList' if name == 'sum' else 'dim'}", (x, [])),
            f"{name} long": Case(f"{name}.default", (normal(70_000, shift=0.1),)),
        }
    for name in ("var", "std", "var_mean", "std_mean"):
        yield {
            f"{name} all": Case(f"{name}.default", (x,)),
            f"{name} axes": Case(f"{name}.correction", (x, [1, 2]), {"correction": 0, "keepdim": True}),
            f"{name} biased": Case(f"{name}.dim", (x + 30, [1], False)),
            f"{name} 2": Case(f"{name}.correction", (x, [-1]), {"correction": 2}),
        }
    yield {
        "sum of integers": Case("sum.dim_IntList", (n, [1])),
        "sum of booleans": Case("sum.default", (yes,)),
        "prod": Case("prod.default", (x[0],)),
        "prod axis": Case("prod.dim_int", (n, 1, True)),
        "cumsum": Case("cumsum.default", (x, 1)),
        "cumsum of booleans": Case("cumsum.default", (yes, -1)),
        "logsumexp": Case("logsumexp.default", (3 * x, [0, 2])),
        "logsumexp kept": Case("logsumexp.default", (odd(4, 5)[1:2].nan_to_num(nan=0.0, posinf=3.0), [1], True)),
        "softmax": Case("_softmax.default", (30 * x, 1, False)),
        "softmax odd": Case("_softmax.default", (torch.where(odd(4, 6) > 0.5, -torch.inf, normal(4, 6)), -1, False)),
        "softmax long": Case("softmax.int", (normal(3, 5000), -1)),
        "_safe_softmax": Case("_safe_softmax.default", (torch.cat([torch.full((1, 5), -torch.inf), normal(2, 5)]), 1)),
        "_log_softmax": Case("_log_softmax.default", (30 * x + 500, 2, False)),
        "_log_softmax first axis": Case("_log_softmax.default", (x, 0, False)),
        "log_softmax": Case("log_softmax.int", (x, 1)),
        "amax": Case("amax.default", (x, [0, 2])),
        "amax odd": Case("amax.default", (odd(4, 5), [1], True)),
        "amin": Case("amin.default", (odd(4, 5), [1])),
        "aminmax": Case("aminmax.default", (x,), {"dim": 1}),
        "all": Case("all.dim", (yes, 1)),
        "any": Case("any.default", (x,)),
        "any axis": Case("any.dim", (yes, 2, True)),
    }  # fmt: skip
    for name in ("max", "min"):
        yield {
            f"{name} all": Case(f"{name}.default", (x,)),
            f"{name} axis": Case(f"{name}.dim", (x, 1, True)),
            f"{name} odd": Case(f"{name}.dim", (odd(4, 5), 1)),
            f"{name} of two": Case(f"{name}.other", (x, normal(7))),
            f"arg{name}": Case(f"arg{name}.default", (x, 1)),
            f"arg{name} all": Case(f"arg{name}.default", (n, None, True)),
        }


def _choices() -> Iterator[dict[str, Case]]:
    x, n, yes = normal(4, 5, 6), whole(4, 5, 6, high=4), whole(4, 5, 6, high=2).bool()
    yield {
        "sort": Case("sort.default", (x, 1, True)),
        "sort equal": Case("sort.default", (n, 2)),
        "sort stable": Case("sort.stable", (n,), {"stable": True, "dim": 1, "descending": True}),
        "topk": Case("topk.default", (x, 3)),
        "topk smallest": Case("topk.default", (n, 2, 1, False)),
        "where": Case("where.self", (yes, x, normal(6))),
        "where numbers": Case("where.ScalarOther", (yes, x, 0.1)),
        "masked_fill": Case("masked_fill.Scalar", (x, yes[0], -0.1)),
        "masked_fill tensor": Case("masked_fill.Tensor", (x, yes, torch.tensor(-torch.inf).double())),
        "index": Case("index.Tensor", (x, [None, torch.tensor([[1, 0], [-1, 3]])])),
        "index two": Case("index.Tensor", (x, [torch.tensor([1, 3]), None, torch.tensor([0, 5])])),
        "index mask": Case("index.Tensor", (x, [yes[:, :, 0]])),
        "index_select": Case("index_select.default", (x, 1, torch.tensor([4, 4, 0]))),
        "index_put": Case("index_put.default", (x, [torch.tensor([1, 3])], normal(2, 5, 6))),
        "index_put adding": Case("index_put.default", (x, [torch.tensor([1, 1, 3])], normal(3, 5, 6), True)),
        "gather": Case("gather.default", (x, 1, whole(4, 2, 6, high=5))),
        "scatter": Case("scatter.src", (x, 1, torch.tensor([[[1], [4]]]), normal(4, 3, 6))),
        "scatter value": Case("scatter.value", (x, 2, whole(4, 2, 1, high=6), 0.1)),
        "scatter reduce": Case("scatter.value_reduce", (x, 1, torch.tensor([[[1], [1]]]), 0.3), {"reduce": "add"}),
        "scatter_add": Case("scatter_add.default", (x, 1, whole(3, 4, 2, high=5), normal(4, 5, 6))),
        "slice_scatter": Case("slice_scatter.default", (x, normal(4, 2, 6), 1, 1, 5, 2)),
        "select_scatter": Case("select_scatter.default", (x, normal(4, 6), 1, -2)),
        "embedding": Case("embedding.default", (normal(7, 3), whole(2, 4, high=7), 2)),
        "zeros": Case("zeros.default", ([2, 3],)),
        "ones": Case("ones.default", ([2, 3],), {"dtype": torch.int64}),
        "full": Case("full.default", ([2, 3], 0.1)),
        "zeros_like": Case("zeros_like.default", (x,)),
        "zero": Case("zero.default", (x,)),
        "ones_like": Case("ones_like.default", (n,)),
        "full_like": Case("full_like.default", (x, 0.1)),
        "fill": Case("fill.Scalar", (x, 0.1)),
        "fill tensor": Case("fill.Tensor", (n, torch.tensor(3))),
        "new_zeros": Case("new_zeros.default", (x, [2])),
        "_efficientzerotensor": Case("_efficientzerotensor.default", ([2, 3],)),
        "new_ones": Case("new_ones.default", (n, [2])),
        "new_full": Case("new_full.default", (x, [2], 0.1)),
        "scalar_tensor": Case("scalar_tensor.default", (0.1,)),
        "arange": Case("arange.default", (7,)),
        "arange step": Case("arange.start_step", (0.5, 4, 0.1)),
        "arange whole": Case("arange.start_step", (3, 20, 4)),
        "linspace": Case("linspace.default", (-0.3, 1.7, 9)),
        "eye": Case("eye.m", (3, 5)),
    }  # fmt: skip


def _less_usual() -> Iterator[dict[str, Case]]:
    x, y, row, far = normal(3, 4, 5), normal(3, 4, 5), normal(4, 1), spread(5, 41)
    for name in ("asinh", "deg2rad", "rad2deg", "sinc"):
        yield {name: Case(f"{name}.default", (far,)), f"{name} near 0": Case(f"{name}.default", (x,))}
    for name in ("angle", "signbit", "isposinf", "isneginf"):
        yield {name: Case(f"{name}.default", (odd(4, 6),))}
    for name in ("hypot", "fmax", "fmin", "logaddexp", "logaddexp2"):
        yield {name: Case(f"{name}.default", (x, row)), f"{name} odd": Case(f"{name}.default", (odd(4, 5), normal(5)))}
    yield {
        "acosh": Case("acosh.default", (positive(4, 50) * 3 + 1,)),
        "atanh": Case("atanh.default", (far / 31,)),
        "frexp": Case("frexp.Tensor", (far,)),
        "logit": Case("logit.default", (positive(4, 5) / 2,)),
        "logit eps": Case("logit.default", (far, 0.125)),
        "nan_to_num": Case("nan_to_num.default", (odd(4, 5), 0.5, 3.0, -2.0)),
        "nan_to_num of numbers": Case("nan_to_num.default", (x,)),
        "copysign": Case("copysign.Tensor", (x, y)),
        "copysign number": Case("copysign.Scalar", (odd(4, 5), -2.0)),
        "xlogy": Case("xlogy.Tensor", (odd(4, 5), positive(4, 5))),
        "xlogy number": Case("xlogy.Scalar_Other", (x, 0.3)),
        "xlogy of a number": Case("xlogy.Scalar_Self", (0.7, positive(4, 5))),
        "xlog1py": Case("special_xlog1py.default", (odd(4, 5), positive(4, 5) - 0.9)),
        "xlog1py number": Case("special_xlog1py.other_scalar", (x, 0.3)),
        "ldexp": Case("ldexp.Tensor", (x, y)),
        "ldexp whole": Case("ldexp.Tensor", (x, whole(5))),
        "heaviside": Case("heaviside.default", (odd(4, 5), normal(4, 5))),
    }


def _counted() -> Iterator[dict[str, Case]]:
    x, n = normal(4, 5, 7), whole(4, 5, 7, high=4).double()
    rows = x.sort(-1).values
    edges = torch.tensor([-1.0, 0.25, 0.5, 1.5]).double()
    for name in ("median", "nanmedian"):
        yield {
            f"{name} all": Case(f"{name}.default", (x,)),
            f"{name} axis": Case(f"{name}.dim", (odd(4, 5), 1, True)),
            f"{name} equal": Case(f"{name}.dim", (n, 2)),
        }
    for name in ("cummax", "cummin", "logcumsumexp"):
        yield {name: Case(f"{name}.default", (x, 1)), f"{name} equal": Case(f"{name}.default", (n, -1))}
    for name in ("_unique2", "unique_consecutive"):
        given = (n, True, True, True) if name == "_unique2" else (n, True, True)
        yield {name: Case(f"{name}.default", given)}
    for how in ("sum", "mean", "prod", "max", "min"):
        data = {"lengths": whole(4, 3, high=2), "axis": 1, "unsafe": True}
        yield {
            f"segment_reduce {how}": Case("segment_reduce.default", (x, how), {"lengths": torch.tensor([1, 0, 3])}),
            f"segment_reduce {how} inner": Case("segment_reduce.default", (x, how), {**data, "initial": 0.3}),
        }
    yield {
        "cummax odd": Case("cummax.default", (odd(4, 5), 1)),
        "kthvalue": Case("kthvalue.default", (odd(4, 5), 3, 1)),
        "mode": Case("mode.default", (n, 2)),
        "cumprod": Case("cumprod.default", (x, 1)),
        "count_nonzero": Case("count_nonzero.dim_IntList", (n, [0, 2])),
        "count_nonzero all": Case("count_nonzero.default", (n,)),
        "nonzero": Case("nonzero.default", (n,)),
        "nonzero_static": Case("nonzero_static.default", (n[0],), {"size": 40}),
        "nansum": Case("nansum.default", (odd(4, 5), [1], True)),
        "trace": Case("trace.default", (x[0],)),
        "unique_dim": Case("unique_dim.default", (n[:, :2, 0], 0, True, True, True)),
        "unique_consecutive of slices": Case("unique_consecutive.default", (n[:, :2, :1], True, True, 1)),
        "searchsorted": Case("searchsorted.Tensor", (rows, normal(4, 5, 2)), {"right": True, "out_int32": True}),
        "searchsorted row": Case("searchsorted.Tensor", (edges, n), {"side": "left"}),
        "searchsorted unsorted": Case("searchsorted.Tensor", (x, normal(4, 5, 2)), {"sorter": x.argsort(-1)}),
        "searchsorted number": Case("searchsorted.Scalar", (edges, 0.25)),
        "bucketize": Case("bucketize.Tensor", (n, edges), {"right": True}),
        "isin": Case("isin.Tensor_Tensor", (n, n[0, 0, :2])),
        "histc": Case("histc.default", (x, 7, -1, 1)),
        "histc of all": Case("histc.default", (n, 3)),
        "histogram": Case("histogram.bin_ct", (x, 5), {"weight": normal(4, 5, 7), "range": [-1.0, 2.0]}),
        "histogram density": Case("histogram.bin_ct", (x, 5), {"density": True}),
        "histogram edges": Case("histogram.bins_tensor", (n, edges)),
        "logspace": Case("logspace.default", (-0.3, 1.7, 9, 2.5)),
        "logspace down": Case("logspace.default", (3, -2, 6)),
    }


def more() -> tuple[Family, ...]:
    return _functions, _arithmetic, _reductions, _choices, resampling, moves, _less_usual, written, _counted
