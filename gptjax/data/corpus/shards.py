"""The state of work that commits its progress; after a kill its files are cut to their committed length."""

import json

from gptjax.errors import InputError
from gptjax.storage.files import access, atomic, records

STATE = 'progress.json'


def load_state(folder):
  """Return the last committed state, a dict; None if there is none."""
  path = folder / STATE
  try:
    return records.read(path) if access.is_file(path) else None
  except InputError:
    raise InputError(f'{path} is damaged: remove {folder} and start again') from None


def save_state(folder, state):
  """Commit the state (JSON); call it after the files that it describes are synced."""
  atomic.write(folder / STATE, json.dumps(records.add_checksum(state), sort_keys=True))
