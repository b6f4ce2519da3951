"""Reads the weights of a run of gptjax: of its newest good checkpoint, or of one that is named."""

from pathlib import Path

from gptjax import defaults
from gptjax.config.resume import NOT_OF_WEIGHTS
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.files import records
from gptjax.pretrained import layout
from gptjax.pretrained.checked_fields import check_fields
from gptjax.storage import checkpoint

CHECKPOINTS, TOKENIZER = 'checkpoints', 'tokenizer'


def open_workdir(folder):
  """The Source of the newest checkpoint that is whole; nothing is renamed or written.

  Raises:
    ValueError: no checkpoint is good, or the folder holds no run.
  """
  for step in reversed(checkpoint.steps(folder / CHECKPOINTS)):
    path = folder / CHECKPOINTS / str(step)
    if checkpoint.is_incomplete(path):
      continue
    fault = checkpoint.find_fault(path, checkpoint.read_manifest(path))
    if fault is None:
      return _source(path)
    records.log(f'checkpoint {step} is damaged ({fault}): not used')
  raise InputError(f'{folder / CHECKPOINTS} holds no good checkpoint')


def open_checkpoint(folder):
  """The Source of one checkpoint, `WORKDIR/checkpoints/STEP` (ValueError if it is damaged)."""
  fault = checkpoint.find_fault(folder, checkpoint.read_manifest(folder))
  if fault:
    raise InputError(f'checkpoint {folder} is damaged ({fault}): take another')
  return _source(folder)


def _source(path):
  """The Source of a checkpoint whose files are good; its workdir's config.json says what model it is."""
  workdir = path.absolute().parents[1]
  if not (workdir / 'config.json').exists():
    raise InputError(f'checkpoint {path} lies outside its run: {workdir / "config.json"}, which says what '
                     'model it is, is missing')
  stored = records.read(workdir / 'config.json').get('config')
  known = defaults.fields()['model'].keys() - set(NOT_OF_WEIGHTS)
  if not isinstance(stored, dict) or not isinstance(stored.get('model'), dict):
    raise InputError(f'{workdir / "config.json"} is not that of a run of gptjax')
  if stored.get('job') == 'finetune':
    raise InputError(f'{workdir} holds a fine-tuned classifier, not a language model (one that was '
                     'fine-tuned on text lies in its folder export)')
  fields = {name: value for name, value in stored['model'].items() if name in known}
  check_fields(workdir / 'config.json', fields, {})
  folder = workdir / TOKENIZER
  tokenizer = loading.load(str(folder)) if folder.is_dir() else None
  manifest = checkpoint.read_manifest(path)
  return layout.WeightSource(Path(path), fields, tokenizer,
                             lambda shapes: checkpoint.load_weights(path, manifest, shapes))
