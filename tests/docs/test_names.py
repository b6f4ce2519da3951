"""Commands, flags, fields, configs and modules that the documentation names exist."""

import ast
import functools
import itertools
import re
import shlex
from pathlib import Path

import markdown_pages as pages
import pytest
import yaml

import gptjax
from gptjax import defaults

GENERATED = pages.generated_pages()
FIELDS = defaults.declared()
SECTIONS = {name.rpartition('.')[0] for name in FIELDS} - {''} | {'config'}
FILE = re.compile(r'[\w./-]+\.(json|jsonl|py|tsv|csv|txt|safetensors|ckpt|bin|png|html|md|yaml)')
ARGUMENT = re.compile(r'^--?(?P<name>[A-Za-z][\w.-]*)')

# Flags in prose that are those of other programs.
OTHERS = {'--user', '--format', '--query', '--spot', '--help', '--version', '--helpfull', '--gres', '--nodes',
          '--ntasks-per-node', '--requeue', '--signal', '--logdir', '--model', '--model_args', '--array',
          '--dependency', '--kill-on-invalid-dep', '--runner', '--sdk_container_image',
          '--include_path', '--long'}


@functools.cache
def flags_of_commands():
  """{command: its flags}; that of `gptjax.benchmark` without a subject is that of `train`."""
  found = {command.name: {name for option in command.options for name in option.names}
           for command in GENERATED.commands()}
  found['benchmark'] |= found['benchmark train']
  return found


@functools.cache
def commands_of_modules():
  """{module after `python -m`: command}."""
  return {command.module: command.name for command in reversed(GENERATED.commands())}


@functools.cache
def flags_of_scripts():
  return set(re.findall(r'--\w[\w-]*', ''.join(path.read_text() for path in (pages.ROOT / 'launch').iterdir()
                                               if path.is_file())))


def problem_of_field(name):
  """Why `name`, like 'config.train.steps', is no field; '' if it is one, or a section."""
  name = name.removeprefix('config.').rstrip('.')
  return '' if name in FIELDS or name in SECTIONS or name == 'FIELD' else f'no field config.{name}'


def problem_of_module(name):
  """Why `name`, like 'gptjax.train.step.train_step', is no module nor anything in one."""
  parts, path = name.split('.')[1:], pages.ROOT / 'gptjax'
  while parts and (path / parts[0]).is_dir():
    path /= parts.pop(0)
  if parts and (path / f'{parts[0]}.py').is_file():
    path = (path / parts.pop(0)).with_suffix('.py')
  source = path / '__init__.py' if path.is_dir() else path
  return '' if not parts or parts[0] in names_in(source) else f'no {name} in gptjax'


@functools.cache
def names_in(path):
  """The names that a module defines at its top level, and those of its `__all__`."""
  found = set()
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      found.add(node.name)
    for target in getattr(node, 'targets', []):
      found |= {one.id for one in ast.walk(target) if isinstance(one, ast.Name)}
      if getattr(target, 'id', '') == '__all__':
        found |= set(ast.literal_eval(node.value))
    if isinstance(node, ast.ImportFrom):
      found |= {alias.asname or alias.name for alias in node.names}
  return found


def problems_of_command(words):
  """What a command line of gptjax names that does not exist; [] for other programs."""
  words = [word for word in words if not re.match(r'^[A-Z_]+=', word)]  # variables of the environment
  if words[:1] and words[0].startswith('python') and words[1:2] == ['-m'] and words[2:]:
    module, words = words[2], words[3:]
    if module.endswith('...'):
      return []
    if module == 'gptjax':
      words = ['gptjax', *words]
    elif module.startswith('gptjax.'):
      if module not in commands_of_modules():
        return [] if module == 'gptjax.lm_eval' else [f'no command {module}']
      words = ['gptjax', *commands_of_modules()[module].split(), *words]
  if words[:1] != ['gptjax'] or len(words) == 1:
    return []
  words = words[1:]
  if words[0].startswith('-') or not re.fullmatch(r'[a-z_]+', words[0]):
    return []
  command = ' '.join(words[:2]) if ' '.join(words[:2]) in flags_of_commands() else words[0]
  if command not in flags_of_commands():
    return [f'no command gptjax {words[0]}']
  # After `--` are the flags of an engine.
  own = itertools.takewhile(lambda word: word != '--', words[len(command.split()):])
  return [problem for word in own if (problem := problem_of_flag(word, command))]


def problem_of_flag(word, command):
  """Why a word of a command line is no flag of the command; '' if it is one, or not a flag."""
  match = ARGUMENT.match(word)
  if not match or not word.startswith('--'):
    return ''
  name, flags = match['name'], flags_of_commands()[command]
  if name.startswith('config.') and '--config' in flags:
    return problem_of_field(name)
  if name == 'config' and '--config' in flags:
    value = word.partition('=')[2].partition(':')[0]
    shipped = Path(value).stem if not value.endswith('.py') or value.startswith('configs/') else ''
    known = not shipped or not shipped.islower() or (pages.ROOT / 'configs' / f'{shipped}.py').exists()
    return '' if known else f'no config {value}'
  return '' if f'--{name}' in flags or name == 'help' else f'gptjax {command} has no flag --{name}'


def command_lines(text):
  """[(line, words)] of the commands in the console and shell blocks of a page."""
  for block in pages.blocks(text):
    if block.language == 'console':
      commands = [command for command, _ in pages.console_commands(block.body)]
    elif block.language in ('sh', 'bash', 'shell'):
      commands = block.body.replace('\\\n', ' ').splitlines()
    else:
      continue
    for command in commands:
      for part in re.split(r'&&|\|\||[|;&]\s|\n', command.replace('\\\n', ' ')):
        yield block.line, split(part)


