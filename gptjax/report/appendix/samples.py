"""Tables 7 to 13: completions of held-out contexts, side by side, and the best of several samples."""

from gptjax.evaluate.samples import store
from gptjax.report.document import Prose, Section, SideBySide, Table, Verbatim

SHOWN = 5           # contexts; the paper shows as many
CONTEXT_SHOWN = 1 / 3  # of a context, its end; the paper shows about 256 of 768 tokens
MARKED = 'chosen'


def sections(all_runs):
  """Yield the sections for which the runs have samples; all_runs: [runs.Run], the smallest model first."""
  for kind, title, blocks in (
      (store.CONTEXTS, 'Completions of held-out text', _contexts),
      (store.SEVERAL, 'Several completions of one context', _several),
      (store.BEST_OF, 'Best of several samples', _best_of)):
    shown = blocks(of_kind(all_runs, kind))
    if shown:
      yield Section(title, shown)


def of_kind(all_runs, kind):
  """Return [(Run, store.Stored)] of the runs that have samples of a kind."""
  found = [(run, store.read(store.path_of(run.folder, kind))) for run in all_runs]
  return [(run, stored) for run, stored in found if stored.samples]


def describe(sample):
  """Describe how a sample was made: 'top-k 40, seed 0'."""
  if not sample.temperature:
    return 'greedy'
  return f'{f"top-k {sample.top_k}" if sample.top_k else "from all tokens"}, seed {sample.seed}'


def _contexts(found):
  """The contexts that the smallest and the largest model both continue, with both completions."""
  if not found:
    return []
  columns = [(run, _by_group(stored)) for run, stored in (found[:1] + found[-1:] if found[1:] else found)]
  groups = [group for group in columns[-1][1] if all(group in samples for _, samples in columns)]
  if not groups:
    return [Prose('The smallest and the largest model have completed no context that is the same: run '
                  '`gptjax samples contexts` with the workdirs of both.')]
  first = columns[-1][1][groups[0]][0]
  blocks = [Prose(
    f'As the paper\'s Tables 7 to 11: {first.prompt_tokens:,} tokens of held-out text as context (the paper: '
    f'768), of which the end is shown, and completions of {first.max_tokens:,} (256) by the smallest and the '
    f'largest model; {describe(first)}. Not selected: the first {min(SHOWN, len(groups))} of {len(groups):,} '
    'random contexts.')]
  for number, group in enumerate(groups[:SHOWN], 1):
    sample = columns[-1][1][group][0]
    blocks += [Verbatim(f'Context {number}: {sample.title}', '...' + _end(sample.prompt)),
               SideBySide([(f'{run.name} ({run.model["parameters"]:,} parameters)', samples[group][0].text)
                           for run, samples in columns]),
               Verbatim(f'Context {number}: the real continuation', sample.reference, folded=True)]
  return blocks


def _by_group(stored):
  groups = {}
  for sample in stored.samples:
    groups.setdefault(sample.group, []).append(sample)
  return groups


def _end(text):
  """The end of a context, from the beginning of a word."""
  start = int(len(text) * (1 - CONTEXT_SHOWN))
  space = text.find(' ', start)
  return text[space if 0 <= space < len(text) - 1 else start:]


def _several(found):
  """Completions of one context by the largest model, as the paper's Table 12."""
  if not found:
    return []
  run, stored = found[-1]
  samples = _by_group(stored)[stored.samples[-1].group]
  first = samples[0]
  shown = [(f'{run.name}, completion {sample.number}', sample.text) for sample in samples]
  return [Prose(f'As the paper\'s Table 12: completions of {first.max_tokens:,} tokens (the paper: 128) of '
                f'one context of {first.prompt_tokens:,} (384), of which the end is shown; '
                f'{describe(first)}. Not selected.'),
          Verbatim(f'The context: {first.title}', '...' + _end(first.prompt)),
          *(SideBySide(shown[at:at + 2]) for at in range(0, len(shown), 2))]


def _best_of(found):
  """All samples of each model for its last prompt; one of them is marked."""
  blocks = []
  for run, stored in found:
    samples = _by_group(stored)[stored.samples[-1].group]
    best, why = best_of(samples, stored.chosen.get(samples[0].group))
    rows = [[str(one.number), f'{one.tokens:,}', _number(one.log_prob), _number(one.mean_log_prob),
             MARKED if one is best else None] for one in samples]
    blocks += [
      Prose(f'{run.name}: {len(samples)} samples for {samples[0].title}; {describe(samples[0])}. Sample '
            f'{best.number} is marked, {why}. The paper shows one of ten samples, which its authors chose '
            '(Table 13).'),
      Table(['sample', 'tokens', 'log probability', 'per token', ''], rows,
            f'{run.name}: log probabilities in nats, without top-k.'),
      Verbatim(f'{run.name}: the prompt, and sample {best.number} after "|"', f'{best.prompt}|{best.text}'),
      *(Verbatim(f'{run.name}: sample {one.number}', one.text, folded=True) for one in samples
        if one is not best)]
  return blocks


def best_of(samples, chosen):
  """Return (the sample that a person chose, or the one with the highest mean log probability; why)."""
  for sample in samples:
    if sample.number == chosen:
      return sample, 'which was chosen by hand'
  key = lambda sample: float('-inf') if sample.log_prob is None else sample.mean_log_prob
  return max(samples, key=key), (
    'which has the highest log probability per token; that often means repetition, and `gptjax samples '
    'best-of --choose=NUMBER` marks another one')


def _number(value):
  return None if value is None else f'{value:.3f}'
