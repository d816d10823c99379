"""The TensorFlow functions that layers of Keras 2 may name without ``trust=True``.

Keras 2 makes a layer of each TensorFlow function that a functional model calls, and the configuration
names the function (``layers/core/tf_op_layer.py``). The names are TensorFlow's canonical ones, of 2.15 and
2.21, without ``compat.v1.``; the functions in this list only compute.
"""

from __future__ import annotations

_COMPUTING = """
__operators__.add __operators__.eq __operators__.getitem __operators__.ne __operators__.ragged_getitem
approx_top_k arg_max arg_min argsort audio.decode_wav audio.encode_wav batch_gather batch_to_space
batch_to_space_nd bitcast bitwise.bitwise_and bitwise.bitwise_or bitwise.bitwise_xor bitwise.invert
bitwise.left_shift bitwise.right_shift boolean_mask broadcast_dynamic_shape broadcast_static_shape
broadcast_to cast clip_by_average_norm clip_by_global_norm clip_by_norm clip_by_value concat constant
convert_to_tensor debugging.assert_all_finite debugging.assert_equal debugging.assert_greater
debugging.assert_greater_equal debugging.assert_integer debugging.assert_less debugging.assert_less_equal
debugging.assert_near debugging.assert_negative debugging.assert_non_negative debugging.assert_non_positive
debugging.assert_none_equal debugging.assert_positive debugging.assert_proper_iterable debugging.assert_rank
debugging.assert_rank_at_least debugging.assert_rank_in debugging.assert_same_float_dtype
debugging.assert_scalar debugging.assert_shapes debugging.assert_type debugging.check_numerics div
dtypes.as_dtype dtypes.complex dtypes.saturate_cast dynamic_partition dynamic_stitch edit_distance einsum
ensure_shape expand_dims extract_volume_patches eye fftnd fill floor_div gather gather_nd guarantee_const
histogram_fixed_width histogram_fixed_width_bins identity identity_n ifftnd image.adjust_brightness
image.adjust_contrast image.adjust_gamma image.adjust_hue image.adjust_jpeg_quality image.adjust_saturation
image.central_crop image.combined_non_max_suppression image.convert_image_dtype image.crop_and_resize
image.crop_to_bounding_box image.draw_bounding_boxes image.extract_glimpse image.extract_image_patches
image.extract_patches image.flip_left_right image.flip_up_down image.generate_bounding_box_proposals
image.grayscale_to_rgb image.hsv_to_rgb image.image_gradients image.non_max_suppression
image.non_max_suppression_overlaps image.non_max_suppression_padded image.non_max_suppression_with_scores
image.pad_to_bounding_box image.per_image_standardization image.psnr image.random_brightness
image.random_contrast image.random_crop image.random_flip_left_right image.random_flip_up_down
image.random_hue image.random_jpeg_quality image.random_saturation image.resize image.resize_area
image.resize_bicubic image.resize_bilinear image.resize_image_with_pad image.resize_images
image.resize_nearest_neighbor image.resize_with_crop_or_pad image.resize_with_pad image.rgb_to_grayscale
image.rgb_to_hsv image.rgb_to_yiq image.rgb_to_yuv image.rot90 image.sample_distorted_bounding_box
image.sobel_edges image.ssim image.ssim_multiscale image.stateless_random_brightness
image.stateless_random_contrast image.stateless_random_crop image.stateless_random_flip_left_right
image.stateless_random_flip_up_down image.stateless_random_hue image.stateless_random_jpeg_quality
image.stateless_random_saturation image.stateless_sample_distorted_bounding_box image.total_variation
image.transpose image.yiq_to_rgb image.yuv_to_rgb io.decode_and_crop_jpeg io.decode_base64 io.decode_bmp
io.decode_compressed io.decode_csv io.decode_gif io.decode_image io.decode_jpeg io.decode_json_example
io.decode_png io.decode_raw io.decode_webp io.encode_base64 io.encode_jpeg io.encode_png
io.extract_jpeg_shape io.parse_example io.parse_sequence_example io.parse_single_example
io.parse_single_sequence_example io.parse_tensor io.serialize_tensor irfftnd keras.activations.elu
keras.activations.exponential keras.activations.gelu keras.activations.hard_sigmoid keras.activations.linear
keras.activations.mish keras.activations.relu keras.activations.selu keras.activations.sigmoid
keras.activations.softmax keras.activations.softplus keras.activations.softsign keras.activations.swish
keras.activations.tanh keras.backend.abs keras.backend.all keras.backend.any keras.backend.arange
keras.backend.argmax keras.backend.argmin keras.backend.batch_dot keras.backend.batch_flatten
keras.backend.batch_normalization keras.backend.bias_add keras.backend.binary_crossentropy
keras.backend.cast keras.backend.cast_to_floatx keras.backend.categorical_crossentropy keras.backend.clip
keras.backend.concatenate keras.backend.constant keras.backend.conv1d keras.backend.conv2d
keras.backend.conv2d_transpose keras.backend.conv3d keras.backend.cos keras.backend.cumprod
keras.backend.cumsum keras.backend.depthwise_conv2d keras.backend.dot keras.backend.dropout
keras.backend.elu keras.backend.equal keras.backend.exp keras.backend.expand_dims keras.backend.eye
keras.backend.flatten keras.backend.gather keras.backend.greater keras.backend.greater_equal
keras.backend.hard_sigmoid keras.backend.in_top_k keras.backend.int_shape keras.backend.is_sparse
keras.backend.l2_normalize keras.backend.less keras.backend.less_equal keras.backend.local_conv1d
keras.backend.local_conv2d keras.backend.log keras.backend.max keras.backend.maximum keras.backend.mean
keras.backend.min keras.backend.minimum keras.backend.ndim keras.backend.not_equal keras.backend.one_hot
keras.backend.ones keras.backend.ones_like keras.backend.permute_dimensions keras.backend.pool2d
keras.backend.pool3d keras.backend.pow keras.backend.prod keras.backend.random_bernoulli
keras.backend.random_binomial keras.backend.random_normal keras.backend.random_uniform keras.backend.relu
keras.backend.repeat keras.backend.repeat_elements keras.backend.reshape keras.backend.resize_images
keras.backend.resize_volumes keras.backend.reverse keras.backend.round keras.backend.separable_conv2d
keras.backend.shape keras.backend.sigmoid keras.backend.sign keras.backend.sin keras.backend.softmax
keras.backend.softplus keras.backend.softsign keras.backend.sparse_categorical_crossentropy
keras.backend.spatial_2d_padding keras.backend.spatial_3d_padding keras.backend.sqrt keras.backend.square
keras.backend.squeeze keras.backend.stack keras.backend.std keras.backend.stop_gradient keras.backend.sum
keras.backend.tanh keras.backend.temporal_padding keras.backend.tile keras.backend.to_dense
keras.backend.transpose keras.backend.truncated_normal keras.backend.var keras.backend.zeros
keras.backend.zeros_like keras.losses.categorical_hinge keras.losses.cosine_similarity keras.losses.huber
keras.losses.log_cosh keras.metrics.binary_accuracy keras.metrics.binary_crossentropy
keras.metrics.binary_focal_crossentropy keras.metrics.categorical_accuracy
keras.metrics.categorical_crossentropy keras.metrics.categorical_focal_crossentropy keras.metrics.hinge
keras.metrics.kl_divergence keras.metrics.mean_absolute_error keras.metrics.mean_absolute_percentage_error
keras.metrics.mean_squared_error keras.metrics.mean_squared_logarithmic_error keras.metrics.poisson
keras.metrics.sparse_categorical_accuracy keras.metrics.sparse_categorical_crossentropy
keras.metrics.sparse_top_k_categorical_accuracy keras.metrics.squared_hinge
keras.metrics.top_k_categorical_accuracy linalg.adjoint linalg.band_part linalg.banded_triangular_solve
linalg.cholesky linalg.cholesky_solve linalg.cross linalg.det linalg.diag linalg.diag_part linalg.eig
linalg.eigh linalg.eigh_tridiagonal linalg.eigvals linalg.eigvalsh linalg.experimental.conjugate_gradient
linalg.expm linalg.global_norm linalg.inv linalg.logdet linalg.logm linalg.lstsq linalg.lu
linalg.lu_matrix_inverse linalg.lu_reconstruct linalg.lu_solve linalg.matmul linalg.matrix_rank
linalg.matrix_transpose linalg.matvec linalg.normalize linalg.pinv linalg.qr linalg.set_diag linalg.slogdet
linalg.solve linalg.sqrtm linalg.svd linalg.tensor_diag linalg.tensor_diag_part linalg.trace
linalg.triangular_solve linalg.tridiagonal_matmul linalg.tridiagonal_solve linspace math.abs
math.accumulate_n math.acos math.acosh math.add math.add_n math.angle math.approx_max_k math.approx_min_k
math.argmax math.argmin math.asin math.asinh math.atan math.atan2 math.atanh math.bessel_i0 math.bessel_i0e
math.bessel_i1 math.bessel_i1e math.betainc math.bincount math.ceil math.confusion_matrix math.conj math.cos
math.cosh math.count_nonzero math.cumprod math.cumsum math.cumulative_logsumexp math.digamma math.divide
math.divide_no_nan math.equal math.erf math.erfc math.erfcinv math.erfinv math.exp math.expm1 math.floor
math.floordiv math.floormod math.greater math.greater_equal math.igamma math.igammac math.imag math.in_top_k
math.invert_permutation math.is_finite math.is_inf math.is_nan math.is_non_decreasing
math.is_strictly_increasing math.l2_normalize math.lbeta math.less math.less_equal math.lgamma math.log
math.log1p math.log_sigmoid math.logical_and math.logical_not math.logical_or math.logical_xor math.maximum
math.minimum math.multiply math.multiply_no_nan math.ndtri math.negative math.nextafter math.not_equal
math.polygamma math.polyval math.pow math.real math.reciprocal math.reciprocal_no_nan math.reduce_all
math.reduce_any math.reduce_euclidean_norm math.reduce_logsumexp math.reduce_max math.reduce_mean
math.reduce_min math.reduce_prod math.reduce_std math.reduce_sum math.reduce_variance math.rint math.round
math.rsqrt math.scalar_mul math.segment_max math.segment_mean math.segment_min math.segment_prod
math.segment_sum math.sigmoid math.sign math.sin math.sinh math.sobol_sample math.softplus
math.special.bessel_j0 math.special.bessel_j1 math.special.bessel_k0 math.special.bessel_k0e
math.special.bessel_k1 math.special.bessel_k1e math.special.bessel_y0 math.special.bessel_y1
math.special.dawsn math.special.expint math.special.fresnel_cos math.special.fresnel_sin math.special.spence
math.sqrt math.square math.squared_difference math.subtract math.tan math.tanh math.top_k math.truediv
math.unsorted_segment_max math.unsorted_segment_mean math.unsorted_segment_min math.unsorted_segment_prod
math.unsorted_segment_sqrt_n math.unsorted_segment_sum math.xdivy math.xlog1py math.xlogy math.zero_fraction
math.zeta meshgrid nn.atrous_conv2d nn.atrous_conv2d_transpose nn.avg_pool nn.avg_pool1d nn.avg_pool2d
nn.avg_pool3d nn.batch_norm_with_global_normalization nn.batch_normalization nn.bias_add
nn.collapse_repeated nn.compute_accidental_hits nn.compute_average_loss nn.conv1d nn.conv1d_transpose
nn.conv2d nn.conv2d_backprop_filter nn.conv2d_backprop_input nn.conv2d_transpose nn.conv3d
nn.conv3d_backprop_filter nn.conv3d_transpose nn.conv_transpose nn.convolution nn.crelu
nn.ctc_beam_search_decoder nn.ctc_greedy_decoder nn.ctc_loss nn.ctc_loss_v2 nn.ctc_unique_labels
nn.depth_to_space nn.depthwise_conv2d nn.depthwise_conv2d_backprop_filter nn.depthwise_conv2d_backprop_input
nn.depthwise_conv2d_native nn.dilation2d nn.dropout nn.elu nn.embedding_lookup nn.embedding_lookup_sparse
nn.erosion2d nn.experimental.general_dropout nn.experimental.stateless_dropout nn.fractional_avg_pool
nn.fractional_max_pool nn.fused_batch_norm nn.gelu nn.isotonic_regression nn.l2_loss nn.leaky_relu
nn.local_response_normalization nn.log_poisson_loss nn.log_softmax nn.max_pool nn.max_pool1d nn.max_pool2d
nn.max_pool3d nn.max_pool_with_argmax nn.moments nn.nce_loss nn.normalize_moments nn.pool
nn.quantized_avg_pool nn.quantized_conv2d nn.quantized_max_pool nn.quantized_relu_x nn.relu nn.relu6
nn.relu_layer nn.safe_embedding_lookup_sparse nn.sampled_softmax_loss nn.scale_regularization_loss nn.selu
nn.separable_conv2d nn.sigmoid_cross_entropy_with_logits nn.silu nn.softmax
nn.softmax_cross_entropy_with_logits nn.softmax_cross_entropy_with_logits_v2 nn.softsign nn.space_to_batch
nn.space_to_depth nn.sparse_softmax_cross_entropy_with_logits nn.sufficient_statistics
nn.weighted_cross_entropy_with_logits nn.weighted_moments nn.with_space_to_batch nn.xw_plus_b norm one_hot
ones ones_like pad parallel_stack quantization.dequantize quantization.fake_quant_with_min_max_args
quantization.fake_quant_with_min_max_args_gradient quantization.fake_quant_with_min_max_vars
quantization.fake_quant_with_min_max_vars_gradient quantization.fake_quant_with_min_max_vars_per_channel
quantization.fake_quant_with_min_max_vars_per_channel_gradient quantization.quantize
quantization.quantize_and_dequantize quantization.quantize_and_dequantize_v2 quantization.quantized_concat
quantize_v2 ragged.boolean_mask ragged.constant ragged.constant_value ragged.cross ragged.cross_hashed
ragged.range ragged.row_splits_to_segment_ids ragged.segment_ids_to_row_splits ragged.stack
ragged.stack_dynamic_partitions random.all_candidate_sampler random.categorical
random.experimental.index_shuffle random.experimental.stateless_shuffle random.fold_in random.gamma
random.learned_unigram_candidate_sampler random.log_uniform_candidate_sampler random.multinomial
random.normal random.poisson random.shuffle random.split random.stateless_binomial
random.stateless_categorical random.stateless_gamma random.stateless_multinomial random.stateless_normal
random.stateless_parameterized_truncated_normal random.stateless_poisson random.stateless_truncated_normal
random.stateless_uniform random.truncated_normal random.uniform random.uniform_candidate_sampler range rank
realdiv repeat required_space_to_batch_paddings reshape reverse reverse_sequence rfftnd roll scatter_nd
searchsorted sequence_mask setdiff1d sets.difference sets.intersection sets.size sets.union shape shape_n
signal.dct signal.fft signal.fft2d signal.fft3d signal.fftnd signal.fftshift signal.frame
signal.hamming_window signal.hann_window signal.idct signal.ifft signal.ifft2d signal.ifft3d signal.ifftnd
signal.ifftshift signal.inverse_mdct signal.inverse_stft signal.inverse_stft_window_fn signal.irfft
signal.irfft2d signal.irfft3d signal.irfftnd signal.kaiser_bessel_derived_window signal.kaiser_window
signal.linear_to_mel_weight_matrix signal.mdct signal.mfccs_from_log_mel_spectrograms signal.overlap_and_add
signal.rfft signal.rfft2d signal.rfft3d signal.rfftnd signal.stft signal.vorbis_window size slice sort
space_to_batch space_to_batch_nd sparse.add sparse.bincount sparse.concat sparse.cross sparse.cross_hashed
sparse.expand_dims sparse.eye sparse.fill_empty_rows sparse.from_dense sparse.mask sparse.maximum
sparse.merge sparse.minimum sparse.reduce_max sparse.reduce_max_sparse sparse.reduce_sum
sparse.reduce_sum_sparse sparse.reorder sparse.reset_shape sparse.reshape sparse.retain sparse.sampled_addmm
sparse.segment_mean sparse.segment_sqrt_n sparse.segment_sum sparse.slice sparse.softmax
sparse.sparse_dense_matmul sparse.split sparse.to_dense sparse.to_indicator sparse.transpose sparse_matmul
sparse_to_dense split squeeze stack stop_gradient strided_slice string_split strings.as_string
strings.bytes_split strings.format strings.join strings.length strings.lower strings.ngrams
strings.reduce_join strings.regex_full_match strings.regex_replace strings.split strings.strip
strings.substr strings.to_hash_bucket strings.to_hash_bucket_fast strings.to_hash_bucket_strong
strings.to_number strings.unicode_decode strings.unicode_decode_with_offsets strings.unicode_encode
strings.unicode_script strings.unicode_split strings.unicode_split_with_offsets strings.unicode_transcode
strings.unsorted_segment_join strings.upper substr tensor_scatter_nd_add tensor_scatter_nd_max
tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile to_bfloat16
to_complex128 to_complex64 to_double to_float to_int32 to_int64 transpose truncatediv truncatemod tuple
unique unique_with_counts unravel_index unstack where zeros zeros_like
"""
COMPUTING = frozenset(_COMPUTING.split())

# The methods that layers of Keras 2 call on ragged and sparse tensors.
CLASS_METHODS = frozenset(
    f"from_{source}"
    for source in (
        "nested_row_lengths",
        "nested_row_splits",
        "row_lengths",
        "row_limits",
        "row_splits",
        "row_starts",
        "sparse",
        "tensor",
        "uniform_row_length",
        "value_rowids",
    )
)
_METHODS = """
bounding_shape dense_shape flat_values indices merge_dims nested_row_lengths nested_row_splits
nested_value_rowids nrows row_lengths row_limits row_splits row_starts to_sparse to_tensor value_rowids values
with_flat_values with_row_splits_dtype with_values
"""
METHODS = frozenset(_METHODS.split())
