"""Pages of the reference that are generated from the code whenever the site is built.

In `reference/config.md` and `reference/commands.md`, a line `<!-- generated: NAME -->` is replaced by the
fields of the config (from `gptjax.defaults`) and by the commands with their flags (from their parsers). The
tests of the documentation import this file too, so it needs Sphinx only in `setup`.
"""

import argparse
import contextlib
import importlib
import importlib.util
import re
from typing import NamedTuple

MARKER = re.compile(r'^<!-- generated: (\w+) -->$', re.MULTILINE)


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


def commands():
  """Return [Command] of all commands, with other names of a command, and of the subjects of the benchmark."""
  declared = importlib.import_module('gptjax.cli.commands')
  found = []
  for name, one in declared.COMMANDS.items():
    if importlib.util.find_spec(one.module) is None:
      continue
    if one.module == 'gptjax.benchmark':
      found += _benchmarks(name, one)
      continue
    purpose = f'{one.purpose[0].upper()}{one.purpose[1:]}.'
    for spelling in filter(None, (name, one.alias)):
      found.append(_command(spelling, one.module, purpose, declared.parser(name), one.example))
  return found


def _benchmarks(name, one):
  benchmark = importlib.import_module(f'{one.module}.__main__')
  purpose = 'Measures speed, memory and accuracy. Each subject has flags of its own.'
  usage = f'usage: gptjax {name} SUBJECT [--FLAG=VALUE ...]'
  found = [Command(name, one.module, purpose, usage, [], one.example)]
  for subject in benchmark.SUBJECTS:
    folder = one.module if subject in benchmark.ELSEWHERE else f'{one.module}.subjects'
    parser = _parser_of(importlib.import_module(f'{folder}.{subject}'))
    found.append(_command(f'{name} {subject}', f'{one.module} {subject}', _purpose(parser), parser))
  return found


def _purpose(parser):
  """The first paragraph of a parser's description, without a command line after a colon."""
  return re.sub(r': python -m .*', '.', ' '.join((parser.description or '').partition('\n\n')[0].split()))


def _parser_of(module):
  """Return the parser with which a module's `main` reads its arguments."""
  with _parsing_stopped():
    try:
      module.main(['--out=x'])
    except _Parsed as parsed:
      return parsed.args[0]
  raise TypeError(f'the main function of {module.__name__} has no parser')


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


def _command(name, module, purpose, parser, example=''):
  shown = [action for action in parser._actions if action.help != argparse.SUPPRESS and action.dest != 'help'
           and not any(flag.startswith('--config.') for flag in action.option_strings)
           and [*(action.choices or ())] != [name]]  # `export`, which `python -m gptjax.pretrained` needs
  formatter = argparse.HelpFormatter(f'gptjax {name}', width=90)
  options = [_option(formatter, action) for action in shown]
  if any('--config' in option.names for option in options):
    usage = f'usage: gptjax {name} --config=FILE [--config.FIELD=VALUE ...] [flags]'
    options.insert(1, Option(('--config.FIELD',), 'VALUE', 'Sets a field of the config, see [](config.md).'))
  else:
    formatter.add_usage(None, shown, [])
    usage = formatter.format_help().strip()
  return Command(name, module, purpose, usage, options, example)


def _option(formatter, action):
  help_text = formatter._expand_help(action) if action.help else ''
  names = tuple(action.option_strings)
  if isinstance(action, argparse.BooleanOptionalAction):  # stands for a switch of absl
    names = names[0], f'--no{names[0].removeprefix("--")}'
    help_text = re.sub(r' \(default: \w+\)$', '', help_text)
  facts = [help_text if help_text.endswith('.') else f'{help_text}.'] if help_text else []
  if action.required and names:
    facts.append('Required.')
  kind = getattr(action.type, 'number', action.type)
  if hasattr(kind, 'domain'):
    facts.append(f'Allowed: {kind.domain.words}.')
  elif action.choices:
    facts.append(f'One of {", ".join(f"`{choice}`" for choice in action.choices)}.')
  unset = action.default in (None, argparse.SUPPRESS, '', False) or action.default == []
  if not unset and 'default' not in help_text.lower() and f'({action.default})' not in help_text:
    facts.append(f'Default: `{_flag_text(action.default)}`.')
  value = '' if action.nargs == 0 or len(names) == 2 else action.metavar or action.dest.upper()
  return Option(names or (str(action.metavar or action.dest),), value if names else '', ' '.join(facts))


def _flag_text(value):
  return ','.join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
              markdown(_sentence(field)), '', f'Allowed values: {markdown(field.domain.words)}.',
              ':::', '']
  return '\n'.join(lines)


def _sentence(field):
  """The meaning of a field as a sentence; a word that is a value of the field keeps its small letter."""
  text = field.meaning if field.meaning.endswith('.') else f'{field.meaning}.'
  first = re.match(r'[a-z]+(?=-| |\.$|;)', text)
  is_value = first and field.domain.words.startswith('one of') and first[0] in field.domain.words
  return f'{text[0].upper()}{text[1:]}' if first and not is_value else text


def commands_page():
  """Return the Markdown of all commands: one section for those that run the job of a config."""
  lines, described = [], set()
  found = commands()
  for command in found:
    if command.module in described:
      continue
    described.add(command.module)
    same = [one for one in found if one.module == command.module]
    level = '###' if ' ' in command.name else '##'
    lines += [f'{level} {", ".join(f"gptjax {one.name}" for one in same)}', '']
    if len(same) > 1:
      lines += ['They have the same flags. An existing run in the workdir is resumed.', '',
                *(f'- `gptjax {one.name}`: {markdown(one.purpose)}' for one in same), '']
    else:
      lines += [markdown(command.purpose), '']
    lines += ['```text', command.usage, '```', '']
    if any(one.example for one in same):
      lines += ['For example:', '', '```text', *dict.fromkeys(one.example for one in same), '```', '']
    lines += [f'Also: `python -m {command.module}`.', '', f'```{{program}} gptjax {command.name}', '```', '']
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
