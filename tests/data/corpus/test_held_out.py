"""What a corpus holds out: nothing, or at least a window, and never all of it."""

import json

import numpy as np
import pytest
from conftest import tiny_config
from corpus_files import digest_of, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import make_texts, run, write_jsonl

from gptjax.data import summary
from gptjax.data.corpus import held_out, reader
from gptjax.data.corpus import mixture as mixtures
from gptjax.data.tokenizers import byte_bpe

SEQ_LEN = 16


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tokenizer')
  byte_bpe.train_bpe(make_texts(20), 280).save(folder)
  return f'bpe:{folder}'


def tokens(manifest):
  return [manifest['splits'].get(split, {}).get('tokens', 0) for split in ('train', 'validation')]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9), n=st.integers(1, 12), longest=st.sampled_from([2, 20, 400]),
       fraction=st.sampled_from([0.001, 0.02, 0.1, 0.5, 0.95]))
def test_nothing_or_a_window_and_never_all(tokenizer, tmp_path_factory, seed, n, longest, fraction):
  root = tmp_path_factory.mktemp('c')
  source = write_jsonl(root / 'a.jsonl', make_texts(n, seed, longest))
  manifest = run(source, root / 'out', tokenizer, validation_fraction=fraction, seq_len=SEQ_LEN)
  train, held = tokens(manifest)
  assert train > 0 and (held == 0 or min(train, held) > SEQ_LEN)
  said = summary.format_summary(manifest, 1.0).splitlines()[-1]
  if held:
    assert said == f'held out: {manifest["validation"]}, {held / (train + held):.2%} of the tokens'
    assert manifest['validation'] in ('documents by their hash', 'the end of each document')
  else:
    assert said.startswith('nothing is held out: too little text for validation_fraction = ')


MARK = '<|endoftext|>'


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 9), n=st.integers(1, 12), longest=st.sampled_from([2, 20]),
       fraction=st.sampled_from([0.02, 0.1, 0.5]), names=st.sampled_from([(), ('all',)]),
       filler=st.sampled_from([' .', MARK * 9]))
def test_what_is_counted_is_what_is_written(tokenizer, tmp_path_factory, seed, n, longest, fraction, names,
                                            filler):
  """A special token is one token, and as text a dozen."""
  root = tmp_path_factory.mktemp('c')
  texts = [text + filler for text in make_texts(n, seed, longest)] + [filler] * n
  manifest = run(write_jsonl(root / 'a.jsonl', texts), root / 'out', tokenizer, validation_fraction=fraction,
                 seq_len=SEQ_LEN, special_tokens=names)
  train, held = tokens(manifest)
  assert train > 0 and (held == 0 or min(train, held) > SEQ_LEN)


def test_one_book_is_never_all_held_out(tokenizer, tmp_path):
  (tmp_path / 'a.txt').write_text(''.join(make_texts(30)))
  for fraction in np.linspace(0.02, 0.98, 25):  # The hash of the book is below some of them.
    manifest = run(f'text:{tmp_path}/a.txt', tmp_path / f'{fraction}', tokenizer, seq_len=SEQ_LEN,
                   validation_fraction=fraction)
    train, held = tokens(manifest)
    assert manifest['validation'] == 'the end of each document'
    assert abs(held / (train + held) - fraction) < 0.05


def test_with_enough_text_the_length_of_a_window_changes_nothing(tokenizer, tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(200))
  made = [run(source, tmp_path / f'{seq_len}', tokenizer, seq_len=seq_len) for seq_len in (1, SEQ_LEN, 512)]
  assert len({manifest['content'] for manifest in made}) == 1
  assert made[0]['validation'] == 'documents by their hash'


def test_corpora_of_older_versions_are_taken_as_they_are(tokenizer, tmp_path, monkeypatch):
  """Finished ones, and those that had been begun when every held-out document counted."""
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(9))
  options = dict(validation_fraction=0.1, seq_len=10_000)
  monkeypatch.setattr(held_out, 'choose_rule', lambda *_: {'fraction': 0.1, 'tail': 0})
  begun = run(source, tmp_path / 'out', tokenizer, **options)
  assert begun['validation'] == 'documents by their hash' and 0 < tokens(begun)[1] < 10_000
  monkeypatch.undo()
  del begun['settings']['seq_len'], begun['digest']
  path = tmp_path / 'out' / 'manifest.json'
  path.write_text(json.dumps({**begun, 'digest': digest_of(begun)}))
  assert run(source, tmp_path / 'out', tokenizer, **options)['content'] == begun['content']


def test_a_short_held_out_split_is_evaluated_as_it_is(tmp_path):
  train = np.arange(60) % 50
  for held, n in (([1, 2, 3, 4], 1), ([1, 2], 1), ([1], 0), ([], 0)):
    folder = write_corpus(tmp_path / f'{len(held)}', [train], validation=[held] if held else (), n_vocab=61)
    mixture = mixtures.open_mixture([folder], [1.0], verify=True)
    mixtures.check_compatible(mixture, tiny_config())
    (corpus,) = mixture.held_out
    assert (corpus is not None) == n
    if corpus:
      assert reader.n_eval_batches(corpus, 4, 24) == n
      batch = reader.eval_batch(corpus, 0, 4, 24)
      assert (batch['targets'] >= 0).sum() == len(held) - 1
      assert batch['inputs'][0, :len(held) - 1].tolist() == held[:-1]
      assert batch['targets'][0, :len(held) - 1].tolist() == held[1:]
