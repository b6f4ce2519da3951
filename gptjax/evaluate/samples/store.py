"""The samples of a model on disk, `WORKDIR/samples/KIND.jsonl`, to which each batch is appended at once.

A line is a record with a checksum, of one of three kinds: a sample (see `Sample`); the current samples,
`{"weights", "ids"}`, those that the last command has asked for; a choice, `{"group", "chosen"}`, the number
of the sample that a person chose. A command that was stopped continues with the samples that are missing, and
the report needs no model.
"""

import contextlib
import json
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.storage.files import access, json_files, local, parts, records
from gptjax.storage.files.paths import Url

FOLDER, PART_SECONDS = 'samples', 10.0  # in a bucket, seconds between parts
CONTEXTS, SEVERAL, BEST_OF, RECITAL = KINDS = 'contexts', 'several', 'best-of', 'recital'


class Sample(NamedTuple):
  """A text that a model has written.

  id: digest of everything that it depends on but the weights.
  weights: digest of these.
  group: digest of the prompt and the lengths: the same for other models, numbers of samples and seeds.
  title: of the prompt, one line.
  prompt, text: what the model was given, and what it wrote.
  reference: how the text of the prompt goes on; '' if it is no part of a text.
  prompt_tokens, tokens: numbers of tokens of `prompt` and `text`.
  max_tokens: that were asked for.
  finish: 'length', 'end' (end-of-text) or 'context' (it was full).
  number: of the sample, from 1.
  temperature: 0 is greedy.
  top_k: sampled from this many tokens; 0: from all.
  seed: of the sample.
  log_prob: of `text` after `prompt`, in nats, without temperature and top-k; None without tokens.
  """
  id: str
  weights: str
  group: str
  title: str
  prompt: str
  text: str
  reference: str
  prompt_tokens: int
  tokens: int
  max_tokens: int
  finish: str
  number: int
  temperature: float
  top_k: int
  seed: int
  log_prob: float | None

  @property
  def mean_log_prob(self):
    """Log probability per token in nats; None without tokens."""
    return None if self.log_prob is None else self.log_prob / self.tokens


class Stored(NamedTuple):
  """The content of a file.

  samples: [Sample], the current ones that have been written, in the order in which they were asked for.
  wanted: number of samples that were asked for.
  chosen: {group: number of the sample that was chosen}.
  lines: [record], all that are valid.
  """
  samples: list
  wanted: int
  chosen: dict
  lines: list


CURRENT, CHOICE = {'weights': str, 'ids': [str]}, {'group': str, 'chosen': int}
LAYOUT = {**dict.fromkeys(('id', 'weights', 'group', 'title', 'prompt', 'text', 'reference', 'finish'), str),
          **dict.fromkeys(('prompt_tokens', 'tokens', 'max_tokens', 'number', 'top_k', 'seed'), int),
          'temperature': json_files.NUMBER, 'log_prob': json_files.OPTIONAL_NUMBER}


def path_of(workdir, kind):
  """Return the location of the samples of a kind in a workdir (Path or Url)."""
  return workdir / FOLDER / f'{kind}.jsonl'


def read(path, log=records.log):
  """Return what a file has; nothing if there is none. Damaged lines are reported and omitted."""
  lines, samples, chosen, current = records.read_lines(path, _read, log), {}, {}, []
  for line in lines:
    if line.keys() == CURRENT.keys():
      current = [(line['weights'], one) for one in line['ids']]
    elif line.keys() == CHOICE.keys():
      chosen[line['group']] = line['chosen']
    else:
      samples[line['weights'], line['id']] = Sample(**line)
  return Stored([samples[key] for key in current if key in samples], len(current), chosen, lines)


def _read(text):
  record = records.parse(text)
  if not isinstance(record, dict) or records.CHECKSUM not in record:
    raise ValueError('not a record')
  body = records.remove_checksum(record)
  layouts = [layout for layout in (CURRENT, CHOICE, LAYOUT) if layout.keys() == body.keys()]
  if not layouts or json_files.layout_fault(body, layouts[0]):
    raise ValueError('not a sample')
  return body


@contextlib.contextmanager
def appending(path, lines):
  """Yield a function that appends a record to a file that has `lines` (those of `read`) so far."""
  if isinstance(path, Url):
    file = parts.Writer(path, records.log, PART_SECONDS)
  else:
    access.make_folder(path.parent)
    parts.replace(path, ''.join(map(_line, lines)))  # without damaged lines
    file = local.lines_at_end(path)
  with contextlib.closing(file):
    yield lambda record: file.write(_line(record))


def _line(record):
  return json.dumps(records.add_checksum(record)) + '\n'


def choose(path, number):
  """Record that a person chose the sample with this number.

  Raises:
    InputError: there are no samples yet, or there is no sample with this number.
  """
  stored = read(path)
  numbers = [one.number for one in stored.samples]
  if number not in numbers:
    there = f'the samples 1 to {max(numbers)}' if numbers else 'no samples yet: write them without --choose'
    raise InputError(f'--choose={number}: {path} has {there}')
  group = stored.samples[-1].group
  with appending(path, stored.lines) as append:
    append({'group': group, 'chosen': number})
