"""What `prepare` needs of memory does not grow with the corpus."""

import json
import os
import subprocess
import sys

import pytest
from conftest import slow_except
from prepared import WORDS, make_texts

from gptjax.data.corpus import reader
from gptjax.data.tokenizers import byte_bpe

MEASURED = """
import resource, sys
from gptjax.data import prepare
if __name__ == '__main__':
  prepare.prepare([sys.argv[1]], sys.argv[2], sys.argv[3], validation_fraction=0.005, clean='',
                  workers=int(sys.argv[4]), tfds_dir='', on_error='stop', progress=False)
  print(max(resource.getrusage(who).ru_maxrss for who in (
    resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def peak_memory(tmp_path, kind, megabytes, tokenizer, workers):
  """Bytes that each of the processes of `prepare` may have had at most, on generated text."""
  block = ''.join(make_texts(2000, longest=300))[:1 << 20]
  lines = [json.dumps({'text': f'NUMBER {block[j:j + 2048]}'}) + '\n'
           for j in range(0, len(block), 2048)]
  whole = block + ' NUMBER\n' if kind == 'text' else ''.join(lines)
  path, out = tmp_path / f'{megabytes}', tmp_path / f'out{megabytes}'
  with open(path, 'w') as file:
    for i in range(megabytes):
      file.write(whole.replace('NUMBER', str(i)))
  (tmp_path / 'script.py').write_text(MEASURED)
  done = subprocess.run([sys.executable, str(tmp_path / 'script.py'), f'{kind}:{path}', tokenizer, str(out),
                         str(workers)], text=True, capture_output=True, check=True,
                        env={**os.environ, 'PYTHONPATH': os.getcwd()})
  assert path.stat().st_size >= megabytes << 20
  path.unlink()
  opened = reader.open_corpus(str(out), 'train', verify=True)
  held = reader.open_corpus(str(out), 'validation', verify=True)
  assert opened.n_bytes > 0.9 * megabytes * (1 << 20)
  assert 0.003 < held.n_bytes / opened.n_bytes < 0.007
  return int(done.stdout) * 1024


@pytest.mark.ci
@pytest.mark.parametrize('kind', slow_except(['text', 'jsonl'], 'jsonl'))
def test_memory_does_not_grow_with_the_corpus(tmp_path, kind):
  byte_bpe.train_bpe([' '.join(WORDS)], 290).save(tmp_path / 'tokenizer')
  small, large = (peak_memory(tmp_path, kind, megabytes, f'{tmp_path}/tokenizer', 1)
                  for megabytes in (10, 60))
  assert large < small + (30 << 20), (small, large)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['text', 'jsonl'])
def test_two_gigabytes_in_less_than_one_of_memory(tmp_path, kind, shared_data):
  """One document of 2 GB, and a million lines; this process and its two workers, added up."""
  peak = peak_memory(tmp_path, kind, 2048, f'gpt2:{shared_data}/bpe/gpt2', 2)
  print(f'{3 * peak / 1e6:.0f} MB in three processes at most')
  assert 3 * peak < 1e9, peak
