"""Section 8.2: how far the models recite known texts."""

import statistics

from gptjax.evaluate.samples import store
from gptjax.evaluate.samples.recital import recited
from gptjax.report.appendix.samples import describe, of_kind
from gptjax.report.document import Prose, Section, SideBySide, Strong, Table


def sections(all_runs):
  """Yield the section, if a run has recited something."""
  found = of_kind(all_runs, store.RECITAL)
  if not found:
    return
  rows, columns = [], []
  for run, stored in found:
    for samples in _by_text(stored).values():
      rows += _rows(run, samples)
  for samples in _by_text(found[-1][1]).values():
    greedy = next((one for one in samples if not one.temperature), samples[0])
    columns += [SideBySide([(f'{greedy.title}, after {len(greedy.prompt.split())} words', greedy.reference),
                            (f'{found[-1][0].name}, {describe(greedy)}', greedy.text)])]
  yield Section('Recital of known texts', [
    Prose('How many words of a text a model writes after its first words before it deviates from the text. '
          'The paper (section 8.2): given the first sentence and a half of the Gettysburg Address, of which '
          'WebText has about 40 copies, GPT-2 recites the speech greedily; sampling from all tokens, it '
          'follows the speech for a while, and typically drifts away within 100 to 200 tokens.'),
    Table(['text', 'model', 'how', 'samples', 'words', 'exact', 'by letters'], rows,
          'Words recited before the first deviation, the median of the samples and their maximum. By '
          'letters: without case and punctuation, in which copies of a text differ. Words: of the rest of '
          'the text, of which a model recites no more than its context has room for.'), *columns])


def _by_text(stored):
  """Return {group: samples}: those of each text, prompt and length."""
  groups = {}
  for sample in stored.samples:
    groups.setdefault(sample.group, []).append(sample)
  return groups


def _rows(run, samples):
  """A row for each way of decoding."""
  by_decoding = {}
  for sample in samples:
    by_decoding.setdefault(describe(sample), []).append(recited(sample.reference, sample.text))
  for how, found in by_decoding.items():
    yield [samples[0].title, run.name, how, str(len(found)), f'{found[0].words:,}',
           *(Strong(_summary([getattr(one, name) for one in found])) for name in ('exact', 'letters'))]


def _summary(values):
  """'12 (max. 30)', or the only value."""
  return f'{values[0]:,}' if len(values) == 1 else f'{statistics.median(values):,g} (max. {max(values):,})'
