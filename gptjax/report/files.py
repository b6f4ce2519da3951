"""The JSON files of a workdir that a report shows, read with a check of their layout (see `json_files`)."""

from gptjax.errors import InputError
from gptjax.evaluate.journal import GRIDS
from gptjax.storage.files import access, records
from gptjax.storage.files.json_files import NUMBER, OPTIONAL_NUMBER, layout_fault
from gptjax.text import text_checks

CONFIG = {'config': {'job': str, 'init_from': str, 'model': {},
                     '?train': {'?batch_size': int}, '?data': {'?seq_len': int, '?reference': str},
                     '?finetune': {'?limit': int}}, 'versions': {str: str},
          'devices': [(str, int)], '?command': [str]}
MODEL = {'n_layer': int, 'n_embd': int, 'n_head': int, 'n_ctx': int, '?parameters': int, '?name': str}
RESULTS = {
  'tasks': {str: {str: OPTIONAL_NUMBER}}, 'model': MODEL, '?not_run': {str: str}, '?weights': str,
  '?limit': int, '?limits': {str: int}, '?notes': {str: [str]}, '?version': int, '?protocols': {str: str},
  '?versions': {str: str}, '?devices': [(str, int)], '?rows': {str: [[object]]},
  'grids': GRIDS}
SUMMARY = dict.fromkeys(('mean', 'median', 'min', 'max', 'std'), NUMBER)  # of a metric over seeds
FINETUNED = {'version': int, 'tasks': {str: {str: NUMBER}}, 'spread': {str: {str: SUMMARY}},
             'paper': {str: {str: NUMBER}}, 'runs': {str: [{'seed': int}]}}
FILTER = {**dict.fromkeys(('eightgrams', 'distinct', 'bytes', 'found', 'strings', 'passed', 'tests'), int),
          **dict.fromkeys(('measured', 'expected', 'rate'), NUMBER), 'sources': [str]}
EXACT = {**dict.fromkeys(('documents', 'eightgrams', 'keys', 'found'), int), 'expected': NUMBER,
         'sources': [str]}
OVERLAP = {
  '?method': str, '?exact': {str: EXACT},
  'tests': {str: {'documents': int, 'eightgrams': int, 'own': OPTIONAL_NUMBER, 'train': OPTIONAL_NUMBER,
                  '?documents_with_any': int, '?documents_with_much': int}},
  '?cdf': {str: {'documents': int, 'short': int, 'shares': [NUMBER], 'none': NUMBER,
                 'below_1_percent': NUMBER, 'median': NUMBER}},
  'filters': {str: FILTER}, 'by_overlap': {str: [{'bucket': str, 'examples': int}]}}
SAMPLES = [{'prompt': str, 'text': str, 'top_k': int, 'seed': int}]


def read(path, layout, absent):
  """Return the value in a JSON file, here or in a bucket; `absent` if the file does not exist.

  Raises:
    InputError: it cannot be read, is not JSON, or differs from the layout; the message has the location.
  """
  try:
    value = records.parse(access.read(path))
    value = [*map(_unsealed, value)] if isinstance(value, list) else _unsealed(value)
  except FileNotFoundError:
    return absent
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from None
  except InputError:
    raise
  except ValueError as error:
    raise InputError(f'{path} is damaged, or not JSON of gptjax ({error}){records.RESTORE}') from None
  text_checks.require_valid_json(value, str(path))
  if fault := layout_fault(value, layout):
    raise InputError(f'{path} is damaged, or of another version: {fault}')
  return value


def _unsealed(value):
  return records.remove_checksum(value) if isinstance(value, dict) else value


def read_config(folder):
  """Return the content of config.json; InputError also if the folder is not a workdir."""
  path = folder / 'config.json'
  if 'config' not in read(path, {}, {}):
    raise InputError(f'{folder} is not a workdir: it has no config.json of a run')
  return read(path, CONFIG, None)
