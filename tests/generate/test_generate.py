"""Texts from a model: the tokens of transformers, the exact distribution, the same whatever the batch is."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of
from scipy import stats
from torch_models import torch, twin

import gptjax
from gptjax.data.tokenizers import byte_bpe
from gptjax.generate import __main__ as generate_command
from gptjax.generate import generation, kv_cache
from gptjax.generate.sampling import SamplingOptions
from gptjax.generate.streaming import GeneratedText

WORDS = 'the blue stone never sings of rain, naïve trees 🙂 walk under it'
GREEDY = SamplingOptions(None, None, None, 300)
PROMPTS = ['the blue stone', 'a', 'rain never walks under the trees, naïve as it is']


@pytest.fixture(scope='module', autouse=True)
def one_thread():
  """PyTorch's threads wait for each other longer than such small models take, where cores are shared."""
  before = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(before)


@pytest.fixture(scope='module')
def tokenizer():
  return byte_bpe.train_bpe([WORDS], 300)


@pytest.fixture(scope='module')
def folder(tokenizer, tmp_path_factory):
  """A GPT-2 of 40 positions with its tokenizer, as transformers has it."""
  where = tmp_path_factory.mktemp('model')
  twin('gpt2', n_layer=1, n_positions=40, vocab_size=300).save_pretrained(where / 'weights')
  with mesh_of():
    gptjax.save_pretrained(gptjax.load(where / 'weights')[0], tokenizer, where / 'made')
  return where / 'made'


@pytest.fixture(scope='module')
def model(folder):
  with mesh_of():
    return kv_cache.prepare_for_decoding(gptjax.load(folder)[0])


def sample(model, tokenizer, **options):
  with mesh_of():
    return generation.sample((model, tokenizer), **options)


def ids_of(model, tokenizer, prompts, choice, max_tokens, *, samples=1, on_full='stop', batch_size=64):
  """Tokens written after prompts (lists of tokens)."""
  made = [GeneratedText(tokenizer, ids, i, max_tokens, []) for ids in prompts for i in range(samples)]
  with mesh_of():
    generation.generate_texts(model, tokenizer, made, choice, 0, on_full, batch_size, None)
  return [text.ids[len(ids):] for text, ids in zip(made, [ids for ids in prompts for _ in range(samples)])]


@pytest.mark.ci
@pytest.mark.parametrize('kind, each, n', [('gpt2', 5, 200), ('openai-gpt', 1, 40)])
def test_greedy_tokens_are_those_of_transformers(kind, each, n, tmp_path):
  """After prompts of four lengths, in one batch here; transformers has no cache for GPT-1."""
  theirs = twin(kind, n_positions=256, vocab_size=300, tie_word_embeddings=False)
  with torch.no_grad():
    theirs.lm_head.weight.mul_(400)  # so that no two logits are near each other
    next(weight for weight in theirs.parameters() if len(weight) == 256).mul_(8)  # or a text is soon a circle
  theirs.save_pretrained(tmp_path)
  rng, prompts, wanted = np.random.default_rng(0), [], []
  for length in (1, 5, 16, 50):
    some = rng.integers(0, 300, (each, length))
    found = theirs.generate(torch.tensor(some), do_sample=False, max_new_tokens=n, pad_token_id=0,
                            attention_mask=torch.ones(some.shape), output_scores=True,
                            return_dict_in_generate=True)
    best = torch.stack(found.scores).topk(2).values
    assert (best[..., 0] - best[..., 1]).min() > 1e-3
    prompts += some.tolist()
    wanted += found.sequences[:, length:].tolist()
  assert np.mean([len(set(tokens)) for tokens in wanted]) > 10
  with mesh_of():
    ours = kv_cache.prepare_for_decoding(gptjax.load(tmp_path)[0])
  plain = byte_bpe.train_bpe([WORDS], 300)
  plain.eos_ids = ()  # transformers is not to end there either
  assert ids_of(ours, plain, prompts, GREEDY, n) == wanted


