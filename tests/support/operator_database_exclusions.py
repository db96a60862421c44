"""Operations of PyTorch's operator database that convscope does not aim to prove, each with the reason.

The names are the database's own. Everything else counts, whether it is proved or not.
"""

from collections.abc import Mapping

DECOMPOSED = "a matrix is decomposed or solved by LAPACK: its result is defined by an equation, not number by number"
SPECIAL = "a special function: its kernel sums a series or a table of coefficients that no definition prescribes"
DRAWN = "the result is drawn at random, or is memory that nothing has written to: there is nothing to calculate"

LINEAR_ALGEBRA = (
    "cholesky", "cholesky_inverse", "cholesky_solve", "geqrf", "linalg_cholesky", "linalg_cholesky_ex", "linalg_cond",
    "linalg_det", "linalg_eig", "linalg_eigh", "linalg_eigvals", "linalg_eigvalsh", "linalg_householder_product",
    "linalg_inv", "linalg_inv_ex", "linalg_ldl_factor", "linalg_ldl_factor_ex", "linalg_ldl_solve", "linalg_lstsq",
    "linalg_lstsq_grad_oriented", "linalg_lu", "linalg_lu_factor", "linalg_lu_factor_ex", "linalg_lu_solve",
    "linalg_matrix_norm", "linalg_matrix_power", "linalg_matrix_rank", "linalg_matrix_rank_hermitian", "linalg_norm",
    "linalg_norm_subgradients_at_zero", "linalg_pinv", "linalg_pinv_hermitian", "linalg_pinv_singular", "linalg_qr",
    "linalg_slogdet", "linalg_solve", "linalg_solve_ex", "linalg_solve_triangular", "linalg_svd", "linalg_svdvals",
    "linalg_tensorinv", "linalg_tensorsolve", "logdet", "lu", "lu_solve", "lu_unpack", "matrix_exp", "norm_nuc",
    "ormqr", "pca_lowrank", "pinverse", "qr", "svd", "svd_lowrank", "triangular_solve",
)  # fmt: skip
SPECIAL_FUNCTIONS = (
    "digamma", "erfinv", "i0", "igamma", "igammac", "lgamma", "mvlgamma_mvlgamma_p_1", "mvlgamma_mvlgamma_p_3",
    "mvlgamma_mvlgamma_p_5", "polygamma_polygamma_n_0", "polygamma_polygamma_n_1", "polygamma_polygamma_n_2",
    "polygamma_polygamma_n_3", "polygamma_polygamma_n_4", "special_airy_ai", "special_bessel_j0", "special_bessel_j1",
    "special_bessel_y0", "special_bessel_y1", "special_chebyshev_polynomial_t", "special_chebyshev_polynomial_u",
    "special_chebyshev_polynomial_v", "special_chebyshev_polynomial_w", "special_erfcx",
    "special_hermite_polynomial_h", "special_hermite_polynomial_he", "special_i0e", "special_i1", "special_i1e",
    "special_laguerre_polynomial_l", "special_legendre_polynomial_p", "special_log_ndtr",
    "special_modified_bessel_i0", "special_modified_bessel_i1", "special_modified_bessel_k0",
    "special_modified_bessel_k1", "special_ndtri", "special_polygamma_special_polygamma_n_0",
    "special_scaled_modified_bessel_k0", "special_scaled_modified_bessel_k1",
    "special_shifted_chebyshev_polynomial_t", "special_shifted_chebyshev_polynomial_u",
    "special_shifted_chebyshev_polynomial_v", "special_shifted_chebyshev_polynomial_w",
    "special_spherical_bessel_j0", "special_zeta",
)  # fmt: skip
RANDOM = (
    "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "new_empty", "new_empty_strided",
    "normal", "normal_in_place", "uniform",
)  # fmt: skip

EXCLUDED: Mapping[str, str] = {
    **dict.fromkeys(LINEAR_ALGEBRA, DECOMPOSED),
    **dict.fromkeys(SPECIAL_FUNCTIONS, SPECIAL),
    **dict.fromkeys(RANDOM, DRAWN),
}
"""Operation -> why it is left out."""
