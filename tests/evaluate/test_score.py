"""Scores of any text: those of transformers and a plain loop, whatever the batch, stride and mesh."""

import io
import json
import math
import sys

import hf_files
import jax
import numpy as np
import pytest
from conftest import mesh_of, tiny_config
from torch_models import logits_of, twin

import gptjax
from gptjax.command import run as commands
from gptjax.data.tokenizers import byte_bpe, characters, sentence_piece
from gptjax.errors import InputError
from gptjax.evaluate import score as score_module
from gptjax.model.gpt import GPT

N_VOCAB, CONTEXT = 264, 24
TEXTS = ['the blue stone never sings', 'a', '', 'rain ' * 14, 'über naïve 日', 'of rain and the blue stone']


def log_softmax(logits):
  logits = np.asarray(logits, np.float64)
  shifted = logits - logits.max(-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def by_hand(logits_of_row, ids, stride):
  """log p of ids[1:], one token at a time: the window that scores a token is found by a loop of its own."""
  found, end = [], 0
  for i in range(1, len(ids)):
    if i > end:  # the next window
      end = CONTEXT if end == 0 else min(end + stride, len(ids) - 1)
      begin = max(0, min(end, len(ids) - 1) - CONTEXT)
    found.append(log_softmax(logits_of_row(ids[begin:i]))[-1, ids[i]])
  return np.array(found)


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
  """(a GPT-2 of transformers, its folder with a byte-level BPE)."""
  model = twin('gpt2', vocab_size=N_VOCAB)
  folder = tmp_path_factory.mktemp('model') / 'gpt2'
  hf_files.write_folder(folder, n_vocab=N_VOCAB)
  model.save_pretrained(folder)
  return model, folder


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('stride', [None, 1, CONTEXT])
def test_log_probabilities_are_those_of_transformers(theirs, stride):
  theirs, folder = theirs
  model, tokenizer = gptjax.load(folder)
  found = gptjax.score(model, tokenizer, TEXTS, stride=stride)
  assert len(found) == len(TEXTS)
  for text, score in zip(TEXTS, found, strict=True):
    ids = [tokenizer.end_of_text, *tokenizer.encode(text).tolist()]
    want = by_hand(lambda row: logits_of(theirs, np.array([row], np.int32))[0], ids, stride or CONTEXT // 2)
    assert score.ids.tolist() == ids[1:] and score.log_probs.dtype == np.float32
    np.testing.assert_allclose(score.log_probs, want, atol=2e-4)
    assert (score.n_tokens, score.n_bytes) == (len(ids) - 1, len(text.encode()))
    if text:
      assert score.perplexity == pytest.approx(math.exp(-want.mean()), rel=1e-4)
      assert score.bits_per_byte == pytest.approx(-want.sum() / math.log(2) / len(text.encode()), rel=1e-4)
    else:
      assert score.log_prob == 0 and math.isnan(score.perplexity) and math.isnan(score.bits_per_byte)


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('batch_size, axes', [(1, {}), (7, {}), (None, dict(data=4, tensor=2))])
def test_scores_do_not_depend_on_the_batch_the_other_texts_or_the_mesh(batch_size, axes):
  tokenizer = byte_bpe.train_bpe([TEXTS[0]], N_VOCAB)
  config = tiny_config(**{'model.init_std': 0.3, 'model.n_vocab': N_VOCAB})
  def model():
    return jax.jit(lambda: GPT(jax.random.key(0), config))()
  with mesh_of():
    alone = [gptjax.score(model(), tokenizer, text, batch_size=2)[0] for text in TEXTS]
  with mesh_of(**axes):
    together = gptjax.score(model(), tokenizer, TEXTS, batch_size=batch_size)
  for one, other in zip(alone, together, strict=True):
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
  everything = score_module.combine(alone)
  assert everything.n_tokens == sum(score.n_tokens for score in alone)
  assert everything.log_prob == pytest.approx(sum(score.log_prob for score in alone))


def test_without_a_start_of_text_token_the_first_token_and_its_bytes_do_not_count():
  tokenizer = sentence_piece.train_sentencepiece([' '.join(TEXTS) + ' one two three'], 280)
  tokenizer.start_of_text = None
  config = tiny_config(**{'model.init_std': 0.3, 'model.n_vocab': 280})
  with mesh_of():
    model = jax.jit(lambda: GPT(jax.random.key(0), config))()
    [found] = gptjax.score(model, tokenizer, 'rain of the')
    ids = tokenizer.encode('rain of the')
    padded = np.resize(ids, (1, CONTEXT)).astype(np.int32)
    want = by_hand(lambda row: np.asarray(model(padded))[0, :len(row)], ids.tolist(), 12)
  assert math.isnan(found.log_probs[0]) and found.n_tokens == len(ids) - 1 == len(want)
  np.testing.assert_allclose(found.log_probs[1:], want, atol=1e-4)
  assert found.n_bytes == len(b'rain of the') - len(tokenizer.decode(ids[:1]).encode())


def test_a_special_token_counts_as_one_only_if_it_is_named(theirs):
  model, tokenizer = gptjax.load(theirs[1])
  plain, named = (gptjax.score(model, tokenizer, 'a<|endoftext|>b', special_tokens=names)[0]
                  for names in ((), ['all']))
  assert tokenizer.end_of_text in named.ids and tokenizer.end_of_text not in plain.ids
  assert named.n_tokens == 3 < plain.n_tokens


@pytest.mark.parametrize('options, says', [
  (dict(stride=0), 'stride = 0 must be'), (dict(stride=CONTEXT + 1), 'longer than the context of 24'),
  (dict(batch_size=0), 'batch_size = 0 must be'),
  (dict(texts=['ok', 'a\udcff']), 'text 2 is not valid Unicode'),
  (dict(special_tokens=['<x>']), "special token '<x>'"),
  (dict(tokenizer=None), 'has no tokenizer: copy tokenizer.json')])
def test_what_is_wrong_is_said_in_one_line(theirs, options, says):
  model, tokenizer = gptjax.load(theirs[1])
  with pytest.raises(InputError, match=says):
    gptjax.score(**{'model': model, 'tokenizer': tokenizer, 'texts': 'a', **options})


def test_unknown_characters_of_a_character_level_tokenizer_are_refused():
  tokenizer, config = characters.train_characters(['abc']), tiny_config(**{'model.n_vocab': 4})
  with mesh_of():
    model = jax.jit(lambda: GPT(jax.random.key(0), config))()
    assert gptjax.score(model, tokenizer, 'cab')[0].n_tokens == 3
    with pytest.raises(InputError, match=r"the text has 'x' \(U\+0078\)"):
      gptjax.score(model, tokenizer, 'ax')


def command(monkeypatch, capsys, *flags):
  monkeypatch.setattr(sys, 'argv', ['score', *map(str, flags), '--compilation_cache='])
  try:
    code = commands.run(score_module.main, 'score')
  except SystemExit as end:
    code = end.code
  said = capsys.readouterr()
  return code, said.out, said.err


def test_the_command_writes_json_lines_or_a_table(theirs, tmp_path, monkeypatch, capsys):
  model, tokenizer = gptjax.load(theirs[1])
  (tmp_path / 'a.txt').write_text(TEXTS[0] + '\n\n' + TEXTS[4])
  whole, line = gptjax.score(model, tokenizer, [TEXTS[0] + '\n\n' + TEXTS[4], TEXTS[4]])
  code, out, _ = command(monkeypatch, capsys, '--from', theirs[1], '--format=json', tmp_path / 'a.txt')
  assert not code
  [row] = map(json.loads, out.splitlines())
  assert row['name'] == str(tmp_path / 'a.txt')
  assert {name: row[name] for name in ('n_tokens', 'n_bytes')} == {
    'n_tokens': whole.n_tokens, 'n_bytes': whole.n_bytes}
  assert row['bits_per_byte'] == pytest.approx(whole.bits_per_byte, rel=1e-4)
  assert [token['id'] for token in row['tokens']] == whole.ids.tolist()
  np.testing.assert_allclose([token['log_prob'] for token in row['tokens']], whole.log_probs, atol=1e-4)
  code, out, _ = command(monkeypatch, capsys, '--from', theirs[1], '--lines', '--text=a', tmp_path / 'a.txt')
  head, *rows = out.splitlines()
  assert not code and head.split() == ['text', 'tokens', 'bytes', 'log', 'prob', 'perplexity', 'bits/byte']
  file = f'{tmp_path}/a.txt'
  assert [row.split('  ')[0] for row in rows] == ['text 1', f'{file}:1', f'{file}:3', 'all']
  assert rows[2].split()[-1] == f'{line.bits_per_byte:.4f}' and len(set(map(len, rows))) == 1
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(TEXTS[4].encode())))
  code, out, _ = command(monkeypatch, capsys, '--from', theirs[1], '-')
  assert not code and out.split('\n')[1].split()[0] == '-'
  assert out.split()[-1] == f'{line.bits_per_byte:.4f}'


@pytest.mark.parametrize('flags, says', [
  ([], 'there is no text to score'), (['{tmp}/absent.txt'], 'absent.txt: No such file'),
  (['{tmp}/half.txt'], 'half.txt: not UTF-8 text'), (['--stride=0', '--text=a'], 'stride'),
  (['--strides=3'], '--strides is not a flag: did you mean --stride?')])
def test_the_command_says_what_is_wrong(theirs, tmp_path, monkeypatch, capsys, flags, says):
  (tmp_path / 'half.txt').write_bytes(b'a\xff')
  flags = [flag.format(tmp=tmp_path) for flag in flags]
  code, out, err = command(monkeypatch, capsys, '--from', theirs[1], *flags)
  assert code == 2 and not out and err.count('\n') == 1 and says in err


def test_lines_are_split_at_line_feeds_alone_and_a_byte_order_mark_is_no_text(tmp_path):
  (tmp_path / 'a').write_bytes('\ufeffone\x0ctwo\u2028three\r\n\nfour\n'.encode())
  texts = score_module.read_texts([tmp_path / 'a'], True)
  assert [text for _, text in texts] == ['one\x0ctwo\u2028three', 'four']
  assert [name.rpartition(':')[2] for name, _ in texts] == ['1', '3']
