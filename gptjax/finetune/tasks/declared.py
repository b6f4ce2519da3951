"""Tasks that a config file declares: `config.finetune.own_tasks`, plain values that `config.json` keeps.

    config.finetune.own_tasks = (dict(
      name='films', kind='classification', texts=('text',), label='label', classes=('bad', 'good'),
      metrics=('accuracy', 'f1'), train='train.tsv', validation='dev.tsv', test='test.jsonl'),)

A source is 'FILE.tsv' or 'FILE.jsonl' in `config.finetune.data_dir`, or 'tfds:NAME:SPLIT'. `train` may be
several; `validation` and `test` may be {name: source}, and a test set belongs to the validation source of its
name; `test` may be left out. Optional: `answers` (of a choice), `scale` (of labels that are numbers, which
have no classes).
"""

from gptjax.errors import InputError
from gptjax.finetune.tasks import transforms
from gptjax.finetune.tasks.examples import Jsonl, Tfds, Tsv
from gptjax.finetune.tasks.metrics import METRICS
from gptjax.text import words

REQUIRED = ('name', 'kind', 'texts', 'label', 'metrics', 'train', 'validation')
OPTIONAL = ('classes', 'answers', 'scale', 'test')
# Texts that each kind has: the least and the most.
N_TEXTS = {'classification': (1, 1), 'entailment': (2, 2), 'similarity': (2, 2), 'choice': (1, 2)}
BINARY_METRICS, REGRESSION_METRICS = ('matthews', 'f1'), ('pearson', 'spearman')


def parse_declaration(declaration, taken):
  """{field of tasks.Task: value} of a declaration.

  Args:
    declaration: a dict as in the module's docstring; of a `config.json`, with lists in place of tuples.
    taken: names that other tasks have.

  Raises:
    InputError: one line that names the task and its field.
  """
  name = declaration.get('name')
  if not isinstance(name, str) or not name.replace('_', '').replace('-', '').isalnum():
    raise InputError(f'config.finetune.own_tasks: the name {name!r} is not of letters, digits, "-" and "_"')
  say = lambda message: InputError(f'config.finetune.own_tasks, task {name}: {message}')
  if name in taken:
    raise say('another task has this name: choose another')
  for field in declaration:
    if field not in REQUIRED + OPTIONAL:
      raise say(f'{field} is not a field' + words.suggestion(field, REQUIRED + OPTIONAL, 'there are'))
  missing = [field for field in REQUIRED if field not in declaration]
  if missing:
    raise say(f'{missing[0]} is missing; it needs {", ".join(REQUIRED)}')
  found = {field: _names(declaration.get(field, ()), field, say)
           for field in ('texts', 'classes', 'answers', 'metrics')}
  found |= {'kind': declaration['kind'], 'label': declaration['label'], 'paper': {},
            'scale': _scale(declaration.get('scale', (0.0, 1.0)), say)}
  _check(found, say)
  train = declaration['train']
  several = train if isinstance(train, tuple | list) else (train,)
  if not several:
    raise say('train is empty: name a source')
  return found | {'train': tuple(_source(one, 'train', say) for one in several),
                  'validation': _sources(declaration['validation'], 'validation', '', say),
                  'test': _sources(declaration.get('test', {}), 'test', name, say)}


def _names(value, field, say):
  if not isinstance(value, tuple | list) or not all(isinstance(one, str) and one.strip() for one in value):
    raise say(f"{field} = {value!r} must be names, ('A', 'B')")
  if len(set(value)) < len(value):
    raise say(f'{field} = {value!r} has a name twice')
  return tuple(value)


def _scale(value, say):
  is_number = lambda x: isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e9
  if not isinstance(value, tuple | list) or len(value) != 2 or not all(map(is_number, value)) or (
      value[0] >= value[1]):
    raise say(f'scale = {value!r} must be the least and the largest label, (0.0, 5.0)')
  return tuple(map(float, value))


def _check(found, say):
  """Refuses fields that do not fit each other."""
  kind, classes, metrics = found['kind'], found['classes'], found['metrics']
  if kind not in transforms.KINDS:
    raise say(f'kind = {kind!r} must be one of {", ".join(transforms.KINDS)}')
  least, most = N_TEXTS[kind]
  if not least <= len(found['texts']) <= most:
    raise say(f'{kind} has {" or ".join(map(str, sorted({least, most})))} texts, not {found["texts"]!r}')
  if not isinstance(found['label'], str) or not found['label'].strip():
    raise say(f'label = {found["label"]!r} must be the name of a field')
  if bool(found['answers']) != (kind == 'choice'):
    raise say('a choice, and no other kind, names the fields of its answers in `answers`')
  if len(classes) == 1 or (kind == 'choice' and not classes):
    raise say(f'classes = {classes!r} must be two or more'
              + (': a name for each answer' if kind == 'choice' else ', or none where labels are numbers'))
  fit = [metric for metric in METRICS if (metric in REGRESSION_METRICS) != bool(classes) and (
    metric not in BINARY_METRICS or (len(classes) == 2 and kind != 'choice'))]
  wrong = [metric for metric in metrics if metric not in fit]
  if wrong or not metrics:
    raise say(f'metrics = {metrics!r} must be of {", ".join(fit)}')


def _sources(value, field, only, say):
  """{name: source}; `only` is the name of an only one."""
  if not isinstance(value, dict):
    return {only: _source(value, field, say)}
  for name in value:
    if not isinstance(name, str) or not name.strip() or '/' in name or name.startswith('.'):
      raise say(f'the name {name!r} in {field} must be one word, which a file can have')
  if 'all' in value or (field == 'validation' and not value):
    raise say(f'{field} needs one source or more, and "all" is the name of all of them together')
  return {name: _source(one, field, say) for name, one in value.items()}


def _source(value, field, say):
  if isinstance(value, str):
    kind, _, rest = value.partition(':')
    if kind == 'tfds':
      name, _, split = rest.partition(':')
      if name and split:
        return Tfds(name, split)
    elif value.endswith('.jsonl'):
      return Jsonl(value)
    elif value.endswith('.tsv'):
      return Tsv(value)
  raise say(f"{field} = {value!r} must be 'FILE.tsv', 'FILE.jsonl' or 'tfds:NAME:SPLIT'")
