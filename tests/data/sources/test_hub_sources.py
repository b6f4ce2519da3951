"""Sources on the Hugging Face Hub, from a local server: files are those of one commit, which is recorded."""

import io

import hub_server
import huggingface_hub
import pyarrow
import pytest
from huggingface_hub import constants
from pyarrow import ipc, parquet
from source_files import TEXTS, compress, jsonl, read, texts

from gptjax.data.prepare import prepare
from gptjax.data.sources import documents, hub_revisions
from gptjax.errors import InputError

REPO, NEWER = 'datasets/owner/name', 'c' * 40
PINNED = f'hf://{REPO}@{hub_server.COMMIT}'


def table(new=parquet.ParquetWriter):
  content, columns = io.BytesIO(), pyarrow.table({'text': TEXTS, 'url': ['http://a.example/'] * 3})
  with new(content, columns.schema) as writer:
    writer.write_table(columns)
  return content.getvalue()


FILES = {'README.md': b'# Name', 'data/a.jsonl.zst': compress(jsonl(), '.zst'), 'data/b.jsonl': jsonl('body'),
         'data/c.parquet': table(), 'saved/data-00000-of-00001.arrow': table(ipc.new_stream),
         'saved/state.json': b'{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}',
         'big.txt': b'one two ' * 1_000_000}


@pytest.fixture
def hub(monkeypatch):
  """A server with one data set."""
  with hub_server.serving() as served:
    served.add(REPO, FILES, names=('main', 'v1'))
    monkeypatch.setattr(constants, 'ENDPOINT', served.endpoint)
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
                        served.endpoint + '/{repo_id}/resolve/{revision}/{filename}')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    huggingface_hub.HfFileSystem.clear_instance_cache()
    hub_revisions.forget()
    yield served
  huggingface_hub.HfFileSystem.clear_instance_cache()
  hub_revisions.forget()


@pytest.mark.parametrize('source, path', [
  ('jsonl:{}/data/a.jsonl.zst', 'data/a.jsonl.zst'), ('jsonl:{}/**/a.jsonl.*:text', 'data/a.jsonl.zst'),
  ('jsonl:{}/data/b.jsonl:body', 'data/b.jsonl'), ('parquet:{}/data/*.parquet', 'data/c.parquet'),
  ('arrow:{}/saved', 'saved/data-00000-of-00001.arrow'),
  ('arrow:{}/saved:text', 'saved/data-00000-of-00001.arrow')])
@pytest.mark.parametrize('revision', ['', '@main', '@v1', f'@{hub_server.COMMIT}'])
def test_units_and_records_have_the_commit(hub, source, path, revision):
  given = source.format(f'hf://{REPO}{revision}')
  units = documents.units([given], '')
  assert [unit.path for unit in units] == [f'{PINNED}/{path}'] and units[0].size == len(FILES[path])
  assert texts(read(given)) == TEXTS
  assert documents.recorded_sources([given], units) == [source.format(PINNED)]
  hub.asked.clear()
  recorded = [source.format(PINNED)]
  assert documents.recorded_sources(recorded, units) == recorded and not hub.asked


def test_a_branch_that_moves_does_not_move_what_is_read(hub):
  given = f'jsonl:hf://{REPO}/data/*.jsonl:text'
  hub.add(REPO, {'data/a.jsonl': jsonl()})
  units = documents.units([given], '')
  recorded = documents.recorded_sources([given], units)
  hub.add(REPO, {'data/a.jsonl': b'{"text": "new"}', 'data/b.jsonl': b'{"text": "newer"}'}, NEWER)
  assert [piece.text for unit in units for piece in documents.pieces(unit, '', '')] == TEXTS
  assert documents.recorded_sources([given], units) == recorded
  assert texts(read(recorded[0])) == TEXTS and documents.units(recorded, '') == units
  huggingface_hub.HfFileSystem.clear_instance_cache()
  assert texts(read(given)) == ['new', 'newer']


def test_a_corpus_records_the_commit_and_is_never_of_two(hub, tmp_path):
  given = f'jsonl:hf://{REPO}/data/*.jsonl:text'
  hub.add(REPO, {'data/a.jsonl': jsonl()})
  run = lambda source: prepare(
    [source], 'train-bpe:260', str(tmp_path / 'out'), clean='', validation_fraction=0, workers=1, tfds_dir='',
    on_error='stop', progress=False)
  manifest = run(given)
  assert manifest['sources'] == [f'jsonl:{PINNED}/data/*.jsonl:text']
  assert run(given) == run(manifest['sources'][0]) == manifest
  hub.add(REPO, {'data/a.jsonl': b'{"text": "new"}'}, NEWER)
  with pytest.raises(InputError, match=r'holds a corpus, complete or partial, with another sources') as error:
    run(given)
  assert '\n' not in str(error.value)
  assert run(manifest['sources'][0]) == manifest


def test_a_large_file_is_read_in_parts(hub):
  piece, *more = read(f'text:hf://{REPO}/big.txt')
  assert not piece.problem and piece.length == len(FILES['big.txt']) == sum(
    len(one.text) for one in [piece, *more])


@pytest.mark.parametrize('name, says', [
  ('datasets/owner/none/a.txt', 'cannot be read: '), (f'{REPO}@v9/big.txt', 'cannot be read: '),
  ('datasets/meta/closed/a.txt', 'cannot be read: '), (f'{REPO}/none/*.txt', 'no file has this name'),
  (f'{REPO}/none.txt', 'no file has this name'), (f'{REPO}/data', 'no file has this name')])
def test_what_cannot_be_had_is_one_line(hub, name, says):
  hub.gated.add('datasets/meta/closed')
  with pytest.raises(InputError, match=says) as error:
    documents.units([f'text:hf://{name}'], '')
  assert '\n' not in str(error.value)


def test_without_a_network_one_line_says_so(hub, monkeypatch):
  monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
  with pytest.raises(InputError, match=r'hf://.*/big\.txt cannot be read: ') as error:
    documents.units([f'text:hf://{REPO}/big.txt'], '')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('url', [
  f'{PINNED}/a.txt', PINNED, 'hf://buckets/owner/name/a.txt', 'gs://b/a.txt', '/a@main/b', 'train[:10%]', ''])
def test_what_has_no_revision_is_left_as_it_is(url):
  assert hub_revisions.pinned(url) == url
