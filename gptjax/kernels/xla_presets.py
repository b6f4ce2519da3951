"""Named sets of XLA compiler options: `config.xla_preset`.

They are passed to the compiler of the training step only, not through XLA_FLAGS, where an unknown name aborts
the process before Python can report it. All names here are known to jax 0.10 and 0.11.

On CPUs, training steps and the initial weights of pretraining are compiled with ON_CPUS, whatever the preset.
"""

import os

import jax

from gptjax.errors import InputError

LAYERS = 128 << 20  # bytes: combines the collectives of several layers of the larger models

# LLVM's first level: the step compiles a fifth faster, the initial weights three times as fast, and both run
# as fast as with the third level, because XLA vectorizes loops itself and matmuls are a library's.
LEVEL = 'xla_backend_optimization_level'
ON_CPUS = {LEVEL: 1}

# {preset: (platform that it is for, options)}
PRESETS = {
  'none': (None, {}),
  # Matmuls by cuBLAS only; by default XLA's autotuner also tries its own Triton kernels.
  'gpu_cublas': ('gpu', {'xla_gpu_enable_triton_gemm': False}),
  # And by cublasLt, which fuses biases and GELU.
  'gpu_cublaslt': ('gpu', {'xla_gpu_enable_triton_gemm': False, 'xla_gpu_enable_cublaslt': True}),
  # Unroll the scan over layers by two, so that the copies of one iteration overlap the matmuls of the other.
  'gpu_double_buffer': ('gpu', {'xla_gpu_enable_while_loop_double_buffering': True}),
  # Several GPUs: overlap collectives with computation, and combine them into a few large ones.
  'gpu_overlap': ('gpu', {'xla_gpu_enable_latency_hiding_scheduler': True,
                          'xla_gpu_enable_while_loop_double_buffering': True,
                          'xla_gpu_all_gather_combine_threshold_bytes': LAYERS,
                          'xla_gpu_reduce_scatter_combine_threshold_bytes': LAYERS,
                          'xla_gpu_all_reduce_combine_threshold_bytes': LAYERS}),
}


def check(preset, platform):
  """Raise InputError if a preset is for another platform."""
  kind, _ = PRESETS[preset]
  if kind not in (None, platform):
    raise InputError(f'config.xla_preset = {preset!r} is for a {kind}, not for a {platform}: use none')


def options(preset, platform):
  """{name: value} for `.compile(compiler_options=...)` on 'cpu', 'gpu' or 'tpu'.

  A level of optimization that the user has set for JAX or XLA stays.
  """
  is_set = jax.config.values['jax_disable_most_optimizations'] or LEVEL in os.environ.get('XLA_FLAGS', '')
  return (ON_CPUS if platform == 'cpu' and not is_set else {}) | PRESETS[preset][1]
