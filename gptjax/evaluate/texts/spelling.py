"""Respelling of text for comparison with a corpus of a lossy tokenizer.

GPT-1's tokenizer normalizes characters and splits words: "don't" is decoded as "do n't", whose 8-grams are
not those of the text. Text to look up in a filter of such a corpus goes through the same tokenizer first.
"""

import functools
import sys

from gptjax.data.corpus import corpus_manifest
from gptjax.data.sources import corpus
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.storage.files import access, paths

LOSSY = 'gpt1',  # names of tokenizers


def respelling_for(sources):
  """Return the function that respells a text as in a filter of these sources; None: no change.

  Args:
    sources: list of KIND:WHERE.

  Raises:
    InputError: only some of them are corpora of such a tokenizer, so that no respelling fits all.
  """
  return _respelling_for(tuple(sources))


@functools.cache
def _respelling_for(sources):
  tokenizers = [_tokenizer(source) for source in sources]
  lossy = {tokenizer.digest: tokenizer for tokenizer in tokenizers if tokenizer}
  if not lossy:
    return None
  if len(lossy) > 1 or None in tokenizers:
    raise InputError(f'the sources {", ".join(sources)} are corpora of GPT-1\'s tokenizer, which changes '
                     'words, and other text: run a study of each kind alone')
  (tokenizer,) = lossy.values()
  return lambda text: tokenizer.decode(tokenizer.encode(text))


def _tokenizer(source):
  """Return the tokenizer of a source if it is a corpus of a LOSSY tokenizer, else None."""
  kind, _, where = source.partition(':')
  if kind != 'corpus':
    return None
  folder, _ = corpus.parse_where(where)
  if not access.is_folder(paths.parsed(folder)):  # a filter may have been built elsewhere
    print(f'overlap: the corpus {folder} does not exist: if it has GPT-1\'s tokenizer, some 8-grams are '
          'not found', file=sys.stderr)
    return None
  lossy = corpus_manifest.read_manifest(folder)['tokenizer']['name'] in LOSSY
  return loading.load(str(paths.parsed(folder) / 'tokenizer')) if lossy else None
