"""Plans as text."""

from gptjax.parallel import sharding
from gptjax.plan import estimate
from gptjax.text.words import plural

GIB, DAY = 2**30, 86_400

CAVEAT = ('These times are bounds that no program reaches; latencies, stragglers, input, evaluation, '
          'checkpoints and failures are not counted.')


def plan_text(plan, config, mesh, name, device, price):
  """Return a plan as text.

  Args:
    plan: `estimate.Plan`.
    config: resolved.
    mesh: the mesh that the plan is for.
    name: of the topology.
    device: `hardware.Device`.
    price: dollars per device and hour; 0: costs are not shown.
  """
  c, tokens = config.model, config.train.batch_size * config.data.seq_len
  verdict = 'fits' if plan.fits(device) else (
    f'DOES NOT FIT, with {estimate.SPARE_MEMORY:.0%} kept free: raise mesh.fsdp, set model.remat=full, '
    'lower train.microbatch_size')
  networks = {'intra': ('inside a slice or host', device.intra_bandwidth),
              'inter': ('between slices or hosts', device.inter_bandwidth)}
  lines = [
    f'{plural(c.n_layer, "layer")} x {c.n_embd} x {plural(c.n_head, "head")} on '
    f'{plural(mesh.size, "device")} of {name}, mesh {describe_mesh(mesh)}, remat {c.remat}, '
    f'attention {config.attention.kernel}',
    *sharding.mesh_warnings(config, mesh),
    f'{plural(config.train.batch_size, "sequence")} of {config.data.seq_len:,} tokens per step, '
    f'{config.train.microbatch_size} at a time; compiled in {plan.compile_seconds:.0f} s',
    '', f'memory of each device, GiB: {verdict} ({plan.memory["peak"] / device.memory:.0%} of '
    f'{device.memory / GIB:.2f})',
    *(f'  {kind:<14}{size / GIB:>9.3f}' for kind, size in plan.memory.items()),
    '', 'work per device and step',
    f'  TFLOP         {plan.flops / 1e12:>9.2f}   {plan.flops / plan.model_flops:.2f} times what the model '
    'needs (causal attention, no remat)',
    f'  GFLOP/token   {plan.flops * mesh.size / tokens / 1e9:>9.3f}',
    *(f'  GB sent       {size / 1e9:>9.3f}   {kind}, {networks[where][0]}'
      for (where, kind), size in sorted(plan.sent.items()) if size >= 1e5),
    '', 'seconds per step, lower bounds (roofline)',
    f'  compute       {plan.seconds["compute"]:>9.4f}   at {device.flops / 1e12:,.0f} TFLOP/s',
    f'  memory        {plan.seconds["memory"]:>9.4f}   at {device.bandwidth / 1e9:,.0f} GB/s',
    f'  kernels       {plan.seconds["kernels"]:>9.4f}   each at the slower of these two: '
    f'{plan.seconds["memory_bound"] / plan.seconds["kernels"]:.0%} of it in kernels that memory limits',
    *(f'  network       {plan.seconds[where]:>9.4f}   {what}, at {speed / 1e9:,.1f} GB/s'
      for where, (what, speed) in networks.items() if plan.seconds[where]),
    f'  step          {plan.seconds["step"]:>9.4f}   with network and kernels overlapped; '
    f'{plan.seconds["serial"]:.4f} without overlap',
    '', f'{plan.tokens_per_second:,.0f} tokens/s, MFU {plan.mfu:.1%}; '
    f'{run_length(plan, config, price, mesh.size)}', CAVEAT]
  return '\n'.join(lines)


def run_length(plan, config, price, devices):
  """Describe the duration and the cost of a run over all tokens of the config."""
  tokens = config.train.steps * config.train.batch_size * config.data.seq_len
  share = (plural(config.train.steps, 'step') if tokens
           else f'not the whole run of {config.train.epochs:g} epochs')
  tokens = tokens or 1e9
  days = tokens / plan.tokens_per_second / DAY
  cost = f', ${days * 24 * price * devices:,.0f} at ${price:g} per device and hour' * bool(price)
  return f'{days:,.2f} days for {tokens / 1e9:,.1f} billion tokens ({share}){cost}'


def ranking_table(ranked, name, device):
  """Format [(settings, Plan)] of `search.search` as a table, with the flags of the first row if it fits."""
  heads = ('step s', 'tokens/s', 'MFU', 'peak GiB', 'intra GB', 'inter GB', 'mesh, remat, microbatch')
  lines = [(f'{plan.seconds["step"]:.3f}', f'{plan.tokens_per_second:,.0f}', f'{plan.mfu:.1%}',
            f'{plan.memory["peak"] / GIB:.2f}{"" if plan.fits(device) else " (too much)"}',
            *(f'{sum(size for (where, _), size in plan.sent.items() if where == network) / 1e9:.2f}'
              for network in ('intra', 'inter')), describe_settings(settings)) for settings, plan in ranked]
  widths = [max(map(len, column)) for column in zip(heads, *lines)]
  table = ['  '.join([*(text.rjust(width) for text, width in zip(line[:-1], widths)), line[-1]])
           for line in (heads, *lines)]
  settings, plan = ranked[0]
  last = f'use: {config_flags(settings)}' if plan.fits(device) else f'none fits {name}: use more devices'
  return '\n'.join([*table, '', last])


def describe_settings(settings):
  """Format settings {field: value} like 'data 4 x fsdp 8, full, 256'."""
  mesh = ' x '.join(f'{axis} {settings[f"mesh.{axis}"]}' for axis in sharding.MESH_AXES
                    if settings[f'mesh.{axis}'] > 1)
  return f'{mesh or "1"}, {settings["model.remat"]}, {settings["train.microbatch_size"]}'


def config_flags(settings):
  """Format settings {field: value} like '--config.mesh.data=4 ...'."""
  return ' '.join(f'--config.{field}={value}' for field, value in settings.items())


def describe_mesh(mesh):
  """Format a mesh like 'data 4 x fsdp 8'."""
  return ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items() if size > 1) or '1'
