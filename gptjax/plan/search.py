"""Search for the fastest mesh, remat and microbatch size: estimates for all, compiled plans of the best."""

import functools
import itertools

from gptjax.command import bars
from gptjax.config import resolve as configs
from gptjax.errors import InputError
from gptjax.model import size
from gptjax.model.compute import REMAT
from gptjax.model.size import n_params
from gptjax.parallel import sharding
from gptjax.plan import estimate

# Work relative to no remat: full repeats one of three matmuls in the backward pass, dots the attention.
REMAT_WORK = {'none': 1.0, 'dots': 1.1, 'full': 4 / 3}


def search(config, devices, device, n_compiled):
  """Return the plans of the best settings.

  Args:
    config: resolved; its mesh, remat, scan and microbatch size are ignored.
    devices: from `topology.describe`.
    device: `hardware.Device`, the kind of these devices.
    n_compiled: number of settings to compile.

  Returns:
    [({field: value}, `estimate.Plan`)], those that fit first, fastest first.

  Raises:
    ValueError: no mesh of these devices divides the config.
  """
  ranked = sorted(candidates(config, devices),
                  key=lambda settings: estimate_seconds(config, settings, devices, device))
  if not ranked:
    raise InputError(f'no mesh of {len(devices)} devices divides config.train.batch_size = '
                     f'{config.train.batch_size} and config.model.n_embd = {config.model.n_embd}: '
                     'change them')
  plans, cached_activation_bytes = [], functools.cache(functools.partial(activation_bytes, config, devices))
  remaining_tries = 3 * n_compiled  # settings with good estimates may be too large for the compiler
  with bars.bar(total=n_compiled, unit='program', leave=False) as bar:
    for settings in ranked:
      room = (1 - estimate.SPARE_MEMORY) * device.memory - state_bytes(config, settings)
      if room < 0 or cached_activation_bytes(*activation_key(settings, devices)) > room:
        continue
      apply_settings(config, settings)
      mesh = sharding.make_mesh(config.mesh, devices)
      remaining_tries -= 1
      try:
        plans.append((settings, estimate.plan(config, mesh, device)))
        bar.update()
      except estimate.TooLarge:
        bar.set_postfix_str(f'too large: {settings["model.remat"]}, {settings["train.microbatch_size"]}')
      if len(plans) == n_compiled or not remaining_tries:
        break
  if not plans:
    raise InputError(f'{len(devices)} such devices have too little memory for any mesh'
                     f'{"" if remaining_tries else " of the highest-ranked ones"}: use more devices')
  return sorted(plans, key=lambda pair: (not pair[1].fits(device), pair[1].seconds['step']))


def candidates(config, devices):
  """Yield {field: value} for every mesh, remat and microbatch size that divides the config."""
  n, slices, batch = len(devices), sharding.slice_count(devices), config.train.batch_size
  powers = [2**i for i in range(n.bit_length()) if n % 2**i == 0]
  for replica, fsdp, tensor in itertools.product({1, slices}, powers, powers[:4]):
    data, rest = divmod(n, replica * fsdp * tensor)
    shards = n // tensor
    if rest or not data or config.model.n_embd % fsdp or config.model.n_inner % tensor or batch % shards:
      continue
    mesh = {f'mesh.{axis}': size for axis, size in zip(sharding.MESH_AXES, (replica, data, fsdp, tensor))}
    n_microbatches = [2**i for i in range(batch.bit_length()) if batch % (2**i * shards) == 0]
    for microbatches, remat in itertools.product(n_microbatches, REMAT):
      yield {**mesh, 'model.remat': remat, 'model.scan': configs.should_scan(remat, devices[0]),
             'train.microbatch_size': batch // microbatches}


def apply_settings(config, settings):
  """Set the fields in the config; the evaluation batch size becomes the microbatch size."""
  for field, value in settings.items():
    section, name = field.split('.')
    config[section][name] = value
  config.eval.batch_size = config.train.microbatch_size


def state_bytes(config, settings):
  """Lower bound of the bytes of weights, two moments and gradients per device, as if all were sharded."""
  gradients = 4 if settings['train.microbatch_size'] < config.train.batch_size else 2
  return (12 + gradients) * n_params(config.model) / (settings['mesh.fsdp'] * settings['mesh.tensor'])


def activation_key(settings, devices):
  """Return (sequences of a microbatch per device, tensor, remat), which determine the activations."""
  tensor = settings['mesh.tensor']
  return settings['train.microbatch_size'] * tensor // len(devices), tensor, settings['model.remat']


def activation_bytes(config, devices, rows, tensor, remat):
  """Bytes of activations saved by the forward pass on a device with `rows` sequences."""
  apply_settings(config, {'mesh.replica': 1, 'mesh.data': 1, 'mesh.fsdp': 1, 'mesh.tensor': tensor,
                          'train.microbatch_size': rows, 'model.remat': remat})
  return estimate.activation_bytes(config, sharding.make_mesh(config.mesh, devices[:tensor]))


def estimate_seconds(config, settings, devices, device):
  """Estimate the seconds per step, for ranking: the maximum of compute and network time."""
  c, n = config.model, len(devices)
  _, data, fsdp, tensor = (settings[f'mesh.{axis}'] for axis in sharding.MESH_AXES)
  tokens, remat = config.train.batch_size * config.data.seq_len, settings['model.remat']
  parts = config.train.batch_size // settings['train.microbatch_size']
  flops = size.flops_per_token(c, config.data.seq_len)['causal'] * tokens * REMAT_WORK[remat]
  work = flops / n / device.flops
  weights = 2 * n_params(c) / tensor  # bytes, in bfloat16
  gathered = parts * weights * (fsdp > 1) * (3 if remat == 'full' else 2)
  summed = 2 * weights / fsdp * (2 if parts > 1 else 1) * (data > 1)
  split = 4 * c.n_layer * 2 * 2 * tokens / (n / tensor) * c.n_embd * (1 - 1 / tensor)
  spans = sharding.slice_count(devices) > settings['mesh.replica']
  network = (gathered + summed + split) / (device.inter_bandwidth if spans else device.intra_bandwidth)
  ties = 1e-3 * (work + network + parts * work) + 1e-3 * work * state_bytes(config, settings) / device.memory
  return max(work, network) + ties
