"""Perplexity and bits per character of whole texts (GPT-2 paper, section 3.1 and Table 3).

A text is one sequence after the start-of-text token, so its first token is scored too; each sentence of 1BW,
which is shuffled, is a text of its own. Windows of n_ctx tokens advance by a stride; in each window only the
tokens that earlier windows did not score are scored, so every token is scored exactly once. The loss of the
whole text is divided by the number of units of the published data set, whatever form of the text was scored.
"""

import functools
import math
import re
from typing import NamedTuple

import numpy as np

from gptjax.evaluate.scoring.evaluated_model import (
  Task,
  TaskResult,
  request_from_start,
  score_with_journal,
)
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.texts import schema, sources
from gptjax.evaluate.texts.detokenize import (
  BILLION,
  PLAIN,
  PTB,
  WIKITEXT,
  Style,
  count_kept_spans,
  detokenize,
)
from gptjax.storage.files import local

SHORT_STRIDE = 32  # tokens; a small stride, for nearly the full context at each token
CHUNK_CHARACTERS = 1000  # characters per "example" of a text without lines
WORD, BYTE, CHARACTER, TOKEN = 'word', 'byte', 'character', 'token'
WORD_ALONE = 'word (line ends not counted)'
LINE = re.compile(r'[^\n]*\n|[^\n]+')
DETOKENIZED, RAW = 'de-tokenized', 'raw'


LINES = schema.Schema('lines', {'text': schema.text(blank=True)})


class TextSet(NamedTuple):
  """A text to read.

  unit: of the paper's number; as usual, a line end counts as a word.
  style: how the text was tokenized.
  test_divisor: the last 1 / test_divisor of the file is the test set.
  separate_lines: whether each line is a text of its own.
  published: number of units of the published test set; if that is a part of a file, bytes of the file.
  sha256: pairs of the name and the digest of a published file.
  """
  name: str
  title: str
  files: tuple
  url: str
  unit: str = WORD
  style: Style = PLAIN
  test_divisor: int = 1
  separate_lines: bool = False
  tfds: str = ''
  published: int = 0
  sha256: tuple = ()


SETS = (
  TextSet('wikitext2', 'WikiText-2', (
    'wikitext-2-raw/wiki.test.raw', 'wikitext-2/wiki.test.raw', 'wikitext-2/wiki.test.tokens',
    'wikitext-2/test.txt'), 'https://www.salesforce.com/blog/the-wikitext-long-term-dependency-language-'
    'modeling-dataset', style=WIKITEXT, published=245_569, sha256=(
      ('wiki.test.raw', '173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08'),)),
  TextSet('ptb', 'Penn Treebank', ('ptb.test.txt', 'simple-examples/data/ptb.test.txt'),
          'https://www.fit.vut.cz/person/imikolov/public/rnnlm/simple-examples.tgz', style=PTB,
          published=82_430),
  TextSet('enwik8', 'enwik8', ('enwik8', 'enwik8/enwik8'), 'http://mattmahoney.net/dc/enwik8.zip', unit=BYTE,
          test_divisor=20, published=100_000_000),
  TextSet('text8', 'text8', ('text8', 'text8/text8'), 'http://mattmahoney.net/dc/text8.zip', unit=CHARACTER,
          test_divisor=20, published=100_000_000),
  TextSet('wikitext103', 'WikiText-103', (
    'wikitext-103-raw/wiki.test.raw', 'wikitext-103/wiki.test.raw', 'wikitext-103/wiki.test.tokens'),
    'https://www.salesforce.com/blog/the-wikitext-long-term-dependency-language-modeling-dataset',
    style=WIKITEXT, published=245_569),
  TextSet('1bw', '1 Billion Words', (
    'news.en.heldout-00000-of-00050',
    'heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050'),
    'https://www.statmt.org/lm-benchmark/', style=BILLION, separate_lines=True, tfds='lm1b'))


def read(text_set, data):
  """Return [str]: lines with their line ends, or pieces of a text without lines."""
  path = sources.find_file(data, *text_set.files)
  if path:
    return data.limited(_lines(_text(path, text_set, data.note), text_set))
  records = sources.read_tfds(data, text_set.tfds, 'test', LINES) if text_set.tfds else None
  if records is None:
    raise sources.NotRun(sources.not_found_message(text_set.title, text_set.url, text_set.files[0],
                                                   tfds=text_set.tfds))
  return [record['text'] + '\n' for record in records]


