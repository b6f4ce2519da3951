"""Adopted files that move or change: noticed by the same command, and never read unverified elsewhere."""

import json
import os
import shutil

import foreign_files
import numpy as np
import pytest

from gptjax.data import adopt as adopt_command
from gptjax.data import inspect as inspect_command
from gptjax.data.corpus import corpus_manifest, reader
from gptjax.errors import InputError


@pytest.fixture
def files(tmp_path):
  """Adopts files of three documents in tmp_path/f as tmp_path/c; returns a function that does it again."""
  _, spec = foreign_files.tokenizer(tmp_path / 't')
  (tmp_path / 'f').mkdir()
  foreign_files.raw(tmp_path / 'f' / 'train.bin', [1, 2, 269, 3, 269, 4, 269])
  def adopt(source=f'nanogpt:{tmp_path}/f', out=tmp_path / 'c', **options):
    return adopt_command.adopt(source, spec, str(out), progress=False, **options)
  adopt()
  return adopt


def test_a_file_of_the_same_size_that_was_written_again_is_not_taken_for_complete(files, tmp_path):
  path = tmp_path / 'f' / 'train.bin'
  content = path.read_bytes()
  path.write_bytes(content)  # the same
  found = files()
  path.write_bytes(content[::-1])
  with pytest.raises(InputError, match=r'f/train.bin is not the file that was adopted in .*c, its'):
    files()
  (tmp_path / 'c' / 'manifest.json').unlink()
  path.write_bytes(content[2:] + content[:2])
  assert files()['content'] != found['content']


@pytest.mark.parametrize('kind', ['megatron', 'datatrove'])
def test_an_index_of_the_same_size_is_not_taken_for_complete(kind, files, tmp_path):
  if kind == 'megatron':
    write = lambda some: foreign_files.megatron(tmp_path / 'a', some)
  else:
    write = lambda some: foreign_files.datatrove(tmp_path / 'a.ds', some)
  path = tmp_path / {'megatron': 'a.idx', 'datatrove': 'a.ds.index'}[kind]
  adopt = lambda: files(f'{kind}:{tmp_path}/a.{"bin" if kind == "megatron" else "ds"}', tmp_path / 'd')
  write([[1, 2, 269], [3, 269]])
  before = path.stat()
  found = adopt()
  assert adopt() == found
  write([[1, 269], [2, 3, 269]])
  write([[1, 2], [269, 3, 269]])
  assert path.stat().st_size == before.st_size
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  with pytest.raises(InputError, match='holds a corpus whose index_files setting is'):
    adopt()


def test_files_that_have_moved_are_adopted_again_without_other_content(files, tmp_path):
  found = files()
  (tmp_path / 'f').rename(tmp_path / 'g')
  with pytest.raises(InputError, match=r'f/train.bin is missing: if the files have moved, run the'):
    reader.open_corpus(tmp_path / 'c', 'train', verify=False)
  moved = files(f'nanogpt:{tmp_path}/g')
  assert moved['tokens_folder'] == f'{tmp_path}/g' and moved['content'] == found['content']
  assert corpus_manifest.read_manifest(tmp_path / 'c') == moved == files(f'nanogpt:{tmp_path}/g')
  assert reader.open_corpus(tmp_path / 'c', 'train', verify=True).tokens(0, 3).tolist() == [1, 2, 269]
  shutil.copytree(tmp_path / 'g', tmp_path / 'h')
  foreign_files.raw(tmp_path / 'h' / 'train.bin', [1, 2, 269, 4, 269, 3, 269])
  with pytest.raises(InputError, match=r'h/train.bin is not the file that was adopted'):
    files(f'nanogpt:{tmp_path}/h')
  with pytest.raises(InputError, match='whose source setting is another'):  # another kind
    files(f'raw:{tmp_path}/g')


@pytest.mark.parametrize('in_place', [True, False])
def test_the_corpus_may_move(in_place, files, tmp_path):
  out = tmp_path / ('f' if in_place else 'c')
  found = files(out=out)
  out.rename(tmp_path / 'elsewhere')
  opened = reader.open_corpus(tmp_path / 'elsewhere', 'train', verify=False)
  assert opened.tokens(0, 7).tolist() == [1, 2, 269, 3, 269, 4, 269]
  place = tmp_path / ('elsewhere' if in_place else 'f')
  again = files(f'nanogpt:{place}', tmp_path / 'elsewhere')
  assert again['content'] == found['content']


def forged(tmp_path, folder, name, size):
  """A corpus from a stranger that names a file of this machine; its hash is unknown to the stranger."""
  manifest = json.loads((tmp_path / 'c' / 'manifest.json').read_text())
  entry = manifest['splits']['train']
  entry['shards'] = [{'file': name, 'tokens': size // 2, 'sha256': '0' * 64}]
  entry['tokens'], manifest['tokens_folder'] = size // 2, str(folder)
  manifest['digest'] = corpus_manifest.manifest_digest(manifest)
  (tmp_path / 'c' / 'manifest.json').write_text(json.dumps(manifest))


@pytest.mark.parametrize('flags', [['--document=0'], ['--step=0', '--batch_size=1', '--seq_len=3', '--seed=0',
                                                      '--cross_documents=true', '--shift_windows=false']])
def test_a_manifest_cannot_name_any_file_of_this_machine(flags, files, tmp_path, capsys):
  (tmp_path / 'private').mkdir()
  (tmp_path / 'private' / 'diary').write_bytes(np.array([5, 6, 7, 8, 9, 10, 11, 12], '<u2').tobytes())
  inspect_command.main([str(tmp_path / 'c'), *flags])
  assert '269' in capsys.readouterr().out
  forged(tmp_path, tmp_path / 'private', 'diary', 16)
  with pytest.raises(InputError, match='diary is damaged: its SHA-256 is'):
    inspect_command.main([str(tmp_path / 'c'), *flags])
  assert '5 6' not in capsys.readouterr().out
  for folder in ('private', '../private', '~/private'):
    forged(tmp_path, folder, 'diary', 16)
    with pytest.raises(InputError, match='is neither an absolute path nor a URL'):
      reader.open_corpus(tmp_path / 'c', 'train', verify=False)


def test_a_shard_elsewhere_is_verified_once(files, tmp_path, monkeypatch):
  calls = []
  real = reader.local_shards._verify
  monkeypatch.setattr(reader.local_shards, '_verify', lambda *args: calls.append(args) or real(*args))
  monkeypatch.setattr(reader.local_shards, '_verified', set())
  for _ in range(2):
    opened = reader.open_corpus(tmp_path / 'c', 'train', verify=False)
    assert opened.tokens(0, 2).tolist() == opened.tokens(0, 2).tolist() == [1, 2]
  assert len(calls) == 1
  reader.open_corpus(tmp_path / 'c', 'train', verify=True)
  assert len(calls) == 2
