"""Perplexity and bits a character of whole texts (GPT-2 paper, section 3.1 and Table 3).

A text is one sequence after the end-of-text token, so its first token is scored too; the sentences of 1BW,
which are shuffled, are one each. Windows of n_ctx tokens are moved on by a stride; of each, only those
tokens are scored that the ones before did not reach, so every token is scored exactly once. The loss of the
whole text is divided by the number of units of the data set as it was published, whatever text was read.
"""

import functools
import math
import re
from typing import NamedTuple

import numpy as np

from gptjax.evaluate.scoring.evaluated_model import (
  Task,
  TaskResult,
  request_after_end_of_text,
  score_with_journal,
)
from gptjax.evaluate.scoring.scores import Request
from gptjax.evaluate.texts import schema, sources
from gptjax.evaluate.texts.detokenize import BILLION, PLAIN, PTB, WIKITEXT, Style, count_marked, detokenize

SHORT_STRIDE = 32  # tokens; of Radford's later table
CHUNK_CHARACTERS = 1000  # characters of an "example", where a text has no lines
WORD, BYTE, CHARACTER, TOKEN = 'word', 'byte', 'character', 'token'
WORD_ALONE = 'word (line ends not counted)'
LINE = re.compile(r'[^\n]*\n|[^\n]+')
DETOKENIZED, RAW = 'de-tokenized', 'raw'


LINES = schema.Schema('lines', {'text': schema.text(blank=True)})


class TextSet(NamedTuple):
  """A text to read.

  unit: of the paper's number; words are counted with the end of each line, as is usual.
  style: how it was tokenized.
  part: what share of the file, from its end, is the test set: 1 / part.
  apart: whether each line is a text of its own.
  published: how many units the published test set has; where it is a part of a file, bytes of that file.
  sha256: of the published file: pairs of its name and digest.
  """
  name: str
  title: str
  files: tuple
  url: str
  unit: str = WORD
  style: Style = PLAIN
  test_part: int = 1
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
          test_part=20, published=100_000_000),
  TextSet('text8', 'text8', ('text8', 'text8/text8'), 'http://mattmahoney.net/dc/text8.zip', unit=CHARACTER,
          test_part=20, published=100_000_000),
  TextSet('wikitext103', 'WikiText-103', (
    'wikitext-103-raw/wiki.test.raw', 'wikitext-103/wiki.test.raw', 'wikitext-103/wiki.test.tokens'),
    'https://www.salesforce.com/blog/the-wikitext-long-term-dependency-language-modeling-dataset',
    style=WIKITEXT, published=245_569),
  TextSet('1bw', '1 Billion Words', (
    'news.en.heldout-00000-of-00050',
    'heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050'),
    'https://www.statmt.org/lm-benchmark/', style=BILLION, separate_lines=True, tfds='lm1b'))


def read(of, data):
  """[str], lines with their ends, or pieces of a text without lines."""
  path = sources.find_file(data, *of.files)
  if path:
    return data.limited(_lines(_text(path, of, data.note), of))
  found = sources.read_tfds(data, of.tfds, 'test', LINES) if of.tfds else None
  if found is None:
    raise sources.NotRun(sources.not_found_message(of.title, of.url, of.files[0], tfds=of.tfds))
  return [record['text'] + '\n' for record in found]


