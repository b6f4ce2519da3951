"""Objects in buckets, by servers that speak both protocols, with faults."""

import concurrent.futures
import hashlib
import os

import object_storage
import pytest

from gptjax.errors import InputError
from gptjax.storage.files import buckets, paths

CONTENT = os.urandom(20_000_000)


served = object_storage.served(object_storage.BUCKETS)


@pytest.fixture
def bucket(served, monkeypatch, request):
  """The Url of a folder of its own; no faults yet."""
  monkeypatch.setattr(buckets, 'FIRST_PAUSE', 0.01)
  scheme, faults = served
  original = dict(vars(faults))
  yield paths.location(f'{scheme}://buck/{abs(hash(request.node.name))}')
  vars(faults).update({name: original[name] for name in (
    'fail', 'cut', 'code', 'method', 'path', 'fail_first', 'stall_first', 'mutations_per_second')})


def test_what_is_put_is_read_listed_and_removed(bucket, tmp_path):
  buckets.put(bucket / 'a' / 'text', 'é')
  buckets.put(bucket / 'b', b'')
  (tmp_path / 'large').write_bytes(CONTENT)
  buckets.put_file(bucket / 'a' / 'large', tmp_path / 'large')
  assert buckets.read(bucket / 'a' / 'text') == 'é'.encode()
  assert buckets.read(bucket / 'b') == b''
  assert {name: entry.size for name, entry in buckets.find(bucket).items()} == {
    'a/large': len(CONTENT), 'a/text': 2, 'b': 0}
  assert buckets.names(bucket) == ['a', 'b'] and buckets.names(bucket / 'a') == ['large', 'text']
  assert buckets.names(bucket / 'c') == [] and buckets.find(bucket / 'c') == {}
  digest = hashlib.sha256()
  buckets.download(bucket / 'a' / 'large', tmp_path / 'copy', len(CONTENT), digest.update)
  assert (tmp_path / 'copy').read_bytes() == CONTENT and digest.digest() == hashlib.sha256(CONTENT).digest()
  assert buckets.read_ranges(bucket / 'a' / 'large', [(3, 9), (0, 1), (19_999_990, 20_000_000)]) == [
    CONTENT[3:9], CONTENT[:1], CONTENT[-10:]]
  before = buckets.entry(bucket / 'b')
  buckets.put(bucket / 'b', b'now more')
  assert buckets.entry(bucket / 'b').version != before.version and buckets.entry(bucket / 'b').size == 8
  assert buckets.entry(bucket / 'a') is None and buckets.entry(bucket / 'none') is None
  buckets.remove_tree(bucket / 'a')
  buckets.remove(bucket / 'a' / 'text')
  assert buckets.names(bucket) == ['b']
  with pytest.raises(FileNotFoundError):
    buckets.read(bucket / 'a' / 'text')
  with pytest.raises(InputError, match='more than 3 bytes'):
    buckets.read(bucket / 'b', 3)


def test_one_of_many_creates_an_object(bucket):
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    created = list(pool.map(lambda n: buckets.create(bucket / 'one', f'{n}'), range(8)))
  assert sum(created) == 1
  assert buckets.read(bucket / 'one') == f'{created.index(True)}'.encode()


@pytest.mark.parametrize('fault', [
  {'fail': 0.1}, {'fail': 0.1, 'code': 429}, {'cut': 0.1}, {'mutations_per_second': 1.0}])
def test_faults_that_pass_change_nothing(bucket, served, tmp_path, fault):
  vars(served[1]).update(fault)
  (tmp_path / 'file').write_bytes(CONTENT[:3_000_000])
  for n in range(4):
    buckets.put(bucket / str(n), CONTENT[:1000 * n])
  assert buckets.create(bucket / 'new', b'mine') and not buckets.create(bucket / 'new', b'others')
  buckets.put_file(bucket / 'file', tmp_path / 'file')
  for n in range(4):
    assert buckets.read(bucket / str(n)) == CONTENT[:1000 * n]
  buckets.download(bucket / 'file', tmp_path / 'copy', 3_000_000)
  assert (tmp_path / 'copy').read_bytes() == CONTENT[:3_000_000]
  assert {name: entry.size for name, entry in buckets.find(bucket).items()} == {
    'file': 3_000_000, 'new': 4, **{str(n): 1000 * n for n in range(4)}}


@pytest.mark.first_cases(1)
def test_a_server_that_is_back_after_a_while_is_waited_for_with_a_report(bucket, served, monkeypatch):
  waited = []
  monkeypatch.setattr(buckets._Settings, 'on_retry', staticmethod(lambda: waited.append(1)))
  served[1].fail_first = 7
  buckets.put(bucket / 'a', b'x')
  assert buckets.read(bucket / 'a') == b'x' and len(waited) == 1


