"""Descriptions of NVIDIA GPUs for XLA's compiler, for `topology.describe`."""

# Threads and registers are common to all kinds; other values are from NVIDIA's data sheets and CUDA's tables.
TARGET_TEMPLATE = """gpu_device_info {
threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 threads_per_core_limit: 2048
fpus_per_core: %(fpus)d block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
registers_per_core_limit: 65536 registers_per_block_limit: 65536
shared_memory_per_core: %(shared)d shared_memory_per_block_optin: %(optin)d core_count: %(cores)d
memory_bandwidth: %(bandwidth)d l2_cache_size: %(cache)d clock_rate_ghz: %(clock)s
device_memory_size: %(memory)d cuda_compute_capability { major: %(major)d } }
runtime_version { major: 12 minor: 8 patch: 0 } platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 } device_description_str: "%(name)s" """

KINDS = {
  'h100': dict(name='NVIDIA H100 80GB HBM3', fpus=128, shared=233_472, optin=232_448, cores=132, major=9,
               bandwidth=3_352_320_000_000, cache=52_428_800, clock=1.98, memory=84_929_347_584),
  'a100': dict(name='NVIDIA A100-SXM4-80GB', fpus=64, shared=167_936, optin=166_912, cores=108, major=8,
               bandwidth=2_039_000_000_000, cache=41_943_040, clock=1.41, memory=84_929_347_584),
}


def target_config(kind):
  """Return the text form of XLA's GpuTargetConfigProto for 'h100' or 'a100'."""
  return TARGET_TEMPLATE % KINDS[kind]
