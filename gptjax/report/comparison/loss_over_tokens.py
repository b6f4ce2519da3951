"""Held-out loss over training tokens beside published losses of the same text (`published_losses`)."""

from gptjax.command import figures
from gptjax.report import plots, runs
from gptjax.report.comparison import published_losses
from gptjax.report.document import Figure, Prose, Section, Table

LABEL_HEIGHT = 0.05  # of a panel


def sections(found):
  """Yield the section of the runs whose config has a `data.reference`, if there are any."""
  by_text = {}
  for run in runs.trained(found):
    text, points = published_losses.TEXTS.get(run.trained.get('data', {}).get('reference')), curve(run)
    if text and points:
      by_text.setdefault(text, []).append((run, points))
  if not by_text:
    return
  yield Section('Loss over tokens', [
    Figure('loss-over-tokens', plot(by_text), 'Held-out loss over training tokens. Dotted: published losses '
           'of the same text; a cross is at the tokens after which one was measured.'),
    *(Prose(f'{run.name} has a vocabulary of {run.model["n_vocab"]:,} entries; the published losses are of '
            f'{text.n_vocab:,}, so they are not drawn beside it.')
      for text, of_text in by_text.items() for run, _ in of_text if not is_comparable(run, text)),
    *(table(text) for text in by_text)])


def curve(run):
  """Return [(training tokens, held-out loss)] of a run; [] if its config has no batch size."""
  fields = ('train', 'batch_size'), ('data', 'seq_len')
  sizes = [run.trained.get(part, {}).get(name) for part, name in fields]
  if not all(sizes):
    return []
  tokens = sizes[0] * sizes[1]
  return [(step * tokens, loss) for step, loss in zip(*runs.curve(run, 'eval/loss'), strict=True) if step]


def is_comparable(run, text):
  """Whether the losses of a run are of tokens of the same tokenizer, as far as its size says."""
  return run.model.get('n_vocab') == text.n_vocab


def table(text):
  """Return the table of the published losses of a text, with their sources."""
  tokens = lambda one: None if one.tokens is None else f'{one.tokens / 1e9:.1f} G'
  rows = [[one.label, f'{one.loss:.3f}', tokens(one), one.source] for one in text.losses]
  return Table([text.title, 'nats per token', 'training tokens', 'source'], rows,
               f'Published held-out losses of {text.title}. Measured on: {text.split}. Another held-out '
               'split of the same text gives another loss.', prose=True)


def plot(by_text):
  """Return the SVG of one panel for each text.

  Args:
    by_text: {Text: [(Run, [(tokens, loss)])]}.
  """
  def draw(figure, axes):
    for panel, (text, of_text) in zip(axes.flat, by_text.items(), strict=True):
      for i, (run, points) in enumerate(of_text):
        panel.plot(*zip(*points, strict=True), color=plots.SERIES[i % len(plots.SERIES)],
                   marker=plots.MARKERS[i % len(plots.MARKERS)],
                   label=figures.literal(f'{run.name} ({plots.short_count(run.model["parameters"])})'))
      if any(is_comparable(run, text) for run, _ in of_text):
        _draw_published(panel, text)
      panel.set_xscale('log')
      panel.set(title=text.title, xlabel='training tokens', ylabel='held-out loss, nats per token')
      panel.legend()
  width = plots.WIDTH * (0.8 if len(by_text) == 1 else 1)
  return plots.drawn(len(by_text), 1, (width, 4.2 * len(by_text)), draw)


def _draw_published(panel, text):
  """Draw a line for each published loss, its label at the right, and a cross at its number of tokens."""
  for one in text.losses:
    panel.axhline(one.loss, **plots.DOTTED)
    if one.tokens:
      panel.plot([one.tokens], [one.loss], 'x', color=plots.FAINT)
  low, high = panel.get_ylim()
  lowest, apart = high, LABEL_HEIGHT * (high - low)
  for one in sorted(text.losses, key=lambda one: -one.loss):
    lowest = min(one.loss, lowest - apart)
    panel.text(1.01, lowest, f'{one.label}: {one.loss:.2f}', transform=panel.get_yaxis_transform(),
               va='center', fontsize=8, color=plots.FAINT)
