"""Options of XLA's compiler under names: `config.xla_preset`.

They go to the compiler of the training step alone, not through XLA_FLAGS: there, a name that a version does
not know ends the process before Python can say so. Only names that jax 0.10 and 0.11 both know stand here.
"""

from gptjax.errors import InputError

LAYERS = 128 << 20  # bytes: collectives of several layers of the larger models become one

# The kind of device that a preset is for, and its options.
PRESETS = {
  'none': (None, {}),
  # Matrix products by cuBLAS alone; XLA otherwise lets its own Triton kernels compete.
  'gpu_cublas': ('gpu', {'xla_gpu_enable_triton_gemm': False}),
  # And by cublasLt, which adds biases and GELU itself.
  'gpu_cublaslt': ('gpu', {'xla_gpu_enable_triton_gemm': False, 'xla_gpu_enable_cublaslt': True}),
  # Two iterations of the scan over layers at once, so that one's copies hide behind the other's products.
  'gpu_double_buffer': ('gpu', {'xla_gpu_enable_while_loop_double_buffering': True}),
  # Several GPUs: collectives behind computation, and few large ones.
  'gpu_overlap': ('gpu', {'xla_gpu_enable_latency_hiding_scheduler': True,
                          'xla_gpu_enable_while_loop_double_buffering': True,
                          'xla_gpu_all_gather_combine_threshold_bytes': LAYERS,
                          'xla_gpu_reduce_scatter_combine_threshold_bytes': LAYERS,
                          'xla_gpu_all_reduce_combine_threshold_bytes': LAYERS}),
}


def check(preset, platform):
  """Refuses a preset that is for devices of another platform (ValueError)."""
  kind, _ = PRESETS[preset]
  if kind not in (None, platform):
    raise InputError(f'config.xla_preset = {preset!r} is for a {kind}, not for a {platform}: use none')


def options(preset):
  """{name: value} for `.compile(compiler_options=...)`."""
  return PRESETS[preset][1]
