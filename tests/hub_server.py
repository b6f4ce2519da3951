"""A local HTTP server that answers like the Hugging Face Hub, for the requests of `huggingface_hub`."""

import contextlib
import hashlib
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT, OLDER = 'a' * 40, 'b' * 40


class Hub:
  """Models of the server: {(repo, commit): {file name: bytes}}, and {(repo, branch or tag): commit}.

  A data set is the repo 'datasets/OWNER/NAME'.

  asked: [path of each request], and served: {names of files that were downloaded}.
  """

  def __init__(self):
    self.models, self.names, self.gated = {}, {}, set()
    self.asked, self.served, self.endpoint = [], set(), ''

  def add(self, repo, files, commit=COMMIT, names=('main',)):
    self.models[repo, commit] = files
    self.names |= {(repo, name): commit for name in (*names, commit)}


def tree(files, folder, recursive):
  """The entries of a listing of a folder."""
  entries, prefix = {}, f'{folder}/' if folder else ''
  for name, content in files.items():
    if name.startswith(prefix):
      first, slash, _ = name.removeprefix(prefix).partition('/')
      if slash:
        entries[prefix + first] = {'type': 'directory', 'path': prefix + first, 'oid': '0' * 40, 'size': 0}
      if recursive or not slash:
        entries[name] = {'type': 'file', 'path': name, 'size': len(content),
                         'oid': hashlib.sha1(content).hexdigest()}
  return list(entries.values())


def handler(hub):
  class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *arguments):
      pass

    def answer(self, status, body=b'', **headers):
      self.send_response(status)
      for name, value in {'Content-Length': str(len(body)), **headers}.items():
        self.send_header(name.replace('_', '-'), value)
      self.end_headers()
      if self.command != 'HEAD':
        self.wfile.write(body)

    def refuse(self, code):
      self.answer(404 if code != 'GatedRepo' else 403, b'{}', X_Error_Code=code, X_Error_Message=code)

    def do_GET(self):
      url = urllib.parse.urlparse(self.path)
      path = urllib.parse.unquote(url.path)
      hub.asked.append(path)
      listing = path.startswith(('/api/models/', '/api/datasets/'))
      repo, _, rest = path.removeprefix('/api/models/').removeprefix('/api').lstrip('/').partition(
        '/revision/' if '/revision/' in path else '/tree/' if listing and '/tree/' in path else '/resolve/')
      if repo in hub.gated:
        return self.refuse('GatedRepo')
      if repo not in {name for name, _ in hub.models}:
        return self.refuse('RepoNotFound')
      revision, _, file = (rest, '', '') if listing and '/revision/' in path else rest.partition('/')
      commit = hub.names.get((repo, revision or 'main'))
      if commit is None:
        return self.refuse('RevisionNotFound')
      files = hub.models[repo, commit]
      if listing and '/tree/' in path:
        entries = tree(files, file, 'recursive=true' in url.query.lower())
        if file and not entries:
          return self.refuse('EntryNotFound')
        return self.answer(200, json.dumps(entries).encode(), Content_Type='application/json')
      if listing:
        facts = {'id': repo.removeprefix('datasets/'), 'sha': commit, 'private': False, 'tags': [],
                 'downloads': 0, 'likes': 0, 'siblings': [{'rfilename': name} for name in files]}
        facts |= {} if repo.startswith('datasets/') else {'modelId': repo}
        return self.answer(200, json.dumps(facts).encode(), Content_Type='application/json')
      if file not in files:
        return self.refuse('EntryNotFound')
      if self.command == 'GET':
        hub.served.add(file)
      headers = {'ETag': f'"{hashlib.sha256(files[file]).hexdigest()}"', 'X_Repo_Commit': commit}
      if part := re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('Range', '')):
        body = files[file][int(part[1]):int(part[2]) + 1]
        headers['Content_Range'] = f'bytes {part[1]}-{int(part[1]) + len(body) - 1}/{len(files[file])}'
        return self.answer(206, body, **headers)
      return self.answer(200, files[file], **headers)

    do_HEAD = do_GET

  return Handler


@contextlib.contextmanager
def serving():
  """Enters a Hub that answers at `endpoint`."""
  hub = Hub()
  server = ThreadingHTTPServer(('127.0.0.1', 0), handler(hub))
  hub.endpoint = f'http://127.0.0.1:{server.server_port}'
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield hub
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
