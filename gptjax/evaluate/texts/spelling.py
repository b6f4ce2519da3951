"""The words of a corpus whose tokenizer does not give its text back, for comparison with other text.

GPT-1's tokenizer mends characters and splits words: "don't" comes back as "do n't", whose 8-grams are not
those of the text. What is looked up in a filter of such a corpus goes through the same tokenizer first.
"""

import functools
import sys
from pathlib import Path

from gptjax.data.corpus import corpus_manifest
from gptjax.data.sources import corpus
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError

LOSSY = 'gpt1',  # names of tokenizers


def of_sources(sources):
  """Function of a text that gives it as it stands in a filter of these sources; None: as it is.

  Args:
    sources: list of KIND:WHERE.

  Raises:
    InputError: they are corpora of such a tokenizer and other text, which cannot be compared at once.
  """
  return _of_sources(tuple(sources))


@functools.cache
def _of_sources(sources):
  made = [_tokenizer(source) for source in sources]
  found = {tokenizer.digest: tokenizer for tokenizer in made if tokenizer}
  if not found:
    return None
  if len(found) > 1 or None in made:
    raise InputError(f'the sources {", ".join(sources)} are corpora of GPT-1\'s tokenizer, which changes '
                     'words, and other text: study them one by one')
  (tokenizer,) = found.values()
  return lambda text: tokenizer.decode(tokenizer.encode(text))


def _tokenizer(source):
  """The tokenizer of a source that is a corpus of a LOSSY one; None of any other source."""
  kind, _, where = source.partition(':')
  if kind != 'corpus':
    return None
  folder, _ = corpus.parse_where(where)
  if not Path(folder).is_dir():  # of a filter that was built elsewhere
    print(f'overlap: the corpus {folder} is not here: if it has GPT-1\'s tokenizer, some 8-grams are not '
          'found', file=sys.stderr)
    return None
  lossy = corpus_manifest.read_manifest(folder)['tokenizer']['name'] in LOSSY
  return loading.load(str(Path(folder) / 'tokenizer')) if lossy else None
