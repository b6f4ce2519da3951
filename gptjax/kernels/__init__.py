"""One file for each backend: fused attention, matmuls, compiler options.

  cpu           malloc, dispatch and thread settings for runs on CPU devices.
  cpu_forms     Forms of operations beside matmuls that are fast on XLA:CPU.
  cpu_matmul    Matmuls of activations with weights, and a layout of their gradients that is fast on XLA:CPU.
  dropout_hash  Which attention weights `flash` drops: a hash, so that no mask is stored.
  flash         Fused causal attention with dropout for NVIDIA GPUs, in Pallas: the scores are never
                materialized.
  fused         Fused attention from libraries: cuDNN on NVIDIA GPUs, splash on TPUs; and the choice of a
                kernel.
  int8          Weights as int8 with one float32 scale per output, for inference: w[i, o] is about
                q[i, o] s[o].
  xla_presets   Named sets of XLA compiler options: `config.xla_preset`.
"""
