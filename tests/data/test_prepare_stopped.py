"""A corpus is what its sources say, byte for byte, however often its making was killed."""

import collections
import errno
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from prepared import contents, make_texts, write_jsonl

from gptjax.command import run as command_module
from gptjax.data import prepare
from gptjax.data.stages import parts
from gptjax.storage.files import atomic

KILLED = """
import hashlib, json, sys
from pathlib import Path
import tiktoken, tokenizers  # once, and not in each of the forks
import killing
from gptjax.data import prepare
from gptjax.data.stages import parts
from prepared import contents
parts.MIN_BYTES = 5000
source, folder, clean, exclude = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
def work(workers):
  prepare.prepare([source], 'train-bpe:300', str(folder), validation_fraction=0.1, clean=clean,
                  workers=workers, tfds_dir='', on_error='skip', shard_tokens=1000, progress=False, seq_len=4,
                  clean_without=('short', 'repetition', 'menu') if clean else (), exclude=exclude)
def state():
  if (folder / 'manifest.json').exists():
    return 'complete'
  for stage in ('join', 'encode'):
    if n := len(list(folder.glob(f'work/*/{stage}/*.json'))):
      return f'{stage} {n}'
  if list(folder.glob('work/*/tokenizer.json')):
    return 'tokenizer'
  for stage in ('mark', 'judge'):
    if n := len(list(folder.glob(f'work/*/{stage}/*.json'))):
      return f'{stage} {n}'
  return 'settings' if (folder / 'progress.json').exists() else 'nothing'
def made():
  return {name: hashlib.sha256(content).hexdigest() for name, content in contents(folder).items()}
if __name__ == '__main__':
  killing.everywhere(work, folder, state, made, [0.2, 0.6])
"""


@pytest.mark.ci
@pytest.mark.parametrize('clean, exclude', [
  ('', False), *(pytest.param(*case, marks=pytest.mark.slow) for case in (('', True), ('webtext', False)))])
def test_killed_at_any_change_of_its_files_it_goes_on_to_the_same_bytes(tmp_path, clean, exclude):
  lines = [json.dumps({'text': text}) for text in make_texts(25, longest=80) * 2]
  for i in range(10, 50, 23):
    lines[i] = lines[i][:-9]  # a broken line, to be listed once
  (tmp_path / 'a.jsonl').write_text('\n'.join(lines))
  test_set = [write_jsonl(tmp_path / 'test.jsonl', make_texts(25, longest=80)[:9])] if exclude else []
  (tmp_path / 'script.py').write_text(KILLED)
  done = subprocess.run(
    [sys.executable, tmp_path / 'script.py', f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'made', clean,
     *test_set],
    check=True, capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])})
  _, *stages = lives = list(map(json.loads, done.stdout.splitlines()))
  for n, _, found in lives:
    assert found == lives[0][2], n
  seen = collections.Counter(state.split()[0] for state in {state for _, state, _ in stages})
  several = {'encode', 'join', *(['judge'] if clean or exclude else [])}
  once = {'nothing', 'settings', 'tokenizer', 'complete', *(['mark'] if clean else [])}
  assert seen.keys() == {*once, *several}
  assert all((n > 1) == (state in several) for state, n in seen.items()), seen
  made = contents(tmp_path / 'made')
  assert 'train-00001.bin' in made
  assert made['skipped.txt'].count(b'not JSON') == 2
  manifest = json.loads(made['manifest.json'])
  assert manifest['skipped']['not JSON'] == 2
  assert not exclude or manifest['skipped']['shares words with a test set'] > 9
  assert not clean or manifest['skipped']['webtext exact_duplicate'] > 20


def test_a_full_disk_is_said_in_one_line_and_gone_on_from(tmp_path, monkeypatch, capsys):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(400))
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  flags = [f'--source={source}', '--tokenizer=train-bpe:300', '--shard_tokens=9000']
  prepare.main([*flags, f'--out={tmp_path}/whole'])
  replacing, left = atomic.replacing, [30]
  def full(path, *arguments, **options):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return replacing(path, *arguments, **options)
  monkeypatch.setattr(atomic, 'replacing', full)
  monkeypatch.setattr(sys, 'argv', ['prepare', *flags, f'--out={tmp_path}/full'])
  with pytest.raises(SystemExit) as ended:
    command_module.run(prepare.main, 'prepare')
  said = capsys.readouterr().err.splitlines()[-1]
  assert ended.value.code == 2 and said.startswith('prepare: no space left') and left[0] < 0
  monkeypatch.setattr(atomic, 'replacing', replacing)
  prepare.main([*flags, f'--out={tmp_path}/full'])
  assert contents(tmp_path / 'full') == contents(tmp_path / 'whole')