def split(text):
  try:
    return shlex.split(text, comments=True)
  except ValueError:  # a part of a here-document
    return []


def problems_of_code(code):
  """What code in backquotes in prose names that does not exist."""
  words = split(code)
  if words[:1] == ['gptjax'] or words[:2] == ['python', '-m']:
    return problems_of_command(words)
  if re.fullmatch(r'gptjax/[\w/.]+|configs/\w+\.py', code):
    return [] if (pages.ROOT / code).exists() else [f'no file {code}']
  if FILE.fullmatch(code):
    return []
  if re.fullmatch(r'(--)?config\.[\w.]+(=.*)?', code):
    return [problem_of_field(code.removeprefix('--').partition('=')[0])]
  if match := re.fullmatch(r'(--\w[\w-]*)(=.*)?', code):
    known = set().union(*flags_of_commands().values()) | flags_of_scripts() | OTHERS
    return [] if match[1] in known or match[1].startswith('--xla_') else [f'no command has a flag {match[1]}']
  if re.fullmatch(r'gptjax(\.\w+)+', code):
    return [problem_of_module(code)]
  section, _, field = code.partition('=')[0].rpartition('.')
  if section in SECTIONS and re.fullmatch(r'[a-z_0-9]+', field) and problem_of_field(f'{section}.{field}'):
    as_module = problem_of_module(f'gptjax.{section}.{field}')
    return [f'{section}.{field} is neither a field nor in gptjax'] if as_module else []
  return []


@pytest.mark.parametrize('path', pages.paths(), ids=pages.name_of)
def test_objects_of_roles_exist(path):
  """Sphinx leaves a reference to an object that it does not know as text, without a warning."""
  for role, name in re.findall(r'(?<!`)\{([\w:]+)\}`~?([^`]+)`', pages.prose(path.read_text())):
    if role == 'confval':
      assert not problem_of_field(name)
    elif role.startswith('py:'):
      assert not problem_of_module(name)


@pytest.mark.parametrize('path', pages.paths(), ids=pages.name_of)
def test_names_exist(path):
  text = path.read_text()
  found = [(line, problem) for line, code in pages.inline_code(text) for problem in problems_of_code(code)]
  found += [(line, problem) for line, words in command_lines(text) for problem in problems_of_command(words)]
  wrong = [f'{line}: {problem}' for line, problem in sorted(found) if problem]
  assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('code', [
  'config.train.step', '--config.model.heads=3', 'train.stepz', '--no_such_flag', 'gptjax.train.step.nothing',
  'gptjax nothing', 'python -m gptjax.nothing', 'gptjax prepare --sourcez=x', 'gptjax/nothing.py',
  'gptjax pretrain --config=nothing', 'gptjax pretrain --config.model.heads=3', 'configs/nothing.py',
  'gptjax benchmark generate --contenderz'])
def test_what_does_not_exist_is_found(code):
  assert any(problems_of_code(code))


@pytest.mark.parametrize('code', [
  'config.train.steps', '--config.model.n_layer=3', 'train.steps', 'config.model', '--workdir',
  'gptjax.train.step.train_step', 'gptjax.load', 'train.train_step', 'gptjax prepare --source=x --out=y',
  'gptjax pretrain --config=gpt2_small --config.train.steps=3', 'python -m gptjax.main --config=my.py',
  'gptjax benchmark generate --size=124M', 'configs/gpt2_xl.py', 'data.prepare', 'gptjax/defaults.py',
  'gptjax finetune --config=gpt1_finetune:sst2', '--config'])
def test_what_exists_is_not(code):
  assert not any(problems_of_code(code))


def test_every_command_of_the_package_has_a_section():
  """`python -m gptjax.X` runs a command if X has a main function that is guarded by `__name__`."""
  described = {command.module for command in GENERATED.commands()}
  for path in sorted((pages.ROOT / 'gptjax').rglob('*.py')):
    module = '.'.join(path.relative_to(pages.ROOT).with_suffix('').parts).removesuffix('.__main__')
    if "if __name__ == '__main__':" in path.read_text() and module not in described:
      assert module in ('gptjax', 'gptjax.lm_eval', 'gptjax.data.clean.clean_examples',
                        'gptjax.benchmark.stage', 'gptjax.benchmark.train_torch',
                        'gptjax.benchmark.subjects.clean'), module


def test_the_pages_of_the_reference_have_every_field_and_flag():
  config, commands = GENERATED.config_page(), GENERATED.commands_page()
  for name, field in FIELDS.items():
    assert f':::{{confval}} config.{name}\n' in config
    assert f'Allowed values: {GENERATED.markdown(field.domain.words)}.' in config
  for text in ('## gptjax pretrain, ', '## gptjax prepare', '### gptjax benchmark train',
               ':::{option} --source=', ':::{option} --predict, --nopredict', 'Required.',
               'Allowed: a whole number from '):
    assert text in commands, text


def test_the_citation_and_the_changelog_have_the_version():
  citation = yaml.safe_load((pages.ROOT / 'CITATION.cff').read_text())
  assert citation['version'] == gptjax.__version__ and citation['license'] == 'Apache-2.0'
  assert f'\n## {gptjax.__version__}' in (pages.ROOT / 'CHANGELOG.md').read_text()
