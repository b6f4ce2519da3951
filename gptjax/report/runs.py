"""Reads the data of workdirs for a report."""

from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, NamedTuple

from gptjax import defaults
from gptjax.errors import InputError
from gptjax.report import files, telemetry
from gptjax.storage.files import access, hub_names, paths
from gptjax.storage.files.json_files import layout_fault
from gptjax.storage.files.paths import Url
from gptjax.storage.files.run_config import legacy_value


class Run(NamedTuple):
  """The data of a workdir; missing files are {}, [] or None.

  name: short name, unique in the report.
  folder: the workdir, a Path or a Url.
  config: `config.json`: {'config', 'versions', 'devices', 'command'}.
  model: {field: value} of its model, with `parameters` if known.
  records: of metrics.jsonl, of this workdir or the one whose weights it evaluates.
  trained: the fields of the config that these records are of.
  results: `results.json` of an evaluation.
  finetuned: `results.json` of fine-tuning; only its version if that is 1.
  overlap: `overlap.json`.
  samples: [{'prompt', 'text', 'top_k', 'seed'}] of `samples.json`.
  """
  name: str
  folder: Any
  config: dict
  model: dict
  records: list
  trained: dict
  results: dict
  finetuned: dict
  overlap: dict
  samples: list


def read(workdirs):
  """[Run] of workdirs, the smallest model first.

  Raises:
    ValueError: a workdir does not exist, has nothing to report, or has a damaged file.
  """
  folders = [paths.location(workdir) for workdir in workdirs]
  places = [folder if isinstance(folder, Url) else folder.resolve() for folder in folders]
  if len(set(places)) < len(places):
    raise InputError('a workdir is listed twice: list each once')
  parts = [PurePosixPath(str(place)).parts for place in places]
  depth = next(depth for depth in range(1, 100) if len({one[-depth:] for one in parts}) == len(parts))
  runs = [_read(folder, '/'.join(one[-depth:])) for folder, one in zip(folders, parts, strict=True)]
  return sorted(runs, key=lambda run: run.model['parameters'])


def _read(folder, name):
  if not access.is_folder(folder):
    raise InputError(f'workdir {folder} does not exist')
  config = files.read_config(folder)
  fields, results = config['config'], {}
  if fields['job'] == 'evaluate':
    results = files.read(folder / 'results.json', files.RESULTS, {})
  metrics, trained = telemetry.read_metrics(folder / telemetry.METRICS), config
  if not metrics and fields['init_from'] and not hub_names.parse(fields['init_from']):
    source = paths.location(fields['init_from'])
    metrics = telemetry.read_metrics(source / telemetry.METRICS)
    trained = files.read(source / 'config.json', files.CONFIG, config) if metrics else config
  model = {**fields['model'], **results.get('model', {})}
  model['parameters'] = model.get('parameters') or _parameters(folder, fields['model'])
  if fault := layout_fault(model, files.MODEL):
    raise InputError(f'{folder}/config.json is damaged, or of another version: of the model, {fault}')
  return Run(name, folder, config, model, metrics, trained['config'], results,
             _finetuned(folder) if fields['job'] == 'finetune' else {},
             files.read(folder / 'overlap.json', files.OVERLAP, {}),
             files.read(folder / 'samples.json', files.SAMPLES, []))


def _finetuned(folder):
  path = folder / 'results.json'
  content = files.read(path, {'?version': int}, {})
  if content.get('version', 1) > 1:
    return files.read(path, files.FINETUNED, {})
  return {'version': 1} if content else {}


def model_config(fields):
  """Return `config.model` with these stored fields, and for others the values of versions without them."""
  legacy = {name: legacy_value(field) for name, field in defaults.FIELDS['model'].items()}
  return SimpleNamespace(**{**legacy, **fields})


def _parameters(folder, fields):
  from gptjax.model.size import n_params
  try:
    return n_params(model_config(fields))
  except (AttributeError, TypeError) as error:
    raise InputError(f'{folder}/config.json does not describe a model ({error})') from None


def trained(found):
  """Return the runs that have a training loss, without duplicates of a run."""
  return list({str(run.records): run for run in found if curve(run, 'train/loss')[0]}.values())


def curve(run, metric):
  """Return ([step], [value]) of a metric in metrics.jsonl."""
  points = [(record['step'], record[metric]) for record in run.records if record.get(metric) is not None]
  return [step for step, _ in points], [value for _, value in points]


def value(run, task, metric):
  """Return a metric of a task in results.json; None if it was not run."""
  return run.results.get('tasks', {}).get(task, {}).get(metric)
