"""How fast batches are read: `measure`, for the benchmark command."""

import hashlib
import itertools
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from gptjax.data import corpus as corpora
from gptjax.data import pipeline


def measure(*, n_tokens, seq_len, batch_size, n_batches, cross_documents, prefetch, workers):
  """Reads a made-up corpus of uint16 tokens in shards, as a training run would.

  Args:
    n_tokens: size of the corpus; it is written to a temporary folder, 2 bytes each.
    seq_len, batch_size, cross_documents: as for `corpus.batch`; a window is seq_len + 1 tokens.
    n_batches: batches timed.
    prefetch, workers: as for `pipeline.batches`.

  Returns:
    {'pipeline': targets a second through tf.data, 'plain': the same by the NumPy loop,
     'step_0': seconds for batch 0 alone, 'step_1e9': for batch 10^9, medians,
     'verify': bytes a second hashed and checked when a corpus is opened}.
  """
  with tempfile.TemporaryDirectory() as folder:
    _write(Path(folder), n_tokens)
    begin = time.perf_counter()
    corpus = corpora.open_corpus(folder, 'train', verify=True)
    verify = 2 * n_tokens / (time.perf_counter() - begin)

    def make(step):
      return corpora.batch([corpus], [1.0], 0, step, batch_size, seq_len, cross_documents)

    def speed(batches):
      next(batches)  # loads TensorFlow
      begin = time.perf_counter()
      n = sum(batch['targets'].size for batch in batches)
      return n / (time.perf_counter() - begin)

    return {
      'pipeline': speed(pipeline.batches(make, 0, n_batches + 1, prefetch=prefetch,
                                         workers=workers)),
      'plain': speed(pipeline.plain_batches(make, 0, n_batches + 1)),
      'step_0': _seconds(make, 0), 'step_1e9': _seconds(make, 10**9), 'verify': verify}


def _seconds(make, step):
  taken = []
  for _ in range(21):
    begin = time.perf_counter()
    make(step)
    taken.append(time.perf_counter() - begin)
  return float(np.median(taken))


def _write(folder, n_tokens, n_shards=4, document=600):
  """A corpus of random ids below 50,257 with a document every 600 tokens."""
  shards, random = [], np.random.default_rng(0)
  for i, (start, stop) in enumerate(itertools.pairwise(
      np.linspace(0, n_tokens, n_shards + 1, dtype=int).tolist())):
    data = random.integers(0, 50_257, stop - start, dtype='<u2').tobytes()
    shards.append({'tokens': stop - start, **_file(folder, f'train-{i:05d}.bin', data)})
  starts = np.arange(0, n_tokens, document, dtype='<u8')
  split = {'tokens': n_tokens, 'documents': len(starts), 'bytes': 4 * n_tokens, 'shards': shards,
           'index': _file(folder, 'train-documents.bin', starts.tobytes())}
  manifest = {'version': corpora.VERSION, 'dtype': 'uint16', 'splits': {'train': split},
              'tokenizer': {'name': 'gpt2', 'digest': '', 'n_vocab': 50_257, 'end_of_text': 50_256}}
  manifest['digest'] = corpora.manifest_digest(manifest)
  (folder / 'manifest.json').write_text(json.dumps(manifest))


def _file(folder, name, data):
  (folder / name).write_bytes(data)
  return {'file': name, 'sha256': hashlib.sha256(data).hexdigest()}
