"""Functions for all tokenizers: digests of their files, end tokens, and saving."""

import hashlib
import json

from gptjax.data.tokenizers import hf_folder
from gptjax.errors import InputError
from gptjax.storage.files import access, bounded, lfs, paths

# digest(encoder.json, vocab.bpe) of GPT-2.
GPT2_DIGEST = '00f404d36600411e497efb3df08d3b4e094f0820e2595afcb7cbd0c4353d4fcb'


def read_file(path):
  lfs.refuse_pointer(path)
  try:
    return bounded.read(path)
  except OSError as error:
    raise InputError(f'tokenizer file {path}: {error.strerror}') from None


def missing_message(folder):
  """Return the message for weights that cannot be used for text, because their folder has no tokenizer."""
  return (f'{folder} has no tokenizer: copy tokenizer.json, or vocab.json and merges.txt, into it; in '
          'Python, `tokenizer.save_pretrained(FOLDER)` of transformers writes them')


def digest(*files):
  """Return the SHA-256 (hex) of the contents of files, in the given order."""
  return hashlib.sha256(b''.join(files)).hexdigest()


def default_eos_ids(end_of_text):
  """Return the `eos_ids` of a tokenizer whose model declares none: its end of text, if it has one."""
  return () if end_of_text is None else (end_of_text,)


def saved_files(tokenizer):
  """Return {name: bytes} to save: the files, and what `end_of_text` does not determine of a model's use."""
  facts, end = {}, tokenizer.end_of_text
  if tuple(tokenizer.eos_ids) != default_eos_ids(end):
    facts['eos_token_id'] = list(tokenizer.eos_ids)
  if tokenizer.start_of_text != end:
    facts['bos_token_id'] = tokenizer.start_of_text
  return tokenizer.files | ({hf_folder.GENERATION: json.dumps(facts).encode()} if facts else {})


def save_files(folder, files):
  """Write {name: bytes} into the folder, here or in a bucket; ValueError if it cannot be created."""
  folder = paths.parsed(folder)
  try:
    access.make_folder(folder)
  except OSError as error:
    raise InputError(f'{folder} cannot be written to: {error.strerror}') from None
  for name, content in files.items():
    access.write(folder / name, content)