@pytest.mark.parametrize('temperature, top_k, top_p', [(1.5, None, None), (0.8, 12, None), (1.0, None, 0.7)])
def test_the_first_token_has_the_exact_distribution(model, tokenizer, temperature, top_k, top_p):
  from generate.test_sampling import exact
  prompt, n = tokenizer.encode(PROMPTS[0]).tolist(), 2000
  choice = SamplingOptions(temperature, top_k, top_p, 300)
  tokens = ids_of(model, tokenizer, [prompt], choice, 1, samples=n, batch_size=n)
  with mesh_of():
    logits = np.asarray(model(np.array([prompt], np.int32)))[0, -1]
  wanted = exact(logits, temperature, top_k, top_p) * n
  counts = np.bincount([ids[0] if ids else tokenizer.end_of_text for ids in tokens], minlength=300)
  assert not counts[wanted == 0].any()
  common = wanted >= 5
  seen, wanted = (np.append(x[common], x[~common].sum()) for x in (counts, wanted))
  assert stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue > 1e-3


@pytest.mark.ci
def test_a_text_is_the_same_whatever_is_written_beside_it(model, tokenizer):
  options = dict(max_tokens=30, seed=7, temperature=0.9, top_k=50)
  together = sample(model, tokenizer, prompt=PROMPTS, num_samples=3, **options)
  assert len(set(together)) == 9
  for i, prompt in enumerate(PROMPTS):
    assert sample(model, tokenizer, prompt=prompt, num_samples=2, **options) == together[3 * i:3 * i + 2]
  assert sample(model, tokenizer, prompt=PROMPTS[::-1], batch_size=2, **options) == together[::3][::-1]
  assert sample(model, tokenizer, prompt=PROMPTS, **{**options, 'seed': 8}) != together[::3]


def traces(job):
  """How many functions JAX traces while a job runs: what is compiled is traced before."""
  seen = []
  def hear(event, duration, **facts):
    del duration, facts
    seen.append(event)
  jax.monitoring.register_event_duration_secs_listener(hear)
  try:
    job()
  finally:
    jax.monitoring.unregister_event_duration_listener(hear)
  return sum('trace' in event or 'compile' in event for event in seen)


def test_a_bucket_is_compiled_once_and_not_once_a_prompt(model, tokenizer):
  def job(prompts, **options):
    return lambda: sample(model, tokenizer, prompt=prompts, **options)
  first = dict(max_tokens=25, temperature=0.7, top_k=9, top_p=0.9)
  assert traces(job(['never sings', 'stone', 'x'], **first)) > 0
  assert traces(job(['blue', 'of rain', 'walk', 'tree'], max_tokens=20, temperature=1.1, top_k=3, top_p=0.5,
                    seed=5, stop='q')) == 0
  assert traces(job(['blue'] * 5, **first)) > 0


def test_a_text_ends_at_the_first_of_several_ends(model):
  tokenizer = byte_bpe.train_bpe([WORDS], 300)
  prompts = [tokenizer.encode(prompt).tolist() for prompt in PROMPTS[:3]]
  tokenizer.eos_ids = ()
  endless = ids_of(model, tokenizer, prompts, SamplingOptions(1.0, None, None, 300), 20)
  tokenizer.eos_ids = (endless[0][5], endless[1][12])
  first = lambda ids: next((i for i, token in enumerate(ids) if token in tokenizer.eos_ids), len(ids))
  ended = ids_of(model, tokenizer, prompts, SamplingOptions(1.0, None, None, 300), 20)
  assert ended == [ids[:first(ids)] for ids in endless] and len(ended[0]) <= 5


@pytest.mark.ci
def test_a_full_context_ends_a_text_or_its_last_half_is_read_again(model, tokenizer):
  prompt = tokenizer.encode(PROMPTS[0]).tolist()
  tokenizer = byte_bpe.train_bpe([WORDS], 300)
  tokenizer.eos_ids = ()
  for choice in (GREEDY, SamplingOptions(1.0, 20, None, 300)):
    stopped, = ids_of(model, tokenizer, [prompt], choice, 100)
    assert len(prompt + stopped) == 41  # what is drawn last need not be read
    slid, _ = ids_of(model, tokenizer, [prompt, prompt * 2], choice, 100, on_full='slide')
    assert len(slid) == 100 and slid[:len(stopped)] == stopped
  stopped, = ids_of(model, tokenizer, [prompt], GREEDY, 100)
  slid, = ids_of(model, tokenizer, [prompt], GREEDY, 100, on_full='slide')
  again, = ids_of(model, tokenizer, [(prompt + stopped)[-20:]], GREEDY, 15)
  assert slid[len(stopped):len(stopped) + 15] == again
  full, over = prompt + stopped[:-1], ids_of(model, tokenizer, [(prompt + stopped)[:40]], GREEDY, 3)
  assert len(full) == 40 and over == [stopped[-1:]]


