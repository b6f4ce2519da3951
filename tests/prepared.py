"""Corpora made of random words by `prepare`, and what is in their folders."""

import json
import random
import sys

from gptjax.data.prepare import prepare

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
