"""The file of samples: a kill at any change of it loses no more than the batch that was not written."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

from gptjax.evaluate.samples import store
from gptjax.storage.files import records

KILLED = '''
import hashlib, sys
from pathlib import Path
import numpy as np
import killing
from gptjax.evaluate.samples import continuations, store
folder = Path(sys.argv[1])
path = store.path_of(folder, 'best-of')
def generate(model, tokenizer, weights, batch, seed):  # text that depends on nothing but the sample
  return [store.Sample(one.id, weights, one.group, 'title', one.prompt.text, f'{one.id} is the text', '', 1,
                       2, 3, 'length', one.number + 1, 1.0, 40, seed, -1.5)._asdict() for one in batch]
continuations._generate = generate
def make(workers):
  prompt = continuations.Prompt('title', 'the prompt', np.arange(3), '', 3)
  for weights in ('old', 'new'):
    decoding = continuations.Decoding(5, 1.0, 40)
    continuations.write(path, None, None, weights, [prompt], [decoding], 0, 2)
def state():
  return [len(store.read(path, log=lambda line: None).samples)]
def made():
  found = store.read(path)
  return [sorted(one.weights for one in found.samples), [one.number for one in found.samples],
          [one.text for one in found.samples]]
if __name__ == '__main__':
  killing.everywhere(make, folder, state, made, [])
'''


@pytest.mark.ci
def test_a_command_killed_at_any_change_of_its_file_ends_with_the_same_samples(tmp_path):
  (tmp_path / 'script.py').write_text(KILLED)
  done = subprocess.run(
    [sys.executable, tmp_path / 'script.py', tmp_path / 'made'], capture_output=True, text=True, timeout=280,
    env={**ENVIRONMENT, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])})
  assert not done.returncode, done.stderr
  _, *stages = lives = list(map(json.loads, done.stdout.splitlines()))
  assert {state for _, (state,), _ in stages} >= {0, 2, 5}, 'killed before, within and after'
  for n, _, found in lives:
    assert found == lives[0][2] and found[:2] == [['new'] * 5, [1, 2, 3, 4, 5]], n


@pytest.mark.parametrize('damage', [
  lambda line: line[:-20], lambda line: line.replace('text', 'test'), lambda line: '{}\n',
  lambda line: '\0\n',
  lambda line: json.dumps(records.add_checksum({**json.loads(line), 'tokens': 'x'})) + '\n',
  lambda line: json.dumps(records.add_checksum({**json.loads(line), 'more': 1})) + '\n'])
def test_damaged_lines_are_reported_and_omitted(tmp_path, damage):
  path, said = tmp_path / 'samples.jsonl', []
  sample = lambda i: store.Sample(str(i), 'w', 'g', '', '', 'text', '', 1, 1, 1, 'end', i, 1.0, 4, 0, -1)
  with store.appending(path, []) as append:
    append({'weights': 'w', 'ids': ['0', '1', '2']})
    for i in range(3):
      append(sample(i)._asdict())
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join([*lines[:2], damage(lines[2]), *lines[3:]]))
  found = store.read(path, said.append)
  assert [one.id for one in found.samples] in (['0', '2'], ['0']) and len(said) == 1 and 'line' in said[0]
