"""The exact method: the 8-grams of the test sets are in memory, and the training text is read past them.

The results of the parts say which keys of the test sets occur in them; the final file has their union.

8-grams are compared by their 64-bit keys, not by their text. The expected number of those of the test sets
that are found only because another 8-gram has the same key is (keys of the test sets) x (8-grams of the
training text) / 2^64: 0.005 in the whole study, for ten million of the test sets and the ten billion of
WebText. To rule that out, the text of the 8-grams would take about eight times the memory.
"""

import base64
import hashlib
import json
from typing import NamedTuple

import numpy as np

from gptjax.data.ngrams import key_set
from gptjax.data.stages import work
from gptjax.errors import InputError
from gptjax.evaluate.overlap import training_text
from gptjax.storage.files import access, json_files, records
from gptjax.text.redacted import redacted_values
from gptjax.text.words import plural

VERSION = 1
MAX_BYTES = 1 << 34
LAYOUT = {**dict.fromkeys(('version', 'documents', 'skipped', 'eightgrams', 'keys', 'found'), int),
          'sources': [str], 'digest': str, 'hits': str}


class Hits(NamedTuple):
  """Which 8-grams of test sets are in a training text.

  keys: KeySet of m keys: those that can be looked up.
  hits: bool[m], of the sorted keys.
  metadata: `sources`; counts `documents`, `skipped` and `eightgrams` of the training text, `keys` and `found`
    ones of the test sets.
  """
  keys: key_set.KeySet
  hits: np.ndarray
  metadata: dict

  def contains(self, keys):
    """Return bool[n] for uint64[n]; InputError unless all of them are in `self.keys`."""
    found, index = self.keys.find(keys)
    if len(found) != len(keys):
      raise InputError(f'{plural(len(keys) - len(found), "8-gram")} of a test set were not there when the '
                       'training text was read: the test set changed; run the same command again')
    return self.hits[index]


def make_text(name, sources, folder, test_keys, *, on_error, separator, tfds_dir, progress=True):
  """Return the TrainingText of sources for this method.

  Args:
    name, folder, progress: as in TrainingText.
    sources: list of KIND:WHERE.
    test_keys: KeySet of the 8-grams that are looked up.
    on_error, separator, tfds_dir: as for `data.prepare`.
  """
  settings = lambda units: json.dumps({
    'method': 'exact', 'version': VERSION, 'units': redacted_values(units), 'separator': separator,
    'on_error': on_error, 'keys': _digest(test_keys)})
  return training_text.training_text(
    name, sources, folder, METHOD, test_keys, settings, tfds_dir=tfds_dir, on_error=on_error,
    separator=separator, progress=progress)


def _digest(test_keys):
  return hashlib.sha256(test_keys.keys.astype('<u8').tobytes()).hexdigest()


def _read(text, number):
  """Write which keys of the test sets are in a part: bits, the lowest of a byte first."""
  found, counts = np.zeros(len(text.parameters.keys), bool), {}
  for keys in training_text.read_keys(text, number, counts):
    found[text.parameters.find(keys)[1]] = True
  folder, name = text.work / 'read', f'{number:05d}'
  work.write(folder / f'{name}.found', np.packbits(found, bitorder='little'))
  work.write_record(folder, name, counts)


def _finish(text):
  """Write the final file, a record: the union of the bits of all parts, in base64."""
  totals, n = training_text.totals(text), len(text.parameters.keys)
  bits = np.zeros(-(-n // 8), np.uint8)
  for number in range(text.n_parts):
    bits |= work.read(text.work / 'read' / f'{number:05d}.found', np.uint8)
  record = {'version': VERSION, **totals, 'sources': text.sources, 'keys': n,
            'found': int(np.bitwise_count(bits).sum()), 'digest': _digest(text.parameters),
            'hits': base64.b64encode(bits.tobytes()).decode()}
  access.write(text.out, json.dumps(records.add_checksum(record), sort_keys=True))


def _opened(text):
  """Return the Hits in the final file of a text."""
  content = access.read(text.out, MAX_BYTES)
  try:
    record = records.remove_checksum(records.parse(content))
    fault = json_files.layout_fault(record, LAYOUT) or record['digest'] != _digest(text.parameters)
    bits = np.frombuffer(b'' if fault else base64.b64decode(record['hits']), np.uint8)
    fault = fault or len(bits) != -(-record['keys'] // 8)
  except ValueError as error:
    fault = error
  if fault:
    raise InputError(f'{text.out} is damaged: remove it and run the same command again')
  hits = np.unpackbits(bits, count=record['keys'], bitorder='little').astype(bool)
  return Hits(text.parameters, hits, {name: value for name, value in record.items() if name != 'hits'})


METHOD = training_text.Method('.hits', {'read': (training_text.n_parts, _read)}, _finish, _opened)
