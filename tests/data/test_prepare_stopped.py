"""A corpus is what its sources say, byte for byte, however often its making was killed."""

import collections
import errno
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from prepared import contents, make_texts, run, write_jsonl

from gptjax.command import run as command_module
from gptjax.data import blocks, prepare
from gptjax.data.corpus import shards
from gptjax.storage.files import local

KILLED = """
import hashlib, json, sys
from pathlib import Path
import tiktoken, tokenizers  # once, and not in each of the forks
import killing
from gptjax.data import blocks, prepare
from gptjax.data.corpus import shards
from prepared import contents
blocks.BLOCK_CHARACTERS = 3000
source, folder, clean = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
def work(workers):
  prepare.prepare([source], 'train-bpe:300', str(folder), validation_fraction=0.1, clean=clean,
                  workers=workers, tfds_dir='', on_error='skip', shard_tokens=1000, commit_seconds=0,
                  progress=False, seq_len=4,
                  clean_without=('short', 'repetition', 'menu') if clean else ())
def state():
  if (folder / 'manifest.json').exists():
    return 'complete'
  found = shards.load_state(folder) if folder.exists() else None
  if not found:
    return 'nothing'
  if 'position' in found:
    return f'encoding {found["position"][2]}'
  if 'tail' in found:
    return 'tokenizer'
  judged = found.get('judged')
  return ('judged' if judged['done'] else f'judging {judged["position"][2]}') if judged else 'settings'
def made():
  return {name: hashlib.sha256(content).hexdigest() for name, content in contents(folder).items()}
if __name__ == '__main__':
  killing.everywhere(work, folder, state, made, [0.2, 0.6])
"""


@pytest.mark.parametrize('clean', ['', pytest.param('webtext', marks=pytest.mark.slow)])
def test_killed_at_any_change_of_its_files_it_goes_on_to_the_same_bytes(tmp_path, clean):
  lines = [json.dumps({'text': text}) for text in make_texts(25, longest=80) * 2]
  for i in range(10, 50, 23):
    lines[i] = lines[i][:-9]  # a broken line, to be listed once
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
  (tmp_path / 'script.py').write_text(KILLED)
  done = subprocess.run(
    [sys.executable, tmp_path / 'script.py', f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'made', clean],
    check=True, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])})
  _, *stages = lives = list(map(json.loads, done.stdout.splitlines()))
  for n, _, found in lives:
    assert found == lives[0][2], n
  seen = collections.Counter(state.split()[0] for state in {state for _, state, _ in stages})
  commits = {'judging': 3, 'judged': 1, 'encoding': 2} if clean else {'encoding': 3}
  assert seen == {'nothing': 1, 'settings': 1, 'tokenizer': 1, **commits, 'complete': 1}, seen
  made = contents(tmp_path / 'made')
  assert 'train-00001.bin' in made
  assert made['skipped.txt'].count(b'not JSON') == 2
  manifest = json.loads(made['manifest.json'])
  assert manifest['skipped']['not JSON'] == 2
  assert not clean or manifest['skipped']['webtext exact_duplicate'] > 20


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
  prepare.main([*flags, f'--out={tmp_path}/whole'])
  write, left = local.AppendOnlyFile.write, [30]
  def full(self, data):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write(self, data)
  monkeypatch.setattr(local.AppendOnlyFile, 'write', full)
  monkeypatch.setattr(sys, 'argv', ['prepare', *flags, f'--out={tmp_path}/full'])
  with pytest.raises(SystemExit) as ended:
    command_module.run(prepare.main, 'prepare')
  said = capsys.readouterr().err.splitlines()[-1]
  assert ended.value.code == 2 and said.startswith('prepare: no space left') and left[0] < 0
  monkeypatch.setattr(local.AppendOnlyFile, 'write', write)
  prepare.main([*flags, f'--out={tmp_path}/full'])
  assert contents(tmp_path / 'full') == contents(tmp_path / 'whole')