def test_one_text_comes_token_by_token_and_several_are_the_same(model, tokenizer):
  options = dict(prompt=PROMPTS[2], max_tokens=30, temperature=1.5, seed=3)
  heard, whole = [], sample(model, tokenizer, **options)[0]
  found = sample(model, tokenizer, **options, listen=lambda *event: heard.append(event))
  assert found == [whole] == [''.join(piece for _, piece, _ in heard)]
  assert len(heard) > 15
  assert [ended for *_, ended in heard][:-1] == [''] * (len(heard) - 1) and heard[-1][2]
  stop = whole[9:12]
  cut = sample(model, tokenizer, **options, stop=['never there', stop])[0]
  assert cut == whole[:whole.index(stop)]
  assert sample(model, tokenizer, **options, stop=stop, listen=lambda *_: None)[0] == cut


def test_without_a_prompt_a_text_begins_after_the_end_of_text_from_the_40_likeliest(model, tokenizer):
  ids, = ids_of(model, tokenizer, [[tokenizer.end_of_text]], SamplingOptions(1.0, 40, None, 300), 20)
  assert sample(model, tokenizer, max_tokens=20) == [tokenizer.decode(ids).rstrip('\ufffd')]
  every, = ids_of(model, tokenizer, [[tokenizer.end_of_text]], SamplingOptions(1.0, None, None, 300), 20)
  assert sample(model, tokenizer, max_tokens=20, top_k=0) == [tokenizer.decode(every).rstrip('\ufffd')]


def test_what_the_tokenizer_does_not_have_is_never_drawn(model):
  small = byte_bpe.train_bpe([WORDS], 258)
  assert sample(model, small, prompt='a', max_tokens=40, temperature=50.0, num_samples=4)


BAD = [
  (dict(prompt=''), 'a prompt is empty'), (dict(prompt=['a', '']), 'a prompt is empty'),
  (dict(prompt='the blue stone ' * 20), 'tokens is longer than the context of 40'),
  (dict(prompt='a', top_p=0.0), r'top_p = 0.0 must be'),
  (dict(prompt='a', top_p=1.5), r'top_p = 1.5'), (dict(prompt='a', top_p=float('nan')), 'top_p = nan'),
  (dict(prompt='a', temperature=-1.0), r'temperature = -1.0 must be a number in .*, or 0'),
  (dict(prompt='a', temperature=float('nan')), 'temperature = nan'),
  (dict(prompt='a', temperature=float('inf')), 'temperature = inf'),
  (dict(prompt='a', top_k=-1), 'top_k = -1'), (dict(prompt='a', num_samples=0), 'num_samples = 0'),
  (dict(prompt='a', max_tokens=0), 'max_tokens = 0'), (dict(prompt='a', batch_size=0), 'batch_size = 0'),
  (dict(prompt='a', seed=-1), 'seed = -1'), (dict(prompt='a', seed=2**32), 'seed = 4294967296'),
  (dict(prompt='a', stop=['']), 'a stop string is empty'),
  (dict(prompt='a', on_full='roll'), "on_full = 'roll'"),
  (dict(prompt='a', weight_dtype='int4'), "weight_dtype = 'int4' is not int8"),
  (dict(prompt_file='/nowhere/prompt.txt'), '/nowhere/prompt.txt: No such file')]


@pytest.mark.parametrize('options, says', BAD)
def test_a_bad_option_is_refused_in_one_line(model, tokenizer, options, says):
  with pytest.raises(ValueError, match=says) as error:
    sample(model, tokenizer, **options)
  assert '\n' not in str(error.value)


