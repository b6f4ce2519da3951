"""Tasks declared in a config file: `config.finetune.own_tasks`, plain values that `config.json` stores.

    config.finetune.own_tasks = (dict(
      name='films', kind='classification', texts=('text',), label='label', classes=('bad', 'good'),
      metrics=('accuracy', 'f1'), train='train.tsv', validation='dev.tsv', test='test.jsonl'),)

A source is 'FILE.tsv' or 'FILE.jsonl' in `config.finetune.data_dir`, or 'tfds:NAME:SPLIT'. `train` may be a
tuple of sources; `validation` and `test` may be {name: source}, and a test set is paired with the validation
source of the same name; `test` may be omitted. Optional: `answers` (of a choice), `scale` (of numeric labels,
which have no classes).
"""

from gptjax.errors import InputError
from gptjax.finetune.tasks import transforms
from gptjax.finetune.tasks.examples import Jsonl, Tfds, Tsv
from gptjax.finetune.tasks.metrics import METRICS
from gptjax.text import words

REQUIRED = ('name', 'kind', 'texts', 'label', 'metrics', 'train', 'validation')
OPTIONAL = ('classes', 'answers', 'scale', 'test')
# {kind: (minimum, maximum) number of texts}.
N_TEXTS = {'classification': (1, 1), 'entailment': (2, 2), 'similarity': (2, 2), 'choice': (1, 2)}
BINARY_METRICS, REGRESSION_METRICS = ('matthews', 'f1'), ('pearson', 'spearman')


def parse_declaration(declaration, taken):
  """{field of published.Task: value} of a declaration.

  Args:
    declaration: a dict as in the module's docstring; in a `config.json` it has lists instead of tuples.
    taken: names of other tasks.

  Raises:
    InputError: one line with the task and the invalid field.
  """
  name = declaration.get('name')
  if not isinstance(name, str) or not name.replace('_', '').replace('-', '').isalnum():
    raise InputError(f'config.finetune.own_tasks: the name {name!r} must have only letters, digits, "-" and '
                     '"_"')
  error = lambda message: InputError(f'config.finetune.own_tasks, task {name}: {message}')
  if name in taken:
    raise error('another task has this name: choose another')
  for field in declaration:
    if field not in REQUIRED + OPTIONAL:
      raise error(f'{field} is not a field' + words.suggestion(field, REQUIRED + OPTIONAL, 'the fields are'))
  missing = [field for field in REQUIRED if field not in declaration]
  if missing:
    raise error(f'{missing[0]} is missing; required: {", ".join(REQUIRED)}')
  fields = {field: _names(declaration.get(field, ()), field, error)
            for field in ('texts', 'classes', 'answers', 'metrics')}
  fields |= {'kind': declaration['kind'], 'label': declaration['label'], 'paper': {},
             'scale': _scale(declaration.get('scale', (0.0, 1.0)), error)}
  _check(fields, error)
  train = declaration['train']
  train_sources = train if isinstance(train, tuple | list) else (train,)
  if not train_sources:
    raise error('train is empty: name a source')
  return fields | {'train': tuple(_source(source, 'train', error) for source in train_sources),
                   'validation': _sources(declaration['validation'], 'validation', '', error),
                   'test': _sources(declaration.get('test', {}), 'test', name, error)}


def _names(value, field, error):
  """The names as a tuple, checked."""
  if not isinstance(value, tuple | list) or not all(isinstance(name, str) and name.strip() for name in value):
    raise error(f"{field} = {value!r} must be names, like ('A', 'B')")
  if len(set(value)) < len(value):
    raise error(f'{field} = {value!r} contains a name twice')
  return tuple(value)


def _scale(value, error):
  """The scale as two floats, checked."""
  is_number = lambda x: isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e9
  if not isinstance(value, tuple | list) or len(value) != 2 or not all(map(is_number, value)) or (
      value[0] >= value[1]):
    raise error(f'scale = {value!r} must be the smallest and the largest label, like (0.0, 5.0)')
  return tuple(map(float, value))


def _check(fields, error):
  """Check that the fields are consistent with each other."""
  kind, classes, metrics = fields['kind'], fields['classes'], fields['metrics']
  if kind not in transforms.KINDS:
    raise error(f'kind = {kind!r} must be one of {", ".join(transforms.KINDS)}')
  minimum, maximum = N_TEXTS[kind]
  if not minimum <= len(fields['texts']) <= maximum:
    numbers = ' or '.join(map(str, sorted({minimum, maximum})))
    raise error(f'{kind} takes {numbers} texts, not {fields["texts"]!r}')
  if not isinstance(fields['label'], str) or not fields['label'].strip():
    raise error(f'label = {fields["label"]!r} must be the name of a field')
  if bool(fields['answers']) != (kind == 'choice'):
    raise error('`answers`, the fields of the answers, must be set for a choice, and only for a choice')
  if len(classes) == 1 or (kind == 'choice' and not classes):
    raise error(f'classes = {classes!r} must be two or more names'
                + (': one per answer' if kind == 'choice' else ', or none if labels are numbers'))
  applicable = [metric for metric in METRICS if (metric in REGRESSION_METRICS) != bool(classes) and (
    metric not in BINARY_METRICS or (len(classes) == 2 and kind != 'choice'))]
  invalid = [metric for metric in metrics if metric not in applicable]
  if invalid or not metrics:
    raise error(f'metrics = {metrics!r} must be of {", ".join(applicable)}')


def _sources(value, field, default_name, error):
  """{name: source}; `default_name` is the name of a single source."""
  if not isinstance(value, dict):
    return {default_name: _source(value, field, error)}
  for name in value:
    if not isinstance(name, str) or not name.strip() or '/' in name or name.startswith('.'):
      raise error(f'the name {name!r} in {field} must be a valid file name')
  if 'all' in value:
    raise error(f'{field} has a source named "all", which is reserved for all together: rename it')
  if field == 'validation' and not value:
    raise error('validation has no source: name one or more')
  return {name: _source(source, field, error) for name, source in value.items()}


def _source(value, field, error):
  """The Tfds, Jsonl or Tsv of a string."""
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
  raise error(f"{field} = {value!r} must be 'FILE.tsv', 'FILE.jsonl' or 'tfds:NAME:SPLIT'")
