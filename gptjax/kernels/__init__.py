"""One file for each backend: fused attention, matmuls, compiler options.

  cpu          What XLA needs of a host that is the device itself: memory that stays, and threads to spare.
  cpu_matmul   Matmuls of activations with weights, and what XLA:CPU wants of their gradients.
  flash        Causal attention that may drop weights, in kernels of our own for NVIDIA GPUs: no array of
               scores exists.
  fused        Attention in one kernel, written by others: cuDNN's on NVIDIA GPUs, splash on TPUs. Neither
               drops weights. Our own that does, on NVIDIA GPUs, is in flash.py; which of all is for a
               device and a config is said here.
  xla_presets  Options of XLA's compiler under names: `config.xla_preset`.
"""
