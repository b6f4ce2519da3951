"""How the user called the command: `gptjax generate` or `python -m gptjax.generate`.

Help texts and errors are written with `python -m gptjax.NAME`. `gptjax.cli` calls `use_console_script`, after
which `spelled` (of help texts) and `errors.print_line` replace that by the sub-command.
"""

import re

from gptjax import errors

# The sub-command of each module; `gptjax.main` has one for each job, `gptjax.pretrained` for each action.
SUBCOMMANDS = {
  'gptjax.main': 'pretrain', 'gptjax.generate': 'generate', 'gptjax.evaluate.score': 'score',
  'gptjax.evaluate.samples': 'samples',
  'gptjax.data.prepare': 'prepare', 'gptjax.data.inspect': 'inspect', 'gptjax.data.tokenizers': 'tokenizer',
  'gptjax.data.webtext_links': 'webtext-links', 'gptjax.data.languages': 'languages',
  'gptjax.data.adopt': 'adopt', 'gptjax.data.export': 'export-tokens',
  'gptjax.data.clean': 'clean', 'gptjax.evaluate.overlap': 'overlap', 'gptjax.report': 'report',
  'gptjax.finetune.glue': 'glue',
  'gptjax.plan': 'plan', 'gptjax.pretrained': 'export', 'gptjax.benchmark': 'benchmark',
  'gptjax.cli.doctor': 'doctor', 'gptjax.cli.completion': 'completion'}
# `python -m gptjax.pretrained export` and `gptjax export`; a line may end after `-m`.
_MODULE = re.compile(r'python -m\s+(gptjax(?:\.\w+)+)( (?:export|import)\b)?')
_CONFIG = re.compile(r'--config=configs/(\w+)\.py')

_subcommands = {}  # empty: the command was called as a module


def use_console_script(**jobs):
  """From now on texts have the sub-commands of `gptjax`.

  Args:
    jobs: `main='finetune'`, if that is the sub-command with which `gptjax.main` was called.
  """
  _subcommands.update(SUBCOMMANDS | {f'gptjax.{name}': job for name, job in jobs.items()})
  errors.as_called = _with_subcommands


def spelled(text):
  """Return a text with each command as the user called this one, and configs by name."""
  return _CONFIG.sub(r'--config=\1', _with_subcommands(text)) if _subcommands else text


def _with_subcommands(text):
  def replace(match):
    module, action = match.groups()
    if module not in _subcommands:
      return match[0]
    if module == 'gptjax.pretrained' and action:
      return f'gptjax{action}'
    return f'gptjax {_subcommands[module]}{action or ""}'
  return _MODULE.sub(replace, text)
