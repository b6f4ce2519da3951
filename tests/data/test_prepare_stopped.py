"""A corpus is what its sources say, byte for byte, however often its making was killed."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from prepared import contents, make_texts, run, write_jsonl

from gptjax.data import blocks, shards
from gptjax.data import command as command_module
from gptjax.data import prepare as prepare_module

KILLED = """
import sys, time
from gptjax.data import blocks, prepare, shards
if __name__ == '__main__':
  blocks.BLOCK_CHARACTERS = 3000
  save = shards.save_state
  def slow_save(folder, state):  # So that there is something to interrupt.
    time.sleep(float(sys.argv[5]))
    save(folder, state)
  shards.save_state = slow_save
  prepare.prepare([sys.argv[1]], 'train-bpe:300', sys.argv[2], validation_fraction=0.1,
                  clean=sys.argv[3], workers=int(sys.argv[4]), tfds_dir='', on_error='skip',
                  clean_without=('short', 'repetition', 'menu') if sys.argv[3] else (),
                  shard_tokens=3000, commit_seconds=0, progress=False)
"""


@pytest.mark.parametrize('clean', ['', 'webtext'])
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(tmp_path, clean):
  lines = [json.dumps({'text': text}) for text in make_texts(600, longest=80) * 2]
  for i in range(40, 1200, 97):
    lines[i] = lines[i][:-9]  # A broken line, to be listed once.
  path = tmp_path / 'a.jsonl'
  path.write_text('\n'.join(lines))
  script = tmp_path / 'script.py'
  script.write_text(KILLED)
  def start(out, n, pause):
    return subprocess.Popen(
      [sys.executable, str(script), f'jsonl:{path}', str(out), clean, str(n), str(pause)],
      env={**os.environ, 'PYTHONPATH': os.getcwd()})
  began = time.monotonic()
  assert start(tmp_path / 'whole', 1, 0).wait() == 0
  seconds, rng, stages = time.monotonic() - began, random.Random(), set()
  state = lambda: (tmp_path / 'killed').exists() and json.dumps(shards.load_state(tmp_path / 'killed'))
  for i in range(5):
    process, before = start(tmp_path / 'killed', rng.choice([1, 1, 2]), 0.02), state()
    while i % 2 and state() == before and process.poll() is None:  # every other time it gets on a little
      time.sleep(0.001)
    time.sleep(seconds * rng.random() / (4 if i % 2 else 1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    stages.add(state())
  assert start(tmp_path / 'killed', 2, 0).wait() == 0
  assert len(stages - {False, 'null'}) >= 2, stages
  whole = contents(tmp_path / 'whole')
  assert whole == contents(tmp_path / 'killed')
  assert whole['skipped.txt'].count(b'not JSON') == 12
  manifest = json.loads(whole['manifest.json'])
  assert manifest['skipped']['not JSON'] == 12
  assert not clean or manifest['skipped']['webtext exact_duplicate'] > 500


def test_stopped_after_every_commit_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
  """At each commit in turn: what was written after it is lost or half there."""
  monkeypatch.setattr(blocks, 'BLOCK_CHARACTERS', 2000)
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(40))
  run(source, tmp_path / 'whole', shard_tokens=700, commit_seconds=0)
  expected, save, rounds = contents(tmp_path / 'whole'), shards.save_state, 0

  class Killed(Exception):
    pass

  def dying(folder, state):
    if count[0] == 0:
      raise Killed
    count[0] -= 1
    save(folder, state)

  monkeypatch.setattr(shards, 'save_state', dying)
  while rounds < 200:
    count, rounds = [2], rounds + 1
    try:
      run(source, tmp_path / 'killed', shard_tokens=700, commit_seconds=0)
      break
    except Killed:
      for path in (tmp_path / 'killed').glob('*.part'):
        with open(path, 'ab') as file:
          file.write(b'half a token of rubbish')
  assert rounds > 5
  assert contents(tmp_path / 'killed') == expected


def test_a_full_disk_is_said_in_one_line_and_gone_on_from(tmp_path, monkeypatch, capsys):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(400))
  monkeypatch.setattr(blocks, 'BLOCK_CHARACTERS', 20_000)
  flags = [f'--source={source}', '--tokenizer=train-bpe:300', '--shard_tokens=9000']
  prepare_module.main([*flags, f'--out={tmp_path}/whole'])
  write, left = shards.Appended.write, [30]
  def full(self, data):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(self, data)
  monkeypatch.setattr(shards.Appended, 'write', full)
  monkeypatch.setattr(sys, 'argv', ['prepare', *flags, f'--out={tmp_path}/full'])
  with pytest.raises(SystemExit) as ended:
    command_module.run(prepare_module.main, 'prepare')
  said = capsys.readouterr().err.splitlines()[-1]
  assert ended.value.code == 2 and said.startswith('prepare: no space left') and left[0] < 0
  monkeypatch.setattr(shards.Appended, 'write', write)
  prepare_module.main([*flags, f'--out={tmp_path}/full'])
  assert contents(tmp_path / 'full') == contents(tmp_path / 'whole')
