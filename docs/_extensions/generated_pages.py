"""Pages of the reference that are generated from the code whenever the site is built.

In `reference/config.md` and `reference/commands.md`, a line `<!-- generated: NAME -->` is replaced by the
fields of the config (from `gptjax.defaults`) and by the commands with their flags (from their parsers). The
tests of the documentation import this file too, so it needs Sphinx only in `setup`.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

MARKER = re.compile(r'^<!-- generated: (\w+) -->$', re.MULTILINE)
JOBS = 'pretrain', 'train', 'finetune', 'evaluate'  # one program with different configs

# name: module of the command, as after `python -m`; those that are not in the package are left out.
COMMANDS = {
  **dict.fromkeys(JOBS, 'gptjax.main'),
  'generate': 'gptjax.generate',
  'score': 'gptjax.evaluate.score',
  'prepare': 'gptjax.data.prepare',
  'inspect': 'gptjax.data.inspect',
  'clean': 'gptjax.data.clean',
  'tokenizer': 'gptjax.data.tokenizers',
  'overlap': 'gptjax.evaluate.overlap',
  'report': 'gptjax.report',
  'plan': 'gptjax.plan',
  'export': 'gptjax.pretrained',
  'benchmark': 'gptjax.benchmark',
  'doctor': 'gptjax.cli.doctor',
  'completion': 'gptjax.cli.completion',
}
# Modules that declare flags of absl, for the commands that take a config.
ABSL = {'gptjax.main': ('gptjax.config.job_flags', 'gptjax.main'),
        'gptjax.plan': ('gptjax.plan.flags', 'gptjax.plan.__main__')}


class Option(NamedTuple):
  """A flag or a positional argument of a command.

  names: ('--out',), or the metavar of a positional argument.
  value: what is written after the name, like 'OUT'; '' for a switch.
  meaning: the help text, with the default and the domain.
  """
  names: tuple
  value: str
  meaning: str


class Command(NamedTuple):
  """One command: `gptjax NAME`.

  name: 'prepare', 'benchmark train'.
  module: as after `python -m`.
  purpose: its first sentence of help.
  usage: one or several lines.
  options: [Option].
  example: a command line, or ''.
  """
  name: str
  module: str
  purpose: str
  usage: str
  options: list
  example: str = ''


class _Parsed(Exception):
  """Raised in place of parsing; holds the parser."""


@contextlib.contextmanager
def _parsing_stopped():
  def stop(self, *args, **kwargs):
    raise _Parsed(self)
  parse_args, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, stop
  try:
    yield
  finally:
    argparse.ArgumentParser.parse_args = parse_args


def parser_of(module):
  """Return the parser with which a module's `main` reads its arguments."""
  with _parsing_stopped():
    try:
      _imported(module).main(['--out=x'])  # not empty: without arguments a command may only describe itself
    except _Parsed as parsed:
      return parsed.args[0]
  raise TypeError(f'the main function of {module} has no parser')


def _imported(module):
  """The module that `python -m` runs."""
  return importlib.import_module(f'{module}.__main__' if _exists(f'{module}.__main__') else module)


def _exists(module):
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # `module.__main__` of a module that is no package, or of one that is absent
    return False


def commands():
  """Return [Command] of all commands in the package, and of all subjects of the benchmark."""
  found = []
  for name, module in COMMANDS.items():
    if module == 'gptjax.benchmark':
      found += _benchmarks(module)
    elif module in ABSL:
      found.append(_absl_command(name, module))
    elif _exists(module):
      found.append(_command(name, module))
  return found


def _benchmarks(module):
  benchmark = _imported(module)
  purpose = 'Measures speed. Each subject has flags of its own; without a subject it is `train`.'
  found = [Command('benchmark', module, purpose, 'usage: gptjax benchmark [SUBJECT] [flags]', [])]
  for subject in benchmark.SUBJECTS:
    folder = module if subject in benchmark.NOT_SUBJECTS else f'{module}.subjects'
    found.append(_command(f'benchmark {subject}', f'{folder}.{subject}'))
  return found


def _command(name, module):
  parser = parser_of(module)
  shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != 'help'
           and [*(action.choices or ())] != [name]]  # `export`, which `python -m gptjax.pretrained` needs
  formatter = argparse.HelpFormatter(f'gptjax {name}', width=90)
  formatter.add_usage(None, shown, [])
  text = getattr(parser, 'purpose', '') or parser.description or _imported(module).__doc__ or ''
  return Command(name, module, _purpose(text), formatter.format_help().strip(),
                 [_option(formatter, action) for action in shown], _spelled(getattr(parser, 'example', '')))


def _purpose(text):
  """The first paragraph of a description, without a command line after a colon."""
  return re.sub(r': python -m .*', '.', ' '.join(text.partition('\n\n')[0].split()))


def _spelled(example):
  """A command line with `gptjax NAME` in place of `python -m`."""
  for name, module in COMMANDS.items():
    if name != 'train':
      example = re.sub(rf'python -m {re.escape(module)}( {name})?(?=\s)', f'gptjax {name}', example)
  return re.sub(r'--config=configs/(\w+)\.py', r'--config=\1', example)