def _text(path, text_set, note):
  """Return the test part of a file, without the remaining bytes of a character at its boundary."""
  raw = local.content(path)
  schema.note_digest(dict(text_set.sha256).get(path.name, ''), raw, path, note)
  if text_set.test_divisor == 1:
    text = sources.decode(path, raw, note)
    _note_size(text_set, count_units(_lines(text, text_set))[text_set.unit], f'{text_set.unit}s', path, note)
    return text
  raw = sources.with_lf_line_ends(path, raw, note)
  _note_size(text_set, len(raw), 'bytes', path, note)
  raw = raw[len(raw) - len(raw) // text_set.test_divisor:]
  begin = next((i for i, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0)
  return sources.decode(path, raw[begin:], allow_truncated=True)


def _note_size(text_set, n, unit, path, note):
  if text_set.published and n != text_set.published:
    note(f'{path} has {n:,} {unit}, the published file {text_set.published:,}: results are not comparable '
         'with published ones')


def _lines(text, text_set):
  if text_set.unit == CHARACTER:
    return [text[at:at + CHUNK_CHARACTERS] for at in range(0, len(text), CHUNK_CHARACTERS)]
  return LINE.findall(text)


def windows(ids, start, n_ctx, stride):
  """Return Requests that together score each token from `start` on exactly once.

  Args:
    ids: int32[n].
    start: number of tokens at the beginning that are not scored, at least 1.
    n_ctx: input tokens per window.
    stride: scored tokens per window, except for the first window, which scores all of its tokens.
  """
  requests, scored_to = [], start
  while scored_to < len(ids):
    end = min(len(ids), n_ctx + 1 if not requests else scored_to + stride)
    begin = max(0, end - n_ctx - 1)
    requests.append(Request(ids[begin:end], scored_to - begin))
    scored_to = end
  return requests


def count_units(lines):
  """Return {unit: number of units in the published text}."""
  words = sum(len(line.split()) for line in lines)
  ends = sum(line.endswith('\n') for line in lines)
  return {WORD: words + ends, WORD_ALONE: words, BYTE: sum(len(line.encode()) for line in lines),
          CHARACTER: sum(map(len, lines))}


def metric_value(total, unit, count):
  """Return perplexity per word or token, or bits per byte or character, from the total loss in nats."""
  mean = total / max(count, 1)
  return mean / math.log(2) if unit in (BYTE, CHARACTER) else math.exp(min(mean, 700))


class ScoringPass(NamedTuple):
  """The scores of a text in one form and with one stride.

  form: of the text.
  stride: of the windows.
  n_kept_spans: number of spans that detokenize keeps unchanged, because it is not invertible there.
  requests, scores: of its windows.
  """
  form: str
  stride: int
  n_kept_spans: int
  requests: list
  scores: list

  @property
  def nats(self):
    """The total loss of the text."""
    return -math.fsum(score.log_prob for score in self.scores)

  @property
  def tokens(self):
    """Number of scored tokens."""
    return sum(len(ids) - start for ids, start in self.requests)


def evaluate(text_set, evaluated, lines):
  """Return the TaskResult: the paper's metric; with `evaluated.grid` cells of other forms and strides."""
  detokenized = 'as it is' if text_set.style == PLAIN else DETOKENIZED
  forms = {detokenized: text_set.style} | ({RAW: PLAIN} if evaluated.grid and text_set.style != PLAIN else {})
  passes = [run_pass(text_set, evaluated, lines, form, style, stride)
            for form, style in forms.items() for stride in strides(text_set, evaluated, lines)]
  paper, counts = passes[0], count_units(lines)
  cells = tuple({'text': each.form, 'stride': each.stride, 'unit': unit,
                 'value': metric_value(each.nats, unit, count),
                 'paper': each is paper and unit == text_set.unit}
                for each in passes for unit, count in {TOKEN: each.tokens, **counts}.items())
  kind = {WORD: 'perplexity', BYTE: 'bits_per_byte', CHARACTER: 'bits_per_character'}[text_set.unit]
  metrics = {kind: metric_value(paper.nats, text_set.unit, counts[text_set.unit]), 'nats': paper.nats,
             'tokens': paper.tokens, 'words': counts[WORD], 'bytes': counts[BYTE],
             'characters': counts[CHARACTER]}
  return TaskResult(metrics, _protocol(text_set, evaluated, paper.n_kept_spans), cells=cells, examples=tuple(
    {'text': evaluated.tokenizer.decode(ids[start:]), 'nats': -score.log_prob, 'tokens': len(ids) - start}
    for (ids, start), score in zip(paper.requests, paper.scores)))


def strides(text_set, evaluated, lines):
  """Return strides: n_ctx, probably the paper's; with `evaluated.grid` also n_ctx // 2 and SHORT_STRIDE."""
  n_ctx = evaluated.model.n_ctx
  if not evaluated.grid:
    return [n_ctx]
  longest = (max(len(evaluated.tokenizer.encode(line)) for line in lines) if text_set.separate_lines
             else math.inf)
  others = {n_ctx // 2, min(SHORT_STRIDE, n_ctx)} - {n_ctx, 0}
  return [n_ctx, *sorted((stride for stride in others if longest > n_ctx), reverse=True)]


def run_pass(text_set, evaluated, lines, form, style, stride):
  """Score the text in one form and with one stride; returns a ScoringPass."""
  texts = [detokenize(line, style) for line in (lines if text_set.separate_lines else [''.join(lines)])]
  requests = [window for text in texts for window in _windows_of(evaluated, text, stride)]
  scores = score_with_journal(evaluated, f'{text_set.name} {form}, stride {stride}', requests)
  n_kept_spans = sum(map(count_kept_spans, texts)) if style != PLAIN else 0
  return ScoringPass(form, stride, n_kept_spans, requests, scores)


def _windows_of(evaluated, text, stride):
  ids = np.asarray(evaluated.tokenizer.encode(text), np.int32)
  if not len(ids):
    return []
  return windows(*request_from_start(evaluated, ids, 0), evaluated.model.n_ctx, stride)


def _protocol(text_set, evaluated, n_kept_spans):
  first = ('after the start-of-text token' if evaluated.tokenizer.start_of_text is not None
           else 'whose first token is not scored, as this tokenizer has no start-of-text token')
  text = 'Each line is a text' if text_set.separate_lines else 'The test set is one text'
  form = ('as it is published' if text_set.style == PLAIN else
          f'de-tokenized, except for {n_kept_spans} spans that are kept as published between two U+2060 '
          'characters')
  return (f'{text}, {form}, {first}; windows of {evaluated.model.n_ctx} tokens, each token scored once; the '
          f'loss of all is divided by the number of {text_set.unit}s as published'
          + (', line ends counted' if text_set.unit == WORD else '') + '.')


def _task(text_set):
  return Task(text_set.name, text_set.title, functools.partial(read, text_set),
              functools.partial(evaluate, text_set))


TASKS = tuple(map(_task, SETS))
