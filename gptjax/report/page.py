"""A report of one or several workdirs: its sections and its files."""

import importlib.metadata
import platform
import shlex

import gptjax
from gptjax.config import resolve as configs
from gptjax.report import core, finetuning, html, markdown, plots, runs, tables
from gptjax.report.appendix import figure_5, recital
from gptjax.report.appendix import samples as appendix_samples
from gptjax.report.comparison import loss_over_tokens, sizes
from gptjax.report.document import Figure, Prose, Section, Table, Verbatim
from gptjax.storage.files import access, paths
from gptjax.text.redacted import redacted, redacted_values

FIGURES = 'report-figures'


def write(workdirs, out):
  """Write report.html, report.md and the figures of report.md to the folder `out`.

  Args:
    workdirs: list of folders of runs, of pretraining and of evaluation, here or in a bucket.
    out: folder, here or in a bucket.

  Returns:
    (location of report.html, location of report.md), each a Path or a Url.

  Raises:
    ValueError: a workdir does not exist or has nothing to report.
  """
  found, out = runs.read(workdirs), paths.location(out)
  names = ', '.join(run.name for run in found)
  title = ('Language models evaluated as in the GPT-2 paper' if tables.with_tasks_of_paper(found)
           else f'Evaluation of {names}' if any(run.results for run in found) else f'Training of {names}')
  sections = list(_sections(found))
  configs.make_workdir(out)
  access.make_folder(out / FIGURES)
  for figure in (block for section in sections for block in section.blocks if isinstance(block, Figure)):
    access.write(out / FIGURES / f'{figure.name}.svg', plots.standalone(figure.svg))
  access.write(out / 'report.html', html.page(title, sections))
  access.write(out / 'report.md', markdown.page(title, sections, FIGURES))
  return out / 'report.html', out / 'report.md'


def _sections(found):
  """Yield the sections for which there is data."""
  evaluated = [run for run in found if run.results]
  yield Section('Models', [tables.models(found)])
  yield from sizes.sections(found)
  if tables.with_tasks_of_paper(found):
    yield Section('Results beside the paper', [
      tables.results(found), *tables.limits(found),
      *_drawing('tasks-over-size', plots.tasks_over_size(found), 'Tasks of the paper\'s Table 3 and Winograd '
                'schemas over the size of the model.'), *_absent(evaluated)])
    yield Section('Score over size', [*_drawing(
      'figure-1', plots.figure_1(found), 'As the paper\'s Figure 1: scores of four tasks over the size of '
      'the model. Of GPT-2 what the paper prints; dotted, other systems.')])
  elif blocks := [*tables.other_results(found), *tables.limits(found), *_absent(evaluated)]:
    yield Section('Results', blocks)
  if reproductions := tables.expected(found):
    yield Section('What to expect of the released weights', reproductions)
  yield from core.section(found)
  limit = lambda run: run.config['config'].get('finetune', {}).get('limit', 0)
  finetuned = {finetuning.row_name(run.name, limit(run)): run.finetuned for run in found if run.finetuned}
  if finetuned:
    yield Section('Fine-tuning beside the GPT-1 paper', list(finetuning.blocks(finetuned)))
  yield from _training(found)
  yield from loss_over_tokens.sections(found)
  grids = list(tables.grids(evaluated))
  if grids:
    yield Section('Protocols', [Prose(
      'Marked: the protocol of the paper, as far as it is known. Bits for bytes and characters, '
      'per cent for accuracies, else perplexity.'), *grids])
  rows = [rows for run in evaluated[-1:] for rows in tables.details(run)]
  if rows:
    yield Section('Answers of the largest model', rows)
  seen = [block for run in found if run.overlap for block in (
    *tables.overlaps(run), *_drawing(f'overlap-{_slug(run.name)}', plots.overlap_scores(run),
                                     'Score by the share of an example\'s 8-grams that was seen in training; '
                                     'dotted, of all examples. Accuracies in per cent.'),
    *figure_5.blocks(run, _slug(run.name)))]
  if seen:
    yield Section('Overlap of test sets with training text', seen)
  samples = [block for run in found for block in _samples(run)]
  if samples:
    yield Section('Samples', samples)
  yield from appendix_samples.sections(found)
  yield from recital.sections(found)
  yield Section('How it was made', [block for run in found for block in _provenance(run)] + [_versions()])


def _drawing(name, svg, caption):
  return [Figure(name, svg, caption)] if svg else []


def _training(found):
  drawings = [
    *_drawing('loss', plots.loss_curves(found), 'Training loss (line) and held-out loss (dashed).'),
    *_drawing('training', plots.training_curves(found), 'Learning rate, norm of the gradient, and tokens per '
              'second over steps.'),
    *_drawing('figure-4', plots.figure_4(found), 'As the paper\'s Figure 4: training perplexity (over the '
              'last twentieth of what was logged) and held-out perplexity over the size of the model, a '
              'panel for each size of vocabulary: perplexities of other tokens cannot be compared. '
              'The paper\'s are of its own tokens; where the text is another one, compare the shape.')]
  drawings += _drawing('tasks-over-steps', plots.tasks_over_steps(found), 'Tasks during pretraining; '
                       'accuracies in per cent.')
  if drawings:
    yield Section('Training', [tables.training(found), *drawings])


def _absent(evaluated):
  """The tasks that were not run, and why."""
  missing = {(task, why): None for run in evaluated for task, why in run.results.get('not_run', {}).items()}
  rows = [[task, why] for task, why in missing]
  return [Table(['task', 'what is missing'], rows, 'Tasks that were not run.', prose=True)] if rows else []


def _samples(run):
  """The samples of a run, not selected, as in the paper's appendix."""
  for sample in run.samples:
    prompt = sample['prompt']
    kind = 'conditional' if prompt else 'unconditional'
    title = f'{run.name}: {kind}, top-k {sample["top_k"]}, seed {sample["seed"]}'
    yield Verbatim(title, prompt + '|' * bool(prompt) + sample['text'])


def _provenance(run):
  """The command, the config and the versions of a run."""
  command = run.config.get('command')
  if command:
    yield Verbatim(f'{run.name}: the command', shlex.join(map(redacted, command)))
  protocols = run.results.get('protocols', {})
  if protocols:
    yield Verbatim(f'{run.name}: the protocol of each task', '\n\n'.join(
      f'{task}: {text}' for task, text in protocols.items()), folded=True)
  fields = sorted(configs.flat(run.config['config']).items())
  yield Verbatim(f'{run.name}: every field of its config', '\n'.join(
    f'{field} = {redacted_values(value)!r}' for field, value in fields), folded=True)
  versions = run.results.get('versions') or run.config['versions']
  kind, number = run.results.get('devices') or run.config['devices']
  packages = ', '.join(f'{name} {version}' for name, version in versions.items())
  yield Prose(f'{run.name}: {number} x {kind}; {packages}.')


def _versions():
  found = {'gptjax': gptjax.__version__, 'Python': platform.python_version(),
           'matplotlib': importlib.metadata.version('matplotlib')}
  return Prose('This report: ' + ', '.join(f'{name} {version}' for name, version in found.items()) + '.')


def _slug(name):
  return ''.join(c if c.isalnum() else '-' for c in name)

