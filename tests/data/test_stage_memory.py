"""The memory of a task of the stages `judge` and `mark` does not grow with the corpus, nor with a part."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import slow_except

BEGIN = """
import itertools, json, sys
sys.path[:0] = json.loads(sys.argv[1])
import numpy as np
from pathlib import Path
from types import SimpleNamespace
from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.sources import files
from gptjax.data.stages import judge, mark, parts, segment_keys, tokenizer, verdicts, work
folder, kind, n = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
rng = np.random.default_rng(0)
recipe = webtext.make_recipe('webtext', webtext.FILTERS[:-2], '', '')
reading = SimpleNamespace(recipe=recipe)
job = SimpleNamespace(work=folder, out=folder, n_parts=n, known={'recipe': recipe}, reading=reading,
                      excluded=None)
for name in ('judge', 'mark'):
  (folder / name).mkdir(parents=True, exist_ok=True)
def memory(name):
  [line] = [line for line in open('/proc/self/status') if line.startswith(name)]
  return int(line.split()[1])
def begin():
  open('/proc/self/clear_refs', 'w').write('5')  # the largest memory is counted from here on
  return memory('VmRSS')
"""

# n segments of 5,000 documents each; all of them have the same digest, or the same bands, or neither.
KEYS = BEGIN + """
M = 5000
for part in range(n):
  digests = bytes(16) * M if kind == 'exact' else rng.bytes(16 * M)
  signatures = rng.integers(0, 1 << 32, (1 if kind == 'near' else M, 120), np.uint32)
  signatures = np.broadcast_to(np.uint32(7) if kind == 'near' else signatures, (M, 120))
  own = judge.Features(bytes(M), digests, [signatures], 0)
  bits = segment_keys.write(folder / 'judge', f'{part:05d}.0', own, np.ones(M, bool), recipe)
  (folder / 'judge' / f'{part:05d}.0.signatures').unlink()
  work.write_record(folder / 'judge', f'{part:05d}', {
    'segments': [{'documents': M, 'kept': M, 'bits': bits}], 'no_origin': 0})
"""

RANGE = BEGIN + """
mark.RANGE_KEYS, mark.SORTED_PAIRS = 1 << 14, 1 << 14
assert 1 << mark._bits(job) == n // 2, mark._bits(job)
hot = int(near_duplicates.band_keys(np.full((1, 120), 7, np.uint32), recipe.near)[0, 0])
before = begin()
mark.mark(job, hot >> 64 - mark._bits(job) if kind == 'near' else 0)
print(memory('VmHWM') - before)
"""

# One part of n documents, in segments of about 2,000; some are copies of others, near ones or equal.
PART = BEGIN + """
judge.SEGMENT_BYTES = 2000 * 700
words = np.array([f'word{i}' for i in range(1000)])
def pieces(job, part):
  rng = np.random.default_rng(1)
  for i in range(n):
    text = 'the same words in each of them' if kind == 'equal' and i % 2 else ' '.join(rng.choice(words, 12))
    yield files.Piece(text, '', files.bytes_digest(text.encode()), 0, len(text))
parts.pieces = pieces
job.n_parts = 1
list(itertools.islice(pieces(job, 0), 4000))  # what Python keeps
near_duplicates.signatures([['a'] * 20] * 20_000, recipe.near)
before = begin()
judge.judge(job, 0)
mark.mark(job, 0)
removed = sum(reason != '' for _, reason in tokenizer.labelled_pieces(job, 0))
assert removed == (n // 2 - 1 if kind == 'equal' else 0), removed
print(memory('VmHWM') - before)
"""


def printed(tmp_path, script, kind, n):
  """The kilobytes that a script prints, by which its largest memory grew while it did the work."""
  done = subprocess.run([sys.executable, '-c', script, json.dumps(sys.path), tmp_path / f'{kind}{n}', kind,
                         str(n)], capture_output=True, text=True, check=False)
  assert not done.returncode, done.stderr
  return int(done.stdout or 0)


linux = pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='needs the counters of Linux')


@pytest.mark.ci
@linux
@pytest.mark.parametrize('kind', slow_except(['different', 'exact', 'near'], 'near'))
def test_the_memory_of_a_range_does_not_grow_with_the_corpus_or_the_copies_of_a_text(tmp_path, kind):
  for n in (4, 16, 64):
    printed(tmp_path, KEYS, kind, n)
  found = [printed(tmp_path, RANGE, kind, n) for n in (4, 16, 64)]
  print(found, 'kB')
  assert max(found) < 6 << 10, found


@pytest.mark.ci
@linux
@pytest.mark.parametrize('kind', slow_except(['different', 'equal'], 'different'))
def test_the_memory_of_a_part_does_not_grow_with_its_documents(tmp_path, kind):
  """What a source that cannot be divided needs; documents beyond the first segments need 21 bytes each."""
  small, middle, large = (printed(tmp_path, PART, kind, n) for n in (3000, 9000, 27_000))
  print(small, middle, large, 'kB')
  assert large - small < 8 << 10, (small, middle, large)