def test_a_damaged_model_and_a_missing_tokenizer_are_told(model, tokenizer):
  with pytest.raises(ValueError, match='the folder of the weights has no tokenizer: copy tokenizer'):
    sample(model, None, prompt='a')
  endless = byte_bpe.train_bpe([WORDS], 300)
  endless.start_of_text = None
  with pytest.raises(ValueError, match='no start-of-text token to start with'):
    sample(model, endless)
  damaged = jax.tree.map(lambda x: x * np.nan, model)
  with pytest.raises(ValueError, match='logits of the model are NaN'):
    sample(damaged, tokenizer, prompt='a')


def run(folder, *flags):
  return subprocess.run([sys.executable, '-m', 'gptjax.generate', f'--from={folder}', *flags], cwd=ROOT,
                        capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


@pytest.mark.ci
@pytest.mark.parametrize('locale', [
  {'PYTHONIOENCODING': 'ascii'}, {'PYTHONUTF8': '0', 'LC_ALL': 'C', 'PYTHONCOERCECLOCALE': '0'}])
def test_all_samples_are_printed_where_stdout_is_not_utf_8(folder, model, tokenizer, tmp_path, locale):
  (tmp_path / 'prompt').write_text('the \xfc \u65e5 blue', encoding='utf-8')
  done = subprocess.run(
    [sys.executable, '-m', 'gptjax.generate', f'--from={folder}', f'--prompt_file={tmp_path}/prompt',
     '--num_samples=3', '--max_tokens=8', '--temperature=5'], cwd=ROOT, capture_output=True,
    env={**ENVIRONMENT, **locale}, timeout=120)
  assert done.returncode == 0 and b'Error' not in done.stderr, done.stderr
  written = sample(model, tokenizer, prompt_file=tmp_path / 'prompt', num_samples=3, max_tokens=8,
                   temperature=5.0)
  said = done.stdout.decode('ascii')
  assert said.count('=== prompt 1, sample') == 3
  for text in written:
    assert f'the \\xfc \\u65e5 blue{text}'.encode('ascii', 'backslashreplace').decode() in said


def test_a_batch_that_no_memory_holds_is_refused(model, tokenizer, monkeypatch):
  monkeypatch.setattr(generation.cpu, 'memory', lambda: 1000)
  with pytest.raises(ValueError, match=r'batch_size = 4: 4 texts of up to 9 tokens need [\d,]+ bytes'):
    sample(model, tokenizer, prompt='a', num_samples=9, max_tokens=8, batch_size=4)


@pytest.mark.ci
def test_the_command_prints_the_prompt_and_what_follows(folder, model, tokenizer, tmp_path, capsys):
  done = run(folder, '--prompt=the blue', '--max_tokens=12', '--seed=4', '--temperature=0.8')
  assert not done.stderr and done.returncode == 0
  text, = sample(model, tokenizer, prompt='the blue', max_tokens=12, seed=4, temperature=0.8)
  assert done.stdout == f'the blue{text}\n'
  (tmp_path / 'prompt').write_text('of rain')
  with mesh_of():
    generate_command.main([f'--from={folder}', '--prompt=the blue', f'--prompt_file={tmp_path}/prompt',
                   '--num_samples=2'])
  said = capsys.readouterr()
  assert 'use --on_full=slide' in said.err
  for title in ('=== prompt 1, sample 1 ===\nthe blue', '=== prompt 2, sample 2 ===\nof rain'):
    assert title in said.out


@pytest.mark.ci
def test_the_command_does_without_a_cache_of_others(folder, tmp_path, monkeypatch):
  cache = tmp_path / 'compiled'
  cache.mkdir()
  cache.chmod(0o777)
  monkeypatch.setitem(ENVIRONMENT, 'JAX_COMPILATION_CACHE_DIR', str(cache))
  done = run(folder, '--prompt=the')
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  assert 'can be written by others' in done.stderr and '--compilation_cache=' in done.stderr
  assert run(folder, '--prompt=the', '--max_tokens=2', '--compilation_cache=').returncode == 0
  assert not list(cache.iterdir())


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('flags, says', [
  (['--prompt=a', '--top_p=0'], 'generate: argument --top_p: 0 must be'),
  (['--promt=a'], 'generate: --promt is not a flag: did you mean --prompt?')])
def test_the_command_says_what_is_wrong_in_one_line(flags, says):
  done = run('/nowhere', *flags)
  assert done.returncode == 2 and done.stderr.startswith(says) and done.stderr.count('\n') == 1
