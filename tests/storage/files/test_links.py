"""A folder that a stranger made: nothing is written through its links, and no name in it leads out of it."""

import ast
import json
import os

import pytest
from conftest import ROOT
from corpus_files import random_documents, write_corpus, write_manifest

from gptjax.command import figures
from gptjax.config import resolve
from gptjax.data.corpus import reader
from gptjax.data.tokenizers import loading, tokenizer_files, training
from gptjax.errors import InputError
from gptjax.pretrained.run_weights import save_corpus_tokenizer
from gptjax.storage import manifest, owner_record, ownership
from gptjax.storage.files import atomic, paths

SECRET = 'of another'


@pytest.fixture
def victim(tmp_path):
  """A file outside of the folder, which holds SECRET before and after the test."""
  path = tmp_path / 'victim'
  path.write_text(SECRET)
  yield path
  assert path.read_text() == SECRET


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'folder').mkdir()
  return tmp_path / 'folder'


@pytest.mark.parametrize('linked', [False, True])
def test_no_file_takes_the_place_of_a_device_or_a_pipe(folder, linked):
  os.mkfifo(folder / 'pipe')
  (folder / 'link').symlink_to('pipe')
  with pytest.raises(InputError, match='is a device, a pipe or a socket'):
    atomic.write(folder / ('link' if linked else 'pipe'), 'text')
  assert (folder / 'pipe').is_fifo() and (folder / 'link').is_symlink() and len(list(folder.iterdir())) == 2


@pytest.mark.parametrize('name', ['config.json', 'config.json.new'])
def test_a_file_replaces_a_link_and_leaves_alone_where_it_leads(folder, victim, name):
  (folder / name).symlink_to(victim)
  atomic.write(folder / 'config.json', 'new')
  assert (folder / 'config.json').read_text() == 'new' and not (folder / 'config.json').is_symlink()
  assert len(list(folder.iterdir())) == 1 + (name != 'config.json')


def test_a_file_that_fails_leaves_nothing_and_names_itself(folder):
  with pytest.raises(KeyError), atomic.replacing(folder / 'file') as file:
    file.write(b'half')
    raise KeyError
  with pytest.raises(OSError) as error:
    atomic.write(folder / 'absent' / 'file', '')
  assert not list(folder.iterdir()) and error.value.filename == str(folder / 'absent' / 'file')


def test_the_umask_decides_who_may_read_a_file(folder):
  before = os.umask(0o027)
  try:
    atomic.write(folder / 'file', '')
  finally:
    os.umask(before)
  assert (folder / 'file').stat().st_mode & 0o777 == 0o640


def test_an_owner_removes_what_a_kill_left_of_files_to_be(folder, victim):
  left = [atomic.new_name(folder / 'config.json'), atomic.new_name(folder / 'tokenizer'),
          atomic.new_name(folder / 'x')]
  left[0].write_text('half')
  left[1].mkdir()
  (left[1] / 'vocab.bpe').symlink_to(victim)
  left[2].symlink_to(victim.parent)
  kept = [folder / name for name in ('notes.new', 'a.12345678.new2', '.abcdef01.new')]
  for path in kept:
    path.touch()
  with ownership.own_folder(folder):
    assert not any(map(os.path.lexists, left)) and all(path.exists() for path in kept)


@pytest.mark.parametrize('exists', [True, False])
def test_a_lock_is_not_taken_through_a_link(folder, victim, exists):
  (folder / owner_record.FILE).symlink_to(victim if exists else victim.parent / 'other')
  match = r'owner\.json is a symbolic link.*remove it'
  with pytest.raises(InputError, match=match), ownership.own_folder(folder):
    pass
  assert not (victim.parent / 'other').exists()


def test_whether_a_folder_can_be_written_is_not_tried_through_a_link(folder, victim):
  (folder / f'.probe-{os.getpid()}').symlink_to(victim.parent / 'other')
  resolve.make_workdir(folder)
  assert not (victim.parent / 'other').exists()