def _text(path, of, note):
  """The test part of a file, without the bytes of a character that was cut in two."""
  raw = path.read_bytes()
  schema.note_digest(dict(of.sha256).get(path.name, ''), raw, path, note)
  if of.test_part == 1:
    text = sources.decode(path, raw, note)
    _note_size(of, count_units(_lines(text, of))[of.unit], f'{of.unit}s', path, note)
    return text
  raw = sources.with_lf_line_ends(path, raw, note)
  _note_size(of, len(raw), 'bytes', path, note)
  raw = raw[len(raw) - len(raw) // of.test_part:]
  begin = next((i for i, byte in enumerate(raw[:4]) if byte & 0xC0 != 0x80), 0)
  return sources.decode(path, raw[begin:], cut=True)


def _note_size(of, n, unit, path, note):
  if of.published and n != of.published:
    note(f'{path} has {n:,} {unit}, the published file {of.published:,}: results are not comparable with '
         'published ones')


def _lines(text, of):
  if of.unit == CHARACTER:
    return [text[at:at + CHUNK_CHARACTERS] for at in range(0, len(text), CHUNK_CHARACTERS)]
  return LINE.findall(text)


def windows(ids, start, n_ctx, stride):
  """Requests that together score each of the tokens from `start` on exactly once.

  Args:
    ids: int32[n].
    start: tokens at the beginning that are only given, at least 1.
    n_ctx: tokens that a window reads.
    stride: tokens that it scores, but for the first window, which scores all.
  """
  made, scored_to = [], start
  while scored_to < len(ids):
    end = min(len(ids), n_ctx + 1 if not made else scored_to + stride)
    begin = max(0, end - n_ctx - 1)
    made.append(Request(ids[begin:end], scored_to - begin))
    scored_to = end
  return made


def count_units(lines):
  """{unit: how many the text as published has}."""
  words = sum(len(line.split()) for line in lines)
  ends = sum(line.endswith('\n') for line in lines)
  return {WORD: words + ends, WORD_ALONE: words, BYTE: sum(len(line.encode()) for line in lines),
          CHARACTER: sum(map(len, lines))}


def metric_value(total, unit, count):
  """Perplexity a word or token, or bits a byte or character, of a text that has cost so many nats."""
  mean = total / max(count, 1)
  return mean / math.log(2) if unit in (BYTE, CHARACTER) else math.exp(min(mean, 700))


class ScoringPass(NamedTuple):
  """One reading of a text.

  form, stride: how it was read; marks: stretches of it that could not be de-tokenized.
  requests, scores: of its windows.
  """
  form: str
  stride: int
  marks: int
  requests: list
  scores: list

  @property
  def nats(self):
    """What the whole text has cost."""
    return -math.fsum(score.log_prob for score in self.scores)

  @property
  def tokens(self):
    """Tokens that were scored."""
    return sum(len(ids) - start for ids, start in self.requests)


def evaluate(of, evaluated, lines):
  """The TaskResult: the paper's number, and with `evaluated.grid` those by other texts and strides."""
  detokenized = 'as it is' if of.style == PLAIN else DETOKENIZED
  forms = {detokenized: of.style} | ({RAW: PLAIN} if evaluated.grid and of.style != PLAIN else {})
  passes = [run_pass(of, evaluated, lines, form, style, stride)
            for form, style in forms.items() for stride in strides(of, evaluated, lines)]
  paper, counts = passes[0], count_units(lines)
  cells = tuple({'text': one.form, 'stride': one.stride, 'unit': unit,
                 'value': metric_value(one.nats, unit, count), 'paper': one is paper and unit == of.unit}
                for one in passes for unit, count in {TOKEN: one.tokens, **counts}.items())
  kind = {WORD: 'perplexity', BYTE: 'bits_per_byte', CHARACTER: 'bits_per_character'}[of.unit]
  metrics = {kind: metric_value(paper.nats, of.unit, counts[of.unit]), 'nats': paper.nats,
             'tokens': paper.tokens,
             'words': counts[WORD], 'bytes': counts[BYTE], 'characters': counts[CHARACTER]}
  return TaskResult(metrics, _protocol(of, evaluated, paper.marks), cells=cells, examples=tuple(
    {'text': evaluated.tokenizer.decode(ids[start:]), 'nats': -score.log_prob, 'tokens': len(ids) - start}
    for (ids, start), score in zip(paper.requests, paper.scores)))


def strides(of, evaluated, lines):
  """Return the paper's stride, as far as it is known; with `evaluated.grid` also the others that matter."""
  n_ctx = evaluated.model.n_ctx
  if not evaluated.grid:
    return [n_ctx]
  longest = max(len(evaluated.tokenizer.encode(line)) for line in lines) if of.separate_lines else math.inf
  others = {n_ctx // 2, min(SHORT_STRIDE, n_ctx)} - {n_ctx, 0}
  return [n_ctx, *sorted((one for one in others if longest > n_ctx), reverse=True)]


def run_pass(of, evaluated, lines, form, style, stride):
  """The Pass that reads the text in one form and with one stride."""
  texts = [detokenize(line, style) for line in (lines if of.separate_lines else [''.join(lines)])]
  requests = [window for text in texts for window in _windows_of(evaluated, text, stride)]
  scores = score_with_journal(evaluated, f'{of.name} {form}, stride {stride}', requests)
  return ScoringPass(form, stride, sum(map(count_marked, texts)) if style != PLAIN else 0, requests, scores)


def _windows_of(evaluated, text, stride):
  ids = np.asarray(evaluated.tokenizer.encode(text), np.int32)
  if not len(ids):
    return []
  return windows(*request_after_end_of_text(evaluated, ids, 0), evaluated.model.n_ctx, stride)


def _protocol(of, evaluated, marks):
  first = ('after the end-of-text token' if evaluated.tokenizer.end_of_text is not None
           else 'whose first token is given, for this tokenizer has no end-of-text token')
  text = 'Each line is a text' if of.separate_lines else 'The test set is one text'
  form = ('as it is published' if of.style == PLAIN else
          f'de-tokenized ({marks} stretches could not be, and stand as published between two U+2060)')
  return (f'{text}, {form}, {first}; windows of {evaluated.model.n_ctx} tokens, each token scored once; the '
          f'loss of all is divided by the number of {of.unit}s as published'
          + (', line ends counted' if of.unit == WORD else '') + '.')


def _task(of):
  return Task(of.name, of.title, functools.partial(read, of), functools.partial(evaluate, of))


TASKS = tuple(map(_task, SETS))