def _option(formatter, action):
  kind = getattr(action.type, 'number', action.type)
  help_text = formatter._expand_help(action) if action.help else ''
  facts = [help_text if help_text.endswith('.') else f'{help_text}.'] if help_text else []
  if action.required and action.option_strings:
    facts.append('Required.')
  if hasattr(kind, 'domain'):
    facts.append(f'Allowed: {kind.domain.words}.')
  elif action.choices:
    facts.append(f'One of {", ".join(f"`{choice}`" for choice in action.choices)}.')
  unset = action.default in (None, argparse.SUPPRESS, '', False) or action.default == []
  if not unset and 'default' not in help_text:
    facts.append(f'Default: `{_flag_text(action.default)}`.')
  value = '' if action.nargs == 0 else action.metavar or action.dest.upper()
  return Option(tuple(action.option_strings) or (str(action.metavar or action.dest),),
                value if action.option_strings else '', ' '.join(facts))


def _flag_text(value):
  return ','.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _absl_command(name, module):
  """From the source: two modules define a flag `config`, which absl allows once in a process."""
  options = [Option(('--config',), 'FILE', 'The config: a Python file, or the name of a shipped one.'),
             Option(('--config.FIELD',), 'VALUE', 'Sets a field of the config, see [](config.md).')]
  sources = [source for source in ABSL[module] if _exists(source)]
  for source in sources:
    tree = ast.parse(Path(importlib.util.find_spec(source).origin).read_text())
    options += [_absl_option(call) for call in ast.walk(tree) if isinstance(call, ast.Call)
                and getattr(call.func, 'attr', '').startswith('DEFINE_')]
  usage = f'usage: gptjax {name} --config=FILE [--config.FIELD=VALUE ...] [flags]'
  declared = importlib.import_module(sources[0]) if sources[0].endswith('flags') else None
  texts = getattr(declared, 'USAGE', None)
  if hasattr(declared, 'usage'):
    texts = declared.usage('pretrain' if name == 'train' else name)
  return Command(name, module, texts.purpose if texts else '', usage, options,
                 _spelled(texts.example) if texts else '')


def _absl_option(call):
  flag, default, meaning = map(ast.literal_eval, call.args[:3])
  bounds = {one.arg: eval(compile(ast.Expression(one.value), 'bound', 'eval'), {'__builtins__': {}})
            for one in call.keywords}
  facts = [meaning]
  if bounds:
    facts.append(f'Allowed: from {bounds["lower_bound"]} to {bounds["upper_bound"]}.')
  if default not in (None, False):
    facts.append(f'Default: `{default}`.')
  switch = call.func.attr in ('DEFINE_bool', 'DEFINE_boolean')
  names = (f'--{flag}', f'--no{flag}') if switch else (f'--{flag}',)
  return Option(names, '' if switch else flag.upper(), ' '.join(facts))


def config_fields():
  """Return {name: Field} of the config."""
  return importlib.import_module('gptjax.defaults').declared()


def markdown(text):
  """Escape what Markdown would read as markup, except code in backquotes and links."""
  parts = re.split(r'(`[^`]*`|\[\]\([^)]*\))', text)
  return ''.join(part if i % 2 else re.sub(r'([\\*_{}\[\]<>|#$~])', r'\\\1', part)
                 for i, part in enumerate(parts))


def config_page():
  """Return the Markdown of all fields: a section of the page per section of the config."""
  lines, section = [], None
  for name, field in config_fields().items():
    before, _, _ = name.rpartition('.')
    if before != section:
      section = before
      lines += [f'## {section or "Top level"}', '']
    kind = 'bool' if field.default is None else type(field.default).__name__
    default = 'not set' if field.default is None else f'`{field.default!r}`'
    lines += [f':::{{confval}} config.{name}', f':type: `{kind}`', f':default: {default}', '',
              markdown(_sentence(field.meaning)), '', f'Allowed values: {markdown(field.domain.words)}.',
              ':::', '']
  return '\n'.join(lines)


def _sentence(text):
  return text if text.endswith('.') else f'{text}.'


def commands_page():
  """Return the Markdown of all commands."""
  lines, jobs_done = [], False
  for command in commands():
    if command.name in JOBS:
      if jobs_done:
        continue
      jobs_done = True
      lines += [f'## {", ".join(f"gptjax {name}" for name in JOBS)}', '',
                'They run the job of a config: `pretrain` (also `train`) trains a language model, `finetune` '
                'trains it on labelled tasks, `evaluate` runs zero-shot tasks. An existing run in the '
                'workdir is resumed. All four have the same flags.', '']
    else:
      lines += [f'{"###" if " " in command.name else "##"} gptjax {command.name}', '',
                markdown(command.purpose), '']
    module = re.sub(r'benchmark\.(subjects\.)?(\w+)$', r'benchmark \2', command.module)
    lines += ['```text', command.usage, '```', '']
    if command.example:
      lines += ['For example:', '', '```text', command.example, '```', '']
    lines += [f'Also: `python -m {module}`.', '',
              f'```{{program}} gptjax {command.name}', '```', '']
    for option in command.options:
      signature = ', '.join(f'{name}={option.value}' if option.value else name for name in option.names)
      lines += [f':::{{option}} {signature}', '', markdown(option.meaning), ':::', '']
  return '\n'.join(lines)


PAGES = {'config': config_page, 'commands': commands_page}


def expand(text):
  """Return the Markdown of a page with its generated parts."""
  return MARKER.sub(lambda match: PAGES[match[1]](), text)


def _read_source(app, name, source):
  source[0] = expand(source[0])


def _always_outdated(app, env, added, changed, removed):
  return ['reference/config', 'reference/commands']


def setup(app):
  app.connect('source-read', _read_source)
  app.connect('env-get-outdated', _always_outdated)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
