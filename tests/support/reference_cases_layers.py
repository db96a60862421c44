"""Calls of the operations behind layers and losses, for comparison with the reference."""

from collections.abc import Iterator

from reference_cases import Case, normal
from reference_cases_pointwise import Family


def _distances() -> Iterator[dict[str, Case]]:
    x, y = normal(2, 4, 5), normal(2, 3, 5)
    for p in (0.0, 0.5, 1.0, 2.0, 3.0, float("inf")):
        yield {
            f"_cdist_forward {p}": Case("_cdist_forward.default", (x, y, p, 2)),
            f"_pdist_forward {p}": Case("_pdist_forward.default", (x[0], p)),
        }
    v = normal(5, 3, 2)
    yield {
        "_cdist_forward far": Case("_cdist_forward.default", (x + 100, y + 100, 2.0, 2)),
        "_euclidean_dist": Case("_euclidean_dist.default", (x, y)),
        "_euclidean_dist far": Case("_euclidean_dist.default", (x + 30, y + 30)),
        "norm": Case("norm.Scalar", (x, 2)),
        "norm axes": Case("norm.ScalarOpt_dim", (x, 3, [0, 2], True)),
        "norm without an order": Case("norm.ScalarOpt_dim", (x, None, [1])),
        "_weight_norm_interface": Case("_weight_norm_interface.default", (v, normal(5, 1, 1), 0)),
        "_weight_norm_interface last": Case("_weight_norm_interface.default", (v, normal(1, 1, 2), 2)),
    }


def _outer_products() -> Iterator[dict[str, Case]]:
    x, left, right = normal(4, 2), normal(3, 4, 5), normal(3, 5, 2)
    yield {
        "vdot": Case("vdot.default", (normal(7), normal(7))),
        "addbmm": Case("addbmm.default", (x, left, right)),
        "addbmm scaled": Case("addbmm.default", (x, left, right), {"beta": 0.3, "alpha": -1.7}),
        "addr": Case("addr.default", (x, normal(4), normal(2))),
        "addr scaled": Case("addr.default", (x, normal(4), normal(2)), {"beta": 0, "alpha": 0.3}),
        "bilinear": Case(
            "_trilinear.default", (normal(2, 4), normal(5, 4, 3), normal(2, 3), [1, 3], [0], [1, 2], [2, 3])
        ),
        "_trilinear unrolled": Case(
            "_trilinear.default", (normal(3, 4), normal(3, 5), normal(4, 5), [2], [1], [0], [1], 1)
        ),
    }


def layers() -> tuple[Family, ...]:
    return _distances, _outer_products
