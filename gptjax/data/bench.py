"""How fast a corpus is prepared, beside the tokenizer alone on the same text."""

import itertools
import json
import tempfile
import time
from pathlib import Path

from gptjax.data import prepare, tokenizers


def measure(texts, tokenizer, megabytes, workers):
  """Times `tiktoken.encode_ordinary` in a loop, then the whole of prepare on 1 and on more workers.

  Worker processes are started for it, so the caller's main module must be importable.

  Args:
    texts: list of str, the documents; repeated until there is enough.
    tokenizer: what `tokenizers.load` takes, of a byte-level BPE.
    megabytes: of text to encode; starting the workers should be a small part of the time.
    workers: list of numbers of workers; 1 is the one that the others are compared with.

  Returns:
    {'megabytes', 'encode_ordinary_mb_per_s', 'prepare_N_mb_per_s' for each number of workers N,
    'prepare_1_over_encode_ordinary', 'prepare_N_over_prepare_1'}.
  """
  enough, size = [], 0
  for text in itertools.cycle(texts):
    if size >= megabytes * 1e6:
      break
    enough.append(text)
    size += len(text.encode())
  coder = tokenizers.load(tokenizer).coder
  began = time.perf_counter()
  for text in enough:
    coder.encode_ordinary(text)
  result = {'megabytes': size / 1e6,
            'encode_ordinary_mb_per_s': size / 1e6 / (time.perf_counter() - began)}
  with tempfile.TemporaryDirectory() as folder:
    source = Path(folder) / 'texts.jsonl'
    with open(source, 'w', encoding='utf-8') as file:
      file.writelines(json.dumps({'text': text}) + '\n' for text in enough)
    for n in workers:
      began = time.perf_counter()
      prepare.prepare([f'jsonl:{source}'], tokenizer, f'{folder}/{n}', validation_fraction=0.005,
                      clean='', workers=n, tfds_dir='', on_error='stop', progress=False)
      result[f'prepare_{n}_mb_per_s'] = size / 1e6 / (time.perf_counter() - began)
  one = result['prepare_1_mb_per_s']
  result['prepare_1_over_encode_ordinary'] = one / result['encode_ordinary_mb_per_s']
  return result | {f'prepare_{n}_over_prepare_1': result[f'prepare_{n}_mb_per_s'] / one
                   for n in workers if n > 1}
