"""The wrong functions: what each is, what is wrong with it, and in which half it is.

The first half may be run while the checker is developed, the second half only when it is finished.
"""

from typing import NamedTuple


class Wrong(NamedTuple):
    """A function with one mistake."""

    file: str
    function: str
    operation: str
    cause: str
    """The mistake's name."""
    half: int
    """1: for development; 2: held back; 0: neither."""


WRONG = (
    Wrong("convolution", "kernel_flipped", "conv2d", "kernel flipped", 1),
    Wrong("convolution", "stride_ignored", "conv2d", "stride ignored", 2),
    Wrong("convolution", "conv_forward_naive", "conv2d", "padding missing", 1),
    Wrong("convolution", "padding_at_one_side", "conv2d", "padding on one side only", 2),
    Wrong("convolution", "bias_forgotten", "conv2d", "bias forgotten", 1),
    Wrong("convolution", "conv_forward", "conv2d", "bias added once per channel", 2),
    Wrong("convolution", "mean_over_channels", "conv2d", "mean over the channels", 1),
    Wrong("convolution", "kernel_transposed", "conv2d", "kernel rows and columns swapped", 2),
    Wrong("convolution", "convolve", "conv2d", "last windows missing", 1),
    Wrong("convolution", "dilation_ignored", "conv2d", "dilation ignored", 2),
    Wrong("convolution", "last_channel_only", "conv2d", "only the last channel", 1),
    Wrong("convolution", "padded_with_the_edge", "conv2d", "padded with the edge", 2),
    Wrong("convolution", "stride_down_only", "conv2d", "stride in one direction only", 1),
    Wrong("convolution", "whole_numbers", "conv2d", "truncated to integers", 2),
    Wrong("convolution_backward", "overwritten", "conv2d_backward", "overlapping windows overwrite each other", 1),
    Wrong("convolution_backward", "conv_backward_naive", "conv2d_backward", "padding cut off at the wrong side", 2),
    Wrong("convolution_backward", "divided_by_the_batch", "conv2d_backward", "divided by the batch size", 1),
    Wrong("convolution_backward", "flipped", "conv2d_backward", "kernel flipped", 2),
    Wrong("convolution_backward", "bias_gradient_averaged", "conv2d_backward", "mean for the bias gradient", 1),
    Wrong("convolution_backward", "conv_backward", "conv2d_backward", "stride ignored", 2),
    Wrong("pooling", "zeros_compete", "max_pool2d", "padding competes as zeros", 1),
    Wrong("pooling", "max_pool_forward_naive", "max_pool2d", "stride ignored", 2),
    Wrong("pooling", "summed", "avg_pool2d", "sum for mean", 1),
    Wrong("pooling", "padding_not_counted", "avg_pool2d", "padding not counted", 2),
    Wrong("pooling", "every_tie", "max_pool2d_backward", "every tie gets the gradient", 1),
    Wrong("pooling", "max_pool_backward_naive", "max_pool2d_backward", "overlapping windows overwrite each other", 2),
    Wrong("pooling", "not_divided", "avg_pool2d_backward", "not divided by the window's size", 1),
    Wrong("pooling", "shares_overwritten", "avg_pool2d_backward", "overlapping windows overwrite each other", 2),
    Wrong("layers", "relu", "relu", "absolute value", 2),
    Wrong("layers", "relu_backward", "relu_backward", "decided by the gradient's sign", 1),
    Wrong("layers", "weight_not_transposed", "linear", "weight not transposed", 1),
    Wrong("layers", "affine_forward", "linear", "bias forgotten", 2),
    Wrong("layers", "softmax_over_the_batch", "softmax", "normalised over the whole batch", 2),
    Wrong("layers", "softmax_overflows", "softmax", "exponential overflows", 1),
    Wrong("layers", "softmax_twice", "cross_entropy", "softmax applied twice", 1),
    Wrong("layers", "softmax_loss", "cross_entropy", "sum for mean", 2),
    Wrong("layers", "variance_of_a_sample", "batch_norm", "variance divided by n - 1", 2),
    Wrong("layers", "spatial_batchnorm_forward", "batch_norm", "statistics for each pixel", 1),
    Wrong("layers", "im2col", "im2col", "channels last in each column", 2),
    Wrong("layers", "mse_halved", "mse", "halved", 1),
)

