"""What gives access stays out of every file and message: URLs lose user information and signatures."""

import io
import json
import shutil

import fsspec
import pytest
from conftest import train

from gptjax.data.prepare import prepare
from gptjax.data.sources import documents
from gptjax.errors import InputError
from gptjax.report import page
from gptjax.storage.files import records
from gptjax.text.redacted import redacted, redacted_values, without_secrets

SECRETS = 'hunter2pass', 'wJalrXUtnFEMI/K7MDENG', '0a1b2c3d4e5f', 'AKIAEXAMPLE'


@pytest.mark.parametrize('text, shown', [
  ('https://user:pw@host/a', 'https://host/a'), ('https://user@host/a', 'https://host/a'),
  ('https://u:p@ss@host/a/@b', 'https://host/a/@b'), ('s3://AKIA:wJal/K7M+D@bucket/x', 's3://bucket/x'),
  ('http://host:8080/a@b', 'http://host:8080/a@b'), ('http://[::1]:80/a@b', 'http://[::1]:80/a@b'),
  ('https://h/x?a=1&X-Amz-Signature=ff&X-Amz-Date=3&b=2', 'https://h/x?a=1&b=2'),
  ('https://h/x?X-Goog-Credential=c&generation=7', 'https://h/x?generation=7'),
  ('https://h/x?AWSAccessKeyId=a&Signature=b%3D&Expires=1', 'https://h/x'),
  ('https://h/x?sv=1&se=2024-01-01T00:00:00Z&sig=a%2B&q=1', 'https://h/x?q=1'),
  ('https://h/?se=1', 'https://h/?se=1'), ('https://h/x#access_token=a', 'https://h/x'),
  ('https://h/x?token=a&key=b&api_key=c&password=d', 'https://h/x'),
  ('https://h/x?author=a&tokenizer=b', 'https://h/x?author=a&tokenizer=b'),
  ('https://h/x?sig=a:12: not JSON', 'https://h/x:12: not JSON'),
  ('see "https://u:p@h/x?sig=a": 403', 'see "https://h/x": 403'), ('a?token=1', 'a?token=1'),
  ('zip://*.csv::https://u:p@h/a.zip', 'zip://*.csv::https://h/a.zip')])
def test_what_gives_access_is_removed(text, shown):
  assert redacted(text) == shown and redacted(shown) == shown
  assert redacted_values({'a': [text, 1], 'b': (text,)}) == {'a': [shown, 1], 'b': [shown]}


def test_an_error_about_a_url_may_quote_a_part_of_it():
  url = 'https://user:p%40ssword@host/a?X-Amz-Signature=0a1b2c3d'
  for quoted in ('a?X-Amz-Signature=0a1b2c3d', 'p%40ssword is wrong', 'p@ssword', url):
    assert not any(word in without_secrets(quoted, url) for word in ('ssword', '0a1b2c3d'))


LINES = [*(json.dumps({'content': f'the blue stone {i} never sings of rain'}) for i in range(200)),
         '{"content": 1}']


class Server(fsspec.AbstractFileSystem):
  """Names its files by whole URLs, as fsspec's file system of https does; all links lead to one file."""

  protocol, content = 'server', '\n'.join(LINES).encode()

  @classmethod
  def _strip_protocol(cls, path):
    return path

  def unstrip_protocol(self, name):
    return name

  def info(self, path, **options):
    return {'name': path, 'size': len(self.content), 'type': 'file'}

  def glob(self, path, **options):
    return {path: self.info(path)} if self.exists(path) else {}

  def exists(self, path, **options):
    return path.endswith(('0a1b2c3d4e5f', 'ffffffffffff'))

  def _open(self, path, mode='rb', **options):
    return io.BytesIO(self.content)


fsspec.register_implementation('server', Server, clobber=True)


def link(signature, version=7):
  """A presigned link to posts, of which one is damaged."""
  return f'server://AKIAEXAMPLE:{SECRETS[1]}@bucket/posts.jsonl?v={version}&X-Amz-Signature={signature}'


