"""Corpora made of random words by `prepare`, and what is in their folders."""

import json
import random
import sys

from gptjax.data.corpus import reader
from gptjax.data.prepare import prepare
from gptjax.data.tokenizers import loading

WORDS = ('the', 'of', 'and', 'river', 'stone', 'walk', 'light', 'house', 'morning', 'yellow')


def make_texts(n, seed=0, longest=400):
  rng = random.Random(seed)
  return [' '.join(rng.choices(WORDS, k=rng.randint(1, longest))) + f' {i}.\n' for i in range(n)]


def write_jsonl(path, texts):
  path.write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
  return f'jsonl:{path}'


def run(source, out, tokenizer='train-bpe:300', **options):
  options = {'validation_fraction': 0.1, 'clean': '', 'workers': 1, 'tfds_dir': '',
             'on_error': 'stop', 'progress': False, 'seq_len': 4, **options}
  sources = [source] if isinstance(source, str) else source
  return prepare(sources, tokenizer, str(out), **options)


def contents(folder):
  """{name: bytes} of all files, hidden ones apart."""
  return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*'))
          if path.is_file() and not path.name.startswith('.')}


def command(source, out, *flags):
  return [sys.executable, '-m', 'gptjax.data.prepare', f'--source={source}', f'--out={out}',
          '--tokenizer=train-bpe:300', '--validation_fraction=0.1', '--seq_len=4', *flags]


def documents(folder, split):
  """The texts of a split, as its tokenizer decodes them, checked against the manifest."""
  opened = reader.open_corpus(str(folder), split, verify=True)
  tokenizer = loading.load(str(folder / 'tokenizer'))
  ends = [*opened.document_starts[1:], opened.n_tokens]
  found = []
  for start, end in zip(opened.document_starts, ends, strict=True):
    ids = opened.tokens(int(start), int(end))
    assert ids[-1] == tokenizer.end_of_text and tokenizer.end_of_text not in ids[:-1]
    found.append(tokenizer.decode(ids[:-1]))
  assert sum(len(text.encode()) for text in found) == opened.n_bytes
  return found
