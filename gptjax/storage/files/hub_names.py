"""Names of models on the Hugging Face Hub, told apart from paths.

A name is `OWNER/NAME` or `OWNER/NAME@REVISION` (a branch, a tag or a commit), or one of the short names
below. A folder of this machine takes precedence: text is a name only if there is no such folder, and OWNER is
not a folder either. So that a misspelled path is not looked up on the Hub, `runs/NAME` and the like are
always paths, and so are names that end like files, `./NAME`, and every `pathlib.Path`.
"""

import argparse
import os
import re
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.storage.files import paths

_PART = r'[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?'
_NAME = re.compile(rf'(?P<repo>{_PART}(?:/{_PART})?)(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]*))?')
# The released models under the names that papers and tutorials use.
SHORT = {name: f'openai-community/{name}'
         for name in ('gpt2', 'gpt2-medium', 'gpt2-large', 'gpt2-xl', 'openai-gpt')}
SHORT['distilgpt2'] = 'distilbert/distilgpt2'
# First parts of paths in the documentation, and ends of files.
FOLDERS = {'runs', 'corpora', 'configs', 'checkpoints', 'milestones', 'data', 'exported', 'weights', 'models'}
SUFFIXES = ('.safetensors', '.json', '.txt', '.bin', '.pt', '.ckpt', '.npz', '.py')


class HubName(NamedTuple):
  """A model on the Hub.

  repo: `OWNER/NAME`.
  revision: branch, tag or commit; None: the newest.
  """
  repo: str
  revision: str | None

  def __str__(self):
    return self.repo if self.revision is None else f'{self.repo}@{self.revision}'


def parse(text):
  """Return the HubName that a text is; None for a path."""
  if not isinstance(text, str):
    return None
  match = _NAME.fullmatch(text)
  if not match or os.path.lexists(text) or '..' in text or text.endswith(SUFFIXES):
    return None
  repo, revision = match['repo'], match['revision']
  owner, slash, _ = repo.partition('/')
  if not slash:
    return HubName(SHORT[repo], revision) if repo in SHORT and not os.path.lexists(repo) else None
  return None if owner in FOLDERS or os.path.lexists(owner) else HubName(repo, revision)


def absolute(text, what='path'):
  """Return the name of a model on the Hub unchanged, and a path absolute, as `paths.anywhere` does."""
  return str(text) if parse(text) else paths.anywhere(text, what)


def flag(text):
  """`absolute` as the `type` of an argparse flag."""
  try:
    return absolute(text)
  except InputError as error:
    raise argparse.ArgumentTypeError(str(error)) from None