def test_a_request_without_an_answer_is_repeated(bucket, served, monkeypatch):
  monkeypatch.setattr(buckets, 'SILENT', 1)
  buckets.put(bucket / 'a', b'x')
  monkeypatch.setattr(buckets, '_systems', {})
  served[1].stall_first = 1
  assert buckets.read(bucket / 'a') == b'x'


@pytest.mark.parametrize('code, message', [
  pytest.param(503, 'the storage has not answered for 1 s', marks=pytest.mark.slow),
  (401, 'credentials are missing, wrong or expired .*(`gcloud auth|: set AWS_ACCESS_KEY_ID)'),
  (403, 'access is denied')])
def test_faults_that_last_are_one_line(bucket, served, monkeypatch, code, message):
  monkeypatch.setattr(buckets._Settings, 'retry_seconds', 1)
  vars(served[1]).update(fail=1.0, code=code)
  with pytest.raises(InputError, match=message) as error:
    buckets.put(bucket / 'a', b'x')
  assert '\n' not in str(error.value) and str(error.value).startswith(str(bucket / 'a'))


@pytest.mark.parametrize('code, status, message', [
  ('InvalidAccessKeyId', 403, 'credentials are missing, wrong or expired .* set AWS_ACCESS_KEY_ID'),
  ('SignatureDoesNotMatch', 403, 'credentials are missing, wrong or expired'),
  ('AccessDenied', 403, 'access is denied .* give the account permission'),
  ('RequestTimeTooSkewed', 403, 'the clock of this machine is wrong .* set it'),
  ('AuthorizationHeaderMalformed', 400, 'name of the bucket is right, and AWS_REGION its region')])
def test_what_s3_refuses_is_told_by_its_code(code, status, message):
  exceptions, errors = pytest.importorskip('botocore.exceptions'), pytest.importorskip('s3fs.errors')
  def attempt():
    error = exceptions.ClientError({'Error': {'Code': code, 'Message': 'why'},
                                    'ResponseMetadata': {'HTTPStatusCode': status}}, 'GetObject')
    raise errors.translate_boto_error(error)
  with pytest.raises(InputError, match=message):
    buckets.repeated(paths.location('s3://b/a'), attempt)


def test_an_expired_token_of_s3_is_renewed_once(monkeypatch):
  exceptions, errors = pytest.importorskip('botocore.exceptions'), pytest.importorskip('s3fs.errors')
  renewed, tries = [], []
  monkeypatch.setattr(buckets, '_renew', lambda scheme, system: renewed.append(scheme))
  def attempt():
    tries.append(1)
    if len(tries) == 1:
      raise errors.translate_boto_error(exceptions.ClientError(
        {'Error': {'Code': 'ExpiredToken', 'Message': 'The provided token has expired.'},
         'ResponseMetadata': {'HTTPStatusCode': 400}}, 'GetObject'))
    return 'read'
  assert buckets.repeated(paths.location('s3://b/a'), attempt) == 'read' and renewed == ['s3']


@pytest.mark.parametrize('text', ['gs://', 'gs:///a', 's3://b//c', 'gs://b/../c', 'gs://b/a*', 's3://b/a?x=1'])
def test_what_is_no_name_in_a_bucket_is_refused(text):
  with pytest.raises(InputError, match='is not a name in a bucket'):
    paths.location(text)


@pytest.mark.parametrize('text', ['gs:/b/run', 's3:/b/run', 'GS://b/run', 'gcs://b/run', 's3a://b/run', 'gs:///b'])
def test_a_mistyped_scheme_is_refused_and_the_right_one_is_shown(text):
  scheme = 's3' if text.lower().startswith('s3') else 'gs'
  with pytest.raises(InputError, match=f'--workdir {text}.* {scheme}://BUCKET/NAME'):
    paths.anywhere(text, '--workdir')


@pytest.mark.parametrize('name', ['a\tb', 'a\nb', 'a\x00b', 'a\x7fb'])
def test_a_name_that_tensorstore_would_change_is_refused(name):
  with pytest.raises(InputError, match='cannot be printed'):
    paths.location(f'gs://b/{name}')


def test_names_are_joined_and_never_opened_as_files_here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  url = paths.location('gs://b/a/c/')
  assert str(url / 'd') == 'gs://b/a/c/d' and url.name == 'c' and url.parent == paths.location('gs://b/a')
  assert paths.location(url) is url and paths.location('x') == tmp_path / 'x'
  with pytest.raises(TypeError):
    open(url)
  with pytest.raises(InputError, match='URLs are not supported'):
    paths.location('hdfs://b/a')