def test_a_figure_replaces_a_link(folder, victim):
  (folder / 'curves.png').symlink_to(victim)
  made, _ = figures.figure(1, 1, (1, 1))
  figures.save(made, folder / 'curves.png')
  assert (folder / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_of_a_tokenizer_its_files_are_kept_and_nothing_beside_them(folder, victim):
  made, workdir = folder / 'corpus' / 'tokenizer', folder / 'run'
  workdir.mkdir()
  training.train('bpe', 260, ['the cat sat on the mat'], progress=False).save(made)
  (made / 'everything').symlink_to('/')
  (made / 'secret').symlink_to(victim)
  (made / 'payload').write_text('x')
  for name in ('tokenizer.saved', 'tokenizer.new'):  # as older versions called what was to be it
    (workdir / name).symlink_to(victim.parent)
  save_corpus_tokenizer(made, workdir)
  assert {path.name for path in (workdir / 'tokenizer').iterdir()} == {'encoder.json', 'vocab.bpe'}
  assert {path.name for path in victim.parent.iterdir()} == {'victim', 'folder'}
  assert loading.load(str(workdir / 'tokenizer')).digest == loading.load(str(made)).digest


def test_a_tokenizer_is_saved_over_links(folder, victim):
  (folder / 'vocab.bpe').symlink_to(victim)
  tokenizer_files.save_files(folder, {'vocab.bpe': b'x'})
  assert (folder / 'vocab.bpe').read_bytes() == b'x'


OUTSIDE = ['/etc/passwd', '../victim', 'a/../../victim', '..', '', '.', '\0', 7, None, ['x'], {}]


@pytest.mark.parametrize('name', OUTSIDE)
def test_a_name_that_leads_out_is_refused(folder, name):
  with pytest.raises(InputError, match=r'not in that folder|no plain name'):
    paths.below(folder, name)
  assert manifest.find_fault(folder, {'files': {str(name): [0, '']}})


@pytest.mark.parametrize('name', ['train-00000.bin', 'state/d/a..b', '..x'])
def test_a_name_inside_is_taken(folder, name):
  assert paths.below(folder, name) == folder / name


@pytest.mark.parametrize('verify', [True, False])
@pytest.mark.parametrize('which', ['shards', 'index'])
@pytest.mark.parametrize('name', ['{}/outside.bin', '../outside.bin'])
def test_a_corpus_with_a_shard_elsewhere_is_refused(tmp_path, folder, verify, which, name):
  made = write_corpus(folder, random_documents(0, 20))
  facts = json.loads((folder / 'manifest.json').read_text())
  entry = facts['splits']['train']
  entry = entry['shards'][0] if which == 'shards' else entry['index']
  (folder / entry['file']).rename(tmp_path / 'outside.bin')
  entry['file'] = name.format(tmp_path)
  write_manifest(folder, facts)
  with pytest.raises(InputError, match=r'not in that folder|no plain name'):
    reader.open_corpus(made, 'train', verify=verify)


def test_a_link_out_of_a_corpus_is_read_only_if_its_content_is_compared(tmp_path, folder):
  made = write_corpus(folder, random_documents(0, 20))
  for name in ('train-00000.bin', 'train-documents.bin'):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
  reader.open_corpus(made, 'train', verify=True)
  with pytest.raises(InputError, match='is a link to a file outside the corpus'):
    reader.open_corpus(made, 'train', verify=False)
  (tmp_path / 'link').symlink_to(folder)  # the folder itself may be one
  for name in ('train-00000.bin', 'train-documents.bin'):
    (folder / name).unlink()
    (tmp_path / name).rename(folder / name)
  reader.open_corpus(str(tmp_path / 'link'), 'train', verify=False)


def test_a_checkpoint_names_files_of_its_own(tmp_path, folder, victim):
  found = [victim.stat().st_size, manifest._hash(victim)]
  for name in ('../victim', str(victim)):
    assert 'not the name of a file in the checkpoint' in manifest.find_fault(folder, {'files': {name: found}})


def writes(source):
  """[(line, call)] of calls that may write to a file through a link."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.Call):
      continue
    called, words = ast.unparse(node.func), {word.arg for word in node.keywords}
    mode = next((word.value for word in node.keywords if word.arg == 'mode'), None) or (
      node.args[1] if called == 'open' and len(node.args) > 1 else None)
    if called == 'open' and mode is not None and 'opener' not in words and (
        ast.unparse(node.args[0]) != 'descriptor'):  # of os.open, with O_NOFOLLOW
      if not isinstance(mode, ast.Constant) or set('wax+') & set(mode.value):
        found.append((node.lineno, ast.unparse(node)))
    elif called.endswith(('.write_text', '.write_bytes', '.tofile', '.copytree', '.copyfile', '.copy2')) or (
        called in ('np.save', 'np.savez', 'shutil.copy', 'shutil.move')):
      found.append((node.lineno, ast.unparse(node)))
  return found


MAY = {'streams.py'}  # /dev/null
FILES = sorted(path for path in (ROOT / 'gptjax').rglob('*.py')
               if 'benchmark' not in path.parts and path.name not in MAY)


def test_everything_is_written_so():
  assert not [(path.name, call) for path in FILES for call in writes(path.read_text())]


@pytest.mark.parametrize('source', ['open(p, "w")', 'open(p, mode)', 'open(p, mode="ab")', 'p.write_text("")',
                                    'open(p, "r+b")', 'shutil.copytree(a, b)', 'np.save(p, x)'])
def test_the_test_sees_what_it_is_for(source):
  assert writes(source) and not writes('open(p)\nopen(p, "rb")\nopen(p, "wb", opener=atomic.no_follow)')
