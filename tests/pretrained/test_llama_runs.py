"""A folder of a Llama is trained on, written from, scored and fine-tuned like any other model."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of, slow_except, tiny_config
from hf_tokenizers import N_VOCAB, write
from prepared import WORDS, make_texts, run, write_jsonl
from safetensors.numpy import load_file
from torch_models import logits_of, opened, tokens_for, torch, transformers, twin

import gptjax
from gptjax.evaluate import score
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model, make_request
from gptjax.generate import generation
from gptjax.pretrain.loop import pretrain

KINDS = {'llama': 'llama3', 'qwen3': 'qwen3'}


def made(kind, folder):
  twin(kind, vocab_size=N_VOCAB + 4, max_position_embeddings=64).save_pretrained(folder)
  return write(KINDS[kind], folder)


@pytest.fixture(scope='module', params=slow_except(KINDS, 'llama'))
def folder(request, tmp_path_factory):
  """A folder as transformers has it, whose embedding has four rows more than its tokenizer."""
  return made(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='module')
def corpus(folder, tmp_path_factory):
  where = tmp_path_factory.mktemp('corpus')
  run(write_jsonl(where / 'texts.jsonl', make_texts(60)), where / 'corpus', str(folder), seq_len=16)
  return where / 'corpus'


def trained(folder, corpus, workdir, overrides=(), **changes):
  config = tiny_config(**{
    'data.corpus': str(corpus), 'data.seq_len': 16, 'train.batch_size': 8, 'train.steps': 4,
    'model.pad_vocab_to': 128, 'eval.every_steps': 0, 'eval.steps': 1, 'checkpoint.export': True,
    'log.tensorboard': False, **changes})
  config.init_from = str(folder)
  assert pretrain(config, workdir, overrides) == 0
  return workdir / 'export'


@pytest.mark.ci
def test_a_run_from_it_begins_with_its_weights_and_its_export_opens_in_transformers(folder, corpus, tmp_path):
  frozen = trained(folder, corpus, tmp_path / 'frozen', **{'optimizer.learning_rate': 0.0})
  before, after = (load_file(path / 'model.safetensors') for path in (folder, frozen))
  assert before.keys() == after.keys()
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value[:N_VOCAB] if len(value) == N_VOCAB + 4 else value)

  export = trained(folder, corpus, tmp_path / 'run')
  theirs = opened(export)
  assert type(theirs) is type(opened(folder)) and theirs.config.max_position_embeddings == 64
  tokens = tokens_for(theirs)
  with mesh_of():
    ours, tokenizer = gptjax.load(tmp_path / 'run')
    np.testing.assert_allclose(ours(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
    again, _ = gptjax.load(export)
  for mine, its in zip(jax.tree.leaves(ours), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(mine, its)
  assert not np.array_equal(load_file(export / 'model.safetensors')['model.norm.weight'],
                            before['model.norm.weight'])
  of_export, of_folder = map(transformers.AutoTokenizer.from_pretrained, (export, folder))
  text = 'the river walks, 12 stones don\'t'
  assert of_export(text).input_ids == of_folder(text).input_ids
  assert theirs.config.bos_token_id == of_folder.bos_token_id or of_folder.bos_token_id is None
  assert theirs.config.eos_token_id == tokenizer.end_of_text == of_folder.eos_token_id


@pytest.mark.slow
def test_a_run_may_have_another_context_than_the_weights(folder, corpus, tmp_path):
  export = trained(folder, corpus, tmp_path, ['model.n_ctx'], **{'model.n_ctx': 20})
  assert opened(export).config.max_position_embeddings == 20
  assert json.loads((tmp_path / 'config.json').read_text())['config']['model']['n_ctx'] == 20


def test_greedy_text_after_a_prompt_is_that_of_transformers(folder):
  theirs, tokenizer = opened(folder), transformers.AutoTokenizer.from_pretrained(folder)
  prompts = ['the river', 'a yellow stone walks 12']
  with mesh_of():
    ours = gptjax.load(folder)
    found = generation.sample(ours, prompt=prompts, max_tokens=12, temperature=0)
  for prompt, text in zip(prompts, found):
    given = tokenizer(prompt, return_tensors='pt')
    whole = theirs.generate(**given, max_new_tokens=12, do_sample=False, pad_token_id=0,
                            suppress_tokens=list(range(N_VOCAB, N_VOCAB + 4)))
    want = tokenizer.decode(whole[0, given.input_ids.shape[1]:], skip_special_tokens=True)
    assert text.removesuffix('\ufffd') == want.removesuffix('\ufffd')


def log_probs(theirs, ids):
  """float[n - 1]: log probability of each token after the first, of the entries of the tokenizer."""
  with torch.no_grad():
    logits = theirs(torch.tensor([ids])).logits[0, :-1, :N_VOCAB].log_softmax(-1)
  return logits[np.arange(len(ids) - 1), ids[1:]].numpy()


def test_texts_are_scored_after_the_first_token_of_the_tokenizer(folder):
  theirs, tokenizer = opened(folder), transformers.AutoTokenizer.from_pretrained(folder)
  first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
  text = ' '.join(WORDS)
  plain = tokenizer(text, add_special_tokens=False).input_ids
  with mesh_of():
    ours, own = gptjax.load(folder)
    scored, = score.score(ours, own, [text])
    evaluated = make_evaluated_model(ours, own, 2)
    alone, after = (make_request(evaluated, *pair) for pair in (('', text), ('the river', ' walks')))
  np.testing.assert_allclose(scored.log_probs, log_probs(theirs, [first, *plain]), atol=1e-4)
  assert alone.ids.tolist() == [first, *plain] and alone.start == 1
  assert after.ids.tolist() == tokenizer('the river walks').input_ids
  assert after.start == len(tokenizer('the river').input_ids)


@pytest.mark.parametrize('rate, says', [
  (0.1, 'config.model.dropout = 0.1: --config.model.dropout=0\n'), (0.0, '')])
def test_dropout_that_the_weights_have_not_seen_is_reported(folder, rate, says, capsys):
  source = gptjax.pretrained.open_source(folder)
  gptjax.pretrained.layout.report_dropout(source, rate)
  assert capsys.readouterr().err.endswith(says) and source.fields['dropout'] == 0


@pytest.mark.slow
def test_it_is_fine_tuned_on_labelled_texts(tmp_path):
  folder = made('llama', tmp_path / 'model')
  for name in ('train', 'dev', 'test'):
    lines = [f'{"the river" if i % 2 else "a stone"} {i}\t{("bad", "good")[i % 2]}' for i in range(16)]
    (tmp_path / f'{name}.tsv').write_text('\n'.join(['text\tlabel', *lines]) + '\n')
  flags = {'init_from': folder, 'finetune.data_dir': tmp_path, 'train.epochs': 20.0, 'train.batch_size': 8,
           'optimizer.learning_rate': 0.01, 'eval.every_steps': 0, 'checkpoint.every_steps': 0,
           'log.tensorboard': False, 'finetune.train': 'lora', 'finetune.lora_rank': 4}
  done = subprocess.run(
    [sys.executable, '-m', 'gptjax.main', '--config=configs/gpt1_finetune.py:reviews',
     f'--workdir={tmp_path}/run', *(f'--config.{name}={value}' for name, value in flags.items())],
    cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert json.loads((tmp_path / 'run' / 'results.json').read_text())['tasks']['reviews']['accuracy'] == 1