UNSEEN = (
    Wrong("unseen", "position_returned", "max_pool2d", "position instead of value", 0),
    Wrong("unseen", "maximum_of_each_column_averaged", "max_pool2d", "maximum along one axis only", 0),
    Wrong("unseen", "all_biases_added", "conv2d", "all biases added to each unit", 0),
    Wrong("unseen", "largest_product", "conv2d", "largest product instead of the sum", 0),
    Wrong("unseen", "dx_from_the_input", "conv2d_backward", "input in place of the weight", 0),
    Wrong("unseen", "dw_from_the_first_image", "conv2d_backward", "first image for all", 0),
    Wrong("unseen", "dw_from_the_weight", "conv2d_backward", "weight in place of the input", 0),
    Wrong("unseen", "stride_left_out", "max_pool2d_backward", "stride ignored where the gradient is put", 0),
    Wrong(
        "unseen", "place_in_the_window", "max_pool2d_backward", "position in the window taken for one in the image", 0
    ),
    Wrong("unseen", "row_for_column", "max_pool2d_backward", "row and column of the maximum swapped", 0),
    Wrong("unseen", "times_the_bias", "linear", "bias multiplied", 0),
    Wrong("unseen", "every_bias", "linear", "all biases added to each unit", 0),
    Wrong("unseen", "every_bias_of_the_last_kernel", "conv2d", "last kernel for all", 0),
    Wrong("unseen", "sign_lost", "conv2d", "absolute value", 0),
    Wrong("unseen", "dw_averaged_over_the_windows", "conv2d_backward", "divided by the number of windows", 0),
    Wrong("unseen", "dx_divided_by_the_window", "conv2d_backward", "divided by the number of cells in a window", 0),
    Wrong("unseen", "db_times_the_bias", "conv2d_backward", "db multiplied by bias", 0),
    Wrong("unseen", "relu_first", "linear", "negative inputs set to zero", 0),
    Wrong("unseen", "sum_over_the_units", "linear", "sum over the units", 0),
    Wrong("unseen", "divided_by_the_norm", "softmax", "divided by the norm", 0),
    Wrong("unseen", "first_label", "cross_entropy", "first label for all", 0),
    Wrong("unseen", "shift_scaled_too", "batch_norm", "shift scaled too", 0),
    Wrong("unseen", "bias_to_the_padded_window", "conv2d", "bias added to the input", 0),
    Wrong("unseen", "bias_to_the_image", "conv2d", "bias added to the input", 0),
    Wrong("unseen", "bias_to_the_kernel", "conv2d", "bias added to the kernel", 0),
    Wrong("unseen", "bias_to_the_weights", "linear", "bias added to the weights", 0),
    Wrong("unseen", "one_list_for_all_rows", "conv2d", "one row for all", 0),
    Wrong("unseen", "dw_returned_first", "conv2d_backward", "gradients in another order", 0),
    Wrong("unseen", "db_for_each_image", "conv2d_backward", "bias gradient summed over the wrong axes", 0),
    Wrong("unseen", "all_rows_normalized_together", "cross_entropy", "softmax over the whole batch", 0),
    Wrong("unseen", "probabilities_not_copied", "cross_entropy", "logarithm of negative numbers", 0),
    Wrong("unseen", "colon_for_the_row", "cross_entropy", "labels of all rows in each row", 0),
    Wrong("unseen", "positive_inputs_returned", "relu_backward", "input in place of the gradient", 0),
    Wrong("unseen", "powers_normalized_by_column", "softmax", "along the wrong axis", 0),
    Wrong("unseen", "one_image_short", "cross_entropy", "last image left out", 0),
    Wrong("unseen", "shifted_in_the_sum_only", "cross_entropy", "maximum not subtracted from the label's logit", 0),
    Wrong("unseen", "columns_not_transposed", "im2col", "reshaped without moving the axes", 0),
    Wrong("unseen", "windows_not_transposed", "im2col", "reshaped without moving the axes", 0),
    Wrong("unseen", "images_not_transposed", "im2col", "reshaped without moving the axes", 0),
    Wrong("unseen", "zeros_left_out", "avg_pool2d", "zeros not counted", 0),
)
"""Functions whose mistakes had no name when they were written."""

RIGHT = (
    ("conv2d_loops", "conv2d"),
    ("corr2d_lists", "conv2d"),
    ("conv2d_backward_by_fourier_transform", "conv2d_backward"),
    ("conv2d_unfold", "conv2d"),
    ("conv_forward_naive", "conv2d"),
    ("conv_forward", "conv2d"),
    ("conv_backward_naive", "conv2d_backward"),
    ("conv_backward", "conv2d_backward"),
    ("max_pool_forward_naive", "max_pool2d"),
    ("max_pool_backward_naive", "max_pool2d_backward"),
    ("pool_forward", "max_pool2d"),
    ("avg_pool", "avg_pool2d"),
    ("avg_pool_backward", "avg_pool2d_backward"),
    ("relu", "relu"),
    ("relu_backward", "relu_backward"),
    ("affine_forward", "linear"),
    ("softmax", "softmax"),
    ("softmax_loss", "cross_entropy"),
    ("spatial_batchnorm_forward", "batch_norm"),
    ("im2col", "im2col"),
    ("im2col_of_one_image", "im2col"),
    ("mse", "mse"),
)
"""Functions of right.py and their operations."""
