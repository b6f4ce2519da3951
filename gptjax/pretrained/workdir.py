"""Reads the weights of a run of gptjax: of its newest valid checkpoint, or of a given one or milestone."""


from gptjax import defaults
from gptjax.config.resume import NOT_WEIGHTS_FIELDS
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.pretrained import layout
from gptjax.pretrained.checked_fields import check_fields
from gptjax.storage import checkpoint
from gptjax.storage.files import access, cache, records
from gptjax.storage.files.paths import Url
from gptjax.storage.manifest import MANIFEST
from gptjax.storage.milestones import MILESTONES

CHECKPOINTS, TOKENIZER = 'checkpoints', 'tokenizer'


def open_workdir(folder):
  """Return the WeightSource of the newest valid checkpoint; nothing is renamed or written.

  Args:
    folder: the workdir, a Path or a Url.

  Raises:
    ValueError: no checkpoint is valid, or the folder is not a run.
  """
  for step in reversed(checkpoint.steps(folder / CHECKPOINTS)):
    path = folder / CHECKPOINTS / str(step)
    if checkpoint.is_incomplete(path):
      continue
    fault = checkpoint.find_fault(path, checkpoint.read_manifest(path))
    if fault is None:
      return _source(path)
    records.log(f'checkpoint {step} is damaged ({fault}): not used')
  raise InputError(f'{folder / CHECKPOINTS} has no valid checkpoint')


def open_checkpoint(folder):
  """Return the WeightSource of one checkpoint or milestone, `WORKDIR/checkpoints/STEP`.

  Raises:
    ValueError: it is damaged, or outside its run.
  """
  fault = checkpoint.find_fault(folder, checkpoint.read_manifest(folder))
  if fault:
    raise InputError(f'checkpoint {folder} is damaged ({fault}): use another checkpoint')
  return _source(folder)


def saved_weights(folder):
  """Return {step: folder} of all checkpoints and milestones of a run, ascending.

  If a step has both, the folder is that of the milestone. A milestone without a manifest is not whole, and is
  left out.
  """
  found = {step: folder / CHECKPOINTS / str(step) for step in checkpoint.steps(folder / CHECKPOINTS)}
  copies = {step: folder / MILESTONES / str(step) for step in checkpoint.steps(folder / MILESTONES)}
  found |= {step: copy for step, copy in copies.items() if access.is_file(copy / MANIFEST)}
  return dict(sorted(found.items()))


def _source(path):
  """Return the WeightSource of a valid checkpoint; config.json in its workdir describes the model."""
  workdir = (path if isinstance(path, Url) else path.resolve()).parent.parent
  if not workdir.name or not access.is_file(workdir / 'config.json'):
    raise InputError(f'checkpoint {path} is outside its run: {workdir / "config.json"}, which describes '
                     'the model, is missing: give the checkpoint in its workdir')
  stored = records.read(workdir / 'config.json').get('config')
  known = defaults.fields()['model'].keys() - set(NOT_WEIGHTS_FIELDS)
  if not isinstance(stored, dict) or not isinstance(stored.get('model'), dict):
    raise InputError(f'{workdir / "config.json"} is not the config of a run of gptjax')
  if stored.get('job') == 'finetune':
    raise InputError(f'{workdir} has a fine-tuned classifier, not a language model (a model that was '
                     f'fine-tuned on text is in the folder export of its run)')
  fields = {name: value for name, value in stored['model'].items() if name in known}
  check_fields(workdir / 'config.json', fields, {})
  folder = workdir / TOKENIZER
  tokenizer = loading.load(str(cache.folder(folder))) if access.is_folder(folder) else None
  manifest = checkpoint.read_manifest(path)
  return layout.WeightSource(path, fields, tokenizer,
                             lambda shapes: checkpoint.load_weights(path, manifest, shapes))
