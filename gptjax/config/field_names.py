"""Messages about names that are no fields: the nearest field, or what an option of nanoGPT is here."""

from gptjax import defaults
from gptjax.text import words

# Option -> the field of the config that does the same, or a flag (with --) if no field does.
NANOGPT = {
  'out_dir': '--workdir', 'dataset': 'data.corpus', 'block_size': 'model.n_ctx',
  'vocab_size': 'model.n_vocab', 'max_iters': 'train.steps', 'lr_decay_iters': 'optimizer.schedule_steps',
  'warmup_iters': 'optimizer.warmup_steps', 'beta1': 'optimizer.b1', 'beta2': 'optimizer.b2',
  'grad_clip': 'optimizer.clip_norm', 'eval_interval': 'eval.every_steps', 'eval_iters': 'eval.steps',
  'log_interval': 'log.every_steps', 'dtype': 'model.compute_dtype'}
# Flag of `gptjax score` and `generate`, or of lm-evaluation-harness and transformers -> the field.
OTHER_FLAGS = {'from': 'init_from', 'model': 'init_from', 'lr': 'optimizer.learning_rate',
               'max_steps': 'train.steps', 'output_dir': '--workdir'}
# Option -> what to do instead, if it is not the value of one field.
NANOGPT_INSTEAD = {
  'min_lr': 'set config.optimizer.final_fraction, a fraction of config.optimizer.learning_rate',
  'decay_lr': 'set config.optimizer.schedule, to constant for decay_lr=False',
  'gradient_accumulation_steps': 'set config.train.batch_size to the sequences per step, and '
                                 'config.train.microbatch_size to those that fit in memory',
  'always_save_checkpoint': 'set config.checkpoint.every_steps, config.checkpoint.keep and '
                            'config.checkpoint.keep_best',
  'wandb_log': 'set config.log.wandb to the name of the project',
  'wandb_project': 'set config.log.wandb to the name of the project',
  'wandb_run_name': 'a run has the name of its workdir',
  'eval_only': 'use gptjax evaluate --config=gpt2_zero_shot --config.init_from=WORKDIR '
               '--config.eval.tasks=held_out',
  'compile': 'every step is compiled',
  'device': 'set the environment variable JAX_PLATFORMS=cpu or JAX_PLATFORMS=cuda',
  'backend': 'JAX chooses the library for communication',
}


def unknown_field(arguments):
  """Return a message about the first --config.FIELD that is not a field; '' if there is none."""
  for argument in arguments:
    name = argument.partition('=')[0].lstrip('-').removeprefix('config.')
    if argument.lstrip('-').startswith('config.') and name not in defaults.declared():
      return not_a_field(name)
  return ''


def not_a_field(name):
  """Return a message about a name that is not a field, such as 'train.stepz', with what may be meant."""
  fields = list(defaults.declared())
  if meant := meaning(name.rpartition('.')[2]) or _did_you_mean(name, 'config.'):
    return f'config.{name} is not a field: {meant}'
  section = name.partition('.')[0]
  inside = [field.partition('.')[2] for field in fields if field.startswith(f'{section}.')]
  if '.' in name and inside:
    return f'config.{name} is not a field; config.{section} has {", ".join(inside)}'
  tops = dict.fromkeys(field.partition('.')[0] + '.' * ('.' in field) for field in fields)
  return (f'config.{name} is not a field; config has {", ".join(tops)} (with a dot: has fields of its own)')


def unknown_flag(name, flags):
  """Return a message about a flag that is unknown, with the flag or the field that may be meant.

  Args:
    name: of the flag, without dashes.
    flags: names of the flags of the command.
  """
  near = words.nearest_name(name, flags)
  if name in OTHER_FLAGS:
    return f'--{name} is not a flag: did you mean {_as_flag(OTHER_FLAGS[name])}?'
  meant = meaning(name) or (f'did you mean --{near}?' if near else _did_you_mean(name, '--config.'))
  return f'--{name} is not a flag: {meant or "set config fields with --config.FIELD=VALUE"}'


def _as_flag(field):
  return field if field.startswith('--') else f'--config.{field}'


def meaning(name):
  """Return what to do instead of setting an option of nanoGPT, such as 'max_iters'; '' for another name."""
  if name in NANOGPT:
    ours = NANOGPT[name]
    return f"nanoGPT's {name} is {ours if ours.startswith('--') else f'config.{ours}'}"
  return NANOGPT_INSTEAD.get(name, '')


def _did_you_mean(name, prefix):
  """The fields of the same last name, else the nearest one, each after `prefix`; '' if none is near."""
  fields = list(defaults.declared())
  same = [field for field in fields if field.rpartition('.')[2] == name.rpartition('.')[2]]
  near = same or list(filter(None, [words.nearest_name(name, fields)]))
  return f'did you mean {" or ".join(f"{prefix}{field}" for field in near)}?' if near else ''
