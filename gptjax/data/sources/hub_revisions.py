"""Pins URLs of the Hugging Face Hub, `hf://datasets/OWNER/NAME[@REVISION]/PATH`, to a commit.

A branch moves, so the same URL may give other files later. The commit is asked for once, and is part of the
paths of the units and of the recorded sources: what is read again or later is the same, or an error.
"""

import re

SCHEME = 'hf://'
BUCKETS = 'hf://buckets/'  # storage of the Hub without versions
_COMMIT = re.compile(r'@[0-9a-f]{40}(/|$)')
_commits = {}  # {(type, repository, revision): commit} since the last `forget`


def forget():
  """Let the next `pinned` ask for the commits of branches and tags again."""
  _commits.clear()


def pinned(url):
  """Return a URL of the Hub with the commit in place of a branch or tag, and any other text as it is.

  Raises:
    Exception: of several classes: there is no such repository or revision, or the Hub cannot be reached.
  """
  if not url.startswith(SCHEME) or url.startswith(BUCKETS) or _COMMIT.search(url):
    return url
  import fsspec
  import huggingface_hub
  from huggingface_hub import constants
  system, path = fsspec.core.url_to_fs(url)
  found = system.resolve_path(path)
  key = found.repo_type, found.repo_id, found.revision
  if key not in _commits:
    hub = huggingface_hub.HfApi(endpoint=system.endpoint, token=system.token)
    _commits[key] = hub.repo_info(found.repo_id, revision=found.revision, repo_type=found.repo_type).sha
  repository = f'{constants.REPO_TYPES_URL_PREFIXES.get(found.repo_type, "")}{found.repo_id}@{_commits[key]}'
  return f'{SCHEME}{repository}/{found.path_in_repo}'.rstrip('/')
