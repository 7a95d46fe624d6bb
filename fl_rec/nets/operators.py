"""What a saved model may do: compute. It may come from somebody else, and Paddle also has operators that read and write
files, call Python, or open connections.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fl_rec.nets import graph

# Those of a program that scores: what a net is made of, without files, Python, other processes and optimizers.
ALLOWED = frozenset(
    """
    abs accuracy acos acosh addmm affine_channel affine_grid allclose angle arg_max arg_min argsort as_complex as_real
    as_strided asin asinh assign assign_value atan atan2 atanh auc baddbmm batch_fc batch_norm bce_loss beam_search
    beam_search_decode bernoulli bicubic_interp_v2 bilinear_interp bilinear_interp_v2 bilinear_tensor_product bincount
    bitwise_and bitwise_not bitwise_or bitwise_xor bmm box_clip box_coder brelu broadcast_tensors cast ceil celu
    channel_shuffle cholesky cholesky_solve clip clip_by_norm complex concat conditional_block conditional_block_infer
    conj conv2d conv2d_transpose conv3d conv3d_transpose copysign correlation cos cosh crf_decoding crop crop_tensor
    cross cross_entropy cross_entropy2 cummax cummin cumprod cumsum cvm data_norm deformable_conv deformable_conv_v1
    depthwise_conv2d depthwise_conv2d_transpose dequantize dequantize_abs_max dequantize_linear dequantize_log
    determinant diag_embed diag_v2 diagonal digamma dist dot dropout edit_distance eig eigh eigvals eigvalsh einsum
    elementwise_add elementwise_div elementwise_floordiv elementwise_fmax elementwise_fmin elementwise_heaviside
    elementwise_max elementwise_min elementwise_mod elementwise_mul elementwise_pow elementwise_sub elu empty equal
    equal_all erf erfinv exp expand expand_as_v2 expand_v2 expm1 exponential eye fake_channel_wise_dequantize_max_abs
    fake_channel_wise_quantize_abs_max fake_channel_wise_quantize_dequantize_abs_max fake_dequantize_max_abs
    fake_quantize_abs_max fake_quantize_dequantize_abs_max fake_quantize_dequantize_moving_average_abs_max
    fake_quantize_moving_average_abs_max fake_quantize_range_abs_max fc feed fetch fetch_v2 fft_c2c fft_c2r fft_r2c
    fill_any fill_any_like fill_constant fill_constant_batch_size_like fill_diagonal fill_diagonal_tensor flatten
    flatten2 flatten_contiguous_range flip floor fold frame frobenius_norm full_int_array gather gather_nd gather_tree
    gaussian_random gelu get_tensor_from_selected_rows grad_add graph_send_recv graph_send_ue_recv graph_send_uv
    greater_equal greater_than grid_sampler group_norm gru gru_unit gumbel_softmax hard_shrink hard_sigmoid hard_swish
    hash hierarchical_sigmoid hinge_loss histogram huber_loss i0 i0e i1 i1e im2sequence imag increment index_add
    index_put index_sample index_select instance_norm inverse is_empty isclose isfinite_v2 isinf_v2 isnan_v2 kldiv_loss
    kron kthvalue l1_norm label_smooth layer_norm leaky_relu lerp less_equal less_than lgamma linear_interp_v2 linspace
    lod_array_length lod_reset log log10 log1p log2 log_loss log_softmax logcumsumexp logical_and logical_not
    logical_or logical_xor logit logsigmoid logspace logsumexp lookup_table lookup_table_dequant lookup_table_v2 lrn
    lstm lstsq lu lu_unpack masked_select matmul matmul_v2 matrix_power matrix_rank max_pool2d_with_index
    max_pool3d_with_index maxout mean meshgrid minus mish mode mul multi_dot multinomial multiplex mv nanmedian nce
    nearest_interp nearest_interp_v2 nextafter nll_loss norm not_equal one_hot one_hot_v2 overlap_add p_norm pad pad2d
    pad3d partial_concat partial_sum pixel_shuffle pixel_unshuffle poisson pool2d pool3d pow prelu put_along_axis qr
    quantize quantize_linear randint randperm range rank_attention read_from_array real reciprocal reduce_all
    reduce_amax reduce_amin reduce_any reduce_max reduce_mean reduce_min reduce_prod reduce_sum relu relu6 renorm
    repeat_interleave requantize reshape reshape2 reverse rms_norm rnn roll round row_conv rrelu rsqrt scale scatter
    scatter_nd_add searchsorted seed segment_pool select_input select_output selu sequence_concat sequence_conv
    sequence_enumerate sequence_erase sequence_expand sequence_expand_as sequence_mask sequence_pad sequence_pool
    sequence_reshape sequence_reverse sequence_scatter sequence_slice sequence_softmax sequence_unpad set_value shape
    shape64 shard_index share_data shuffle_batch shuffle_channel sigmoid sigmoid_cross_entropy_with_logits sign silu
    sin sinh size slice slogdeterminant smooth_l1_loss soft_relu softmax softmax_with_cross_entropy softplus softshrink
    softsign solve spectral_norm split sqrt square squared_l2_distance squared_l2_norm squeeze squeeze2 stack stanh
    stft strided_slice sum svd swiglu swish take_along_axis tan tanh tanh_shrink tdm_child tdm_sampler temporal_shift
    tensor_array_to_tensor thresholded_relu tile top_k top_k_v2 trace transpose transpose2 triangular_solve
    tril_indices tril_triu trilinear_interp_v2 triu_indices trunc truncated_gaussian_random unbind unfold
    uniform_random uniform_random_batch_size_like unique unique_consecutive unpool unpool3d unsqueeze unsqueeze2
    unstack view_dtype view_slice viterbi_decode where where_index while write_to_array
    """.split()  # noqa: SIM905 - a list of so many lines would be read by nobody
)


class Scoring(NamedTuple):
    """A program that scores, its inputs, and the variable of the scores."""

    program: Any
    feeds: tuple[str, ...]
    target: Any


def read_program(content: bytes) -> Scoring:
    """What `graph.model_bytes` or Paddle's `save_inference_model` wrote. Nothing of it is run.

    Raises:
        ValueError, RuntimeError, LookupError, OSError: it is none, or does more than compute.
    """
    import paddle

    if not content:  # of which Paddle 2.6.2 dies
        raise ValueError("it is empty")
    program = paddle.static.deserialize_program(content)
    if other := others(program):
        raise ValueError(f"it has the operator {other[0]}, and a model may only compute: see fl_rec/nets/operators.py")
    feeds, targets = program.desc.get_feed_target_names(), program.desc.get_fetch_target_names()
    if len(targets) != 1 or not feeds:
        raise ValueError(f"it has {len(feeds)} inputs and {len(targets)} outputs")
    target, *_ = (program.global_block().var(name) for name in (*targets, *feeds))
    return Scoring(program, tuple(feeds), target)


def others(program: Any) -> list[str]:
    """The operators of a program that a saved model may not have."""
    return sorted(graph.operators(program) - ALLOWED)