def prepared(out, source):
  return prepare([source], 'train-bpe:290', str(out), validation_fraction=0.1, clean='', workers=1,
                 tfds_dir='', on_error='skip', seq_len=24, progress=False)


def leaks(*folders):
  """[file that holds a secret] below the folders."""
  files = [path for folder in folders for path in folder.rglob('*') if path.is_file()]
  assert files
  return [path for path in files if any(secret.encode() in path.read_bytes() for secret in SECRETS)]


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  folder = tmp_path_factory.mktemp('secret') / 'corpus'
  prepared(folder, f'jsonl:{link("0a1b2c3d4e5f")}:content')
  return folder


def test_a_new_link_to_the_same_file_continues(corpus):
  manifest = json.loads((corpus / 'manifest.json').read_text())
  assert manifest['sources'] == ['jsonl:server://bucket/posts.jsonl?v=7:content']
  assert 'server://bucket/posts.jsonl?v=7:201: ' in (corpus / 'skipped.txt').read_text()
  assert not leaks(corpus)
  assert prepared(corpus, f'jsonl:{link("ffffffffffff")}:content') == manifest
  with pytest.raises(InputError, match='another sources') as error:
    prepared(corpus, f'jsonl:{link(SECRETS[2], 8)}:content')
  assert not any(secret in str(error.value) for secret in SECRETS)


def test_a_corpus_whose_manifest_holds_the_link_itself_is_still_found(corpus, tmp_path):
  """As versions up to 0.1.0 wrote it."""
  from corpus_files import write_manifest
  source = f'jsonl:{link("0a1b2c3d4e5f")}:content'
  shutil.copytree(corpus, tmp_path / 'old')
  manifest = json.loads((corpus / 'manifest.json').read_text())
  manifest['settings'] |= {'sources': [source],
                           'inputs': documents.legacy_units_digest(documents.units([source], ''))}
  write_manifest(tmp_path / 'old', manifest)
  assert prepared(tmp_path / 'old', source)['content'] == manifest['content']


@pytest.mark.ci
def test_a_run_records_no_secret(corpus, tmp_path):
  source = f'jsonl:https://AKIAEXAMPLE:{SECRETS[1]}@host/x?X-Amz-Signature=0a1b2c3d4e5f'
  flags = (f'--config.data.source={source}', '--config.train.steps=2', '--config.eval.every_steps=2',
           '--config.log.sample_tokens=4', f'--config.data.recipe=--source={source}')
  done = train(corpus, tmp_path / 'run', *flags)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'run' / 'report.html').exists() and not leaks(tmp_path / 'run')
  stored = records.read(tmp_path / 'run' / 'config.json')
  assert stored['config']['data']['source'] == 'jsonl:https://host/x'
  assert not any(secret in done.stdout + done.stderr for secret in SECRETS)

  stored['config']['data']['source'] = source  # of an older version
  (tmp_path / 'run' / 'config.json').write_text(records.text(stored))
  page.write([tmp_path / 'run'], tmp_path / 'page')
  assert not leaks(tmp_path / 'page')


def test_errors_of_file_systems_show_no_secret(monkeypatch):
  url = link('0a1b2c3d4e5f')
  def fails(self, path, **options):
    raise OSError(f'403 Forbidden: {url!r}, AKIAEXAMPLE:wJalrXUtnFEMI%2FK7MDENG, ?Signature=0a1b2c3d4e5f')
  monkeypatch.setattr(Server, '_open', fails)
  with pytest.raises(InputError, match='403 Forbidden') as error:
    list(documents.pieces(documents.units([f'jsonl:{url}:content'], '')[0], '', ''))
  assert not any(secret in str(error.value) for secret in SECRETS) and error.value.__cause__ is None
  assert 'wJalrXUtnFEMI' not in str(error.value)
