"""CORE: every answer against transformers, one example at a time; prompts, draws, and the figure."""

import json
import random
from types import SimpleNamespace

import core_bundle
import numpy as np
import pytest
from conftest import SHARED, mesh_of
from core_judge import CoreJudge, shown, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st
from task_judge import make
from torch_models import torch, transformers

import gptjax
from configs import gpt2_zero_shot
from gptjax.data.tokenizers import byte_bpe
from gptjax.evaluate.core import counterfactual, evaluation, prompts, summary, types
from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.run import evaluate
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.scoring.shared_prefix import Span
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.texts import sources

LIMIT = 12  # more than the examples in a prompt
PRESENT = [task for task in TABLE if (SHARED / 'core' / task.file).is_file()]


@pytest.fixture(scope='module', autouse=True)
def one_thread():
  """The models are so small that threads of PyTorch cost more than they save."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random GPT-2 with a small vocabulary and a context of 256: many prompts are cut."""
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  with mesh_of():
    return make(tmp_path_factory.mktemp('model'), SHARED)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A GPT-2 that has learned the facts of the invented bundle, in transformers."""
  folder, text = tmp_path_factory.mktemp('trained'), core_bundle.text()
  tokenizer = byte_bpe.train_bpe([text], 300)
  torch.manual_seed(0)
  model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
    n_layer=2, n_head=2, n_embd=64, n_positions=256, vocab_size=tokenizer.n_vocab, bos_token_id=None,
    eos_token_id=None, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
  facts, rng = text.strip().split('\n\n'), random.Random(0)
  optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
  for _ in range(120):
    rows = [[tokenizer.end_of_text, *tokenizer.encode('\n\n'.join(rng.sample(facts, len(facts))))]
            for _ in range(8)]
    batch = torch.tensor(np.array([row[:min(map(len, rows))] for row in rows]))
    optimizer.zero_grad()
    model(batch, labels=batch).loss.backward()
    optimizer.step()
  model.save_pretrained(folder / 'weights')
  with mesh_of():
    gptjax.save_pretrained(gptjax.load(folder / 'weights')[0], tokenizer, folder / 'made')
  return folder / 'made'


def run(folder, name, data, /, counterfactual=False, **axes):
  with mesh_of(**axes):
    model, tokenizer = gptjax.load(folder)
    evaluated = make_evaluated_model(model, tokenizer, 4, counterfactual=counterfactual)
    task = suite.ALL_TASKS[name]
    return task.evaluate(evaluated, task.read(data))


def correct(found, field='correct'):
  return [example[field] for example in found.examples]


@pytest.mark.first_cases(3)
@pytest.mark.parametrize('task', PRESENT, ids=[task.label for task in PRESENT])
def test_every_answer_is_that_of_transformers(folder, shared_data, task):
  found = run(folder, task.name, sources.DataOptions(str(shared_data), '', LIMIT))
  items = shuffled(map(json.loads, (shared_data / 'core' / task.file).read_text().splitlines()), LIMIT)
  wanted = CoreJudge(folder).answers(task.type, items, task.n_shots, task.delimiter)
  assert correct(found) == wanted
  assert found.metrics['accuracy'] == sum(wanted) / LIMIT
  base = task.baseline / 100
  assert found.metrics['centered'] == pytest.approx((sum(wanted) / LIMIT - base) / (1 - base))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('label', ['copa', 'core_winograd', 'lambada_openai', 'arc_easy'])
def test_a_trained_model_is_above_chance_and_its_control_is_not(trained, tmp_path, label):
  task, = (task for task in TABLE if task.name == label)
  data = sources.DataOptions(str(core_bundle.write(tmp_path)), '', 0)
  task_of_bundle, items = suite.ALL_TASKS[label].read(data)
  found = run(trained, label, data, counterfactual=True)
  judge, shots = CoreJudge(trained), min(task.n_shots, len(items) - 1)
  assert correct(found) == judge.answers(task.type, items, shots, ' ' if shots == 0 else task.delimiter)
  controls = counterfactual.corrupted(items, types.TYPES[task.type].read)
  assert correct(found, 'correct_counterfactual') == judge.answers(
    task.type, items, shots, task_of_bundle.delimiter, controls)
  if not shots:  # the delimiter of the other ones is not in the text that it has learned
    assert found.metrics['accuracy'] > 0.8
    assert found.metrics['accuracy_counterfactual'] < 0.6


def test_answers_do_not_depend_on_the_mesh(trained, tmp_path):
  data = sources.DataOptions(str(core_bundle.write(tmp_path)), '', 0)
  for label in ('openbook_qa', 'bigbench_operators'):
    one, many = run(trained, label, data), run(trained, label, data, data=2, fsdp=2, tensor=2)
    assert correct(one) == correct(many)


def test_prompts_have_the_examples_the_delimiter_and_empty_lines_between():
  first = {'query': 'Q1', 'choices': ['a', 'b'], 'gold': 1}
  second = {'query': 'Q2 ', 'choices': ['c', 'd'], 'gold': 0}
  assert prompts.multiple_choice(second, [first], '\nAnswer: ') == [
    'Q1\nAnswer: b\n\nQ2 \nAnswer: c', 'Q1\nAnswer: b\n\nQ2 \nAnswer: d']
  assert prompts.multiple_choice(second, [], ' ') == ['Q2  c', 'Q2  d']
  first = {'context_options': ['A', 'B'], 'continuation': 'x', 'gold': 0}
  assert prompts.schema({**first, 'continuation': 'y'}, [first], ' ') == ['A x\n\nA y', 'A x\n\nB y']
  first, second = {'context': ' C1\n', 'continuation': 'e'}, {'context': 'C2 ', 'continuation': 'f '}
  assert prompts.language_modelling(second, [first], ' ') == ['C1 e\n\nC2', 'C1 e\n\nC2 f ']
  assert prompts.language_modelling(second, [], '\nAnswer: ') == ['C2\nAnswer:', 'C2\nAnswer: f ']


@settings(deadline=None)
@given(st.integers(2, 200), st.data())
def test_examples_are_drawn_from_all_other_items_by_the_seed_of_the_item(n, data):
  i, shots = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
  items = list(range(n))
  assert prompts.draw_examples(items, i, shots) == shown(items, i, shots)
  assert prompts.draw_examples(items, i, n + 5) == prompts.draw_examples(items, i, n - 1)


@pytest.mark.parametrize('losses, index', [
  ([(2.0, 2), (0.5, 1)], 1), ([(1.0, 1), (2.0, 2)], 0),  # the mean; the first of equals
  ([(0.0, 0), (9.0, 1)], 0), ([(9.0, 1), (0.0, 0), (8.0, 1)], 2)])  # without tokens of its own
def test_the_lowest_mean_loss_is_the_answer(losses, index):
  spans = [Span(-loss, n, False) for loss, n in losses]
  means = [loss / n if n else float('nan') for loss, n in losses]
  assert types.answer(types.TYPES['multiple_choice'], spans) == means.index(min(means)) == index


@settings(deadline=None)
@given(st.lists(st.sampled_from(['a', 'b', 'c']), min_size=2, max_size=30))
def test_the_control_replaces_the_text_to_read_and_nothing_else(queries):
  items = [{'query': query, 'choices': ['x', 'y'], 'gold': i % 2} for i, query in enumerate(queries)]
  for item, control in zip(items, counterfactual.corrupted(items, 'query'), strict=True):
    assert (control['query'] != item['query'] and control['query'] in queries) or set(queries) == {
      item['query']}
    assert {**control, 'query': item['query']} == item


def test_of_boolq_only_the_passage_is_replaced():
  items = [{'query': f'Passage: {i}.\nQuestion: is it {i}?', 'choices': ['no', 'yes']} for i in range(3)]
  for i, control in enumerate(counterfactual.corrupted(items, 'query')):
    assert control['query'].endswith(f'\nQuestion: is it {i}?')
    assert not control['query'].startswith(f'Passage: {i}.')


@pytest.mark.parametrize('mark', ['.', '.)'])
def test_options_that_are_listed_in_the_query_stay(mark):
  tail = lambda i: f'A{mark} red {i}\nB{mark} blue {i}\nAnswer:'
  items = [{'query': f'Passage: {i}\nQuestion: which?\n{tail(i)}', 'choices': ['A', 'B']} for i in range(4)]
  for i, control in enumerate(counterfactual.corrupted(items, 'query')):
    assert control['query'].endswith(f'which?\n{tail(i)}')
    assert not control['query'].startswith(f'Passage: {i}')


@given(st.integers(2, 50), st.data())
def test_the_other_item_is_drawn_as_nanochat_draws_it(n, data):
  items, i = [{'context': f'{j}', 'continuation': 'x'} for j in range(n)], data.draw(st.integers(0, n - 1))
  drawn = random.Random(99 + i).choice([j for j in range(n) if j != i])
  assert counterfactual.corrupted(items, 'context')[i]['context'] == f'{drawn}'


def test_a_single_item_has_no_control():
  items = [{'context': 'a', 'continuation': 'b'}]
  assert counterfactual.corrupted(items, 'context') == items


class NoTokens:
  """A tokenizer for which all characters are unknown, and are left out."""
  start_of_text, text_prefix = None, ()

  def encode(self, text):
    return []


def test_a_task_with_a_prompt_without_tokens_is_not_run():
  evaluated = make_evaluated_model(SimpleNamespace(n_ctx=8, dtype='float32'), NoTokens(), 1)
  with pytest.raises(sources.NotRun, match='no tokens in this tokenizer'):
    types.make_requests(evaluated, types.TYPES['multiple_choice'], ['a', 'b'])


def test_a_continuation_without_tokens_is_not_correct():
  kind = types.TYPES['language_modeling']
  assert not types.answer(kind, [Span(0.0, 0, True)]) and types.answer(kind, [Span(-1.0, 1, True)])


def test_core_is_the_mean_of_all_22_tasks_and_has_another_name_without_some():
  results = {task.name: {'centered': i / 100, 'accuracy': 0.5} for i, task in enumerate(TABLE)}
  assert len(TABLE) == 22 and summary.summarize(results).metrics == {
    'core': pytest.approx(0.105), 'tasks_run': 22}
  assert summary.line({'core': 0.3, 'tasks_run': 22}, 0) == 'CORE 0.300000 (GPT-2 XL: 0.256525)'
  assert summary.line({'core': 0.3, 'tasks_run': 22}, 500).endswith(
    '; only the first 500 examples of each task')
  del results['core_coqa'], results['boolq']
  found = summary.summarize(results)
  assert found.metrics == {'mean_of_tasks_run': pytest.approx((2.31 - 0.19 - 0.2) / 20), 'tasks_run': 20}
  assert 'not CORE' in summary.line(found.metrics, 0) and 'without coqa, boolq' in found.protocol
  assert ['boolq', 'multiple_choice', 10, 62, 'not run', 'not run'] in found.rows
  assert summary.summarize({'lambada': {'accuracy': 1.0}}) is None


@pytest.mark.parametrize('label, accuracy, wanted', [
  ('boolq', 0.62, 0), ('boolq', 1, 1), ('copa', 0.25, -0.5)])
def test_accuracies_are_centred_by_the_baseline(label, accuracy, wanted):
  task, = (task for task in TABLE if task.label == label)
  assert evaluation.centered(accuracy, task.baseline) == pytest.approx(wanted)


def job(weights, data, **changes):
  config = gpt2_zero_shot.get_config()
  config.init_from = str(weights)
  config.eval.update(dict(tasks='core', data_dir=str(data), batch_size=8, **changes))
  return config


@pytest.mark.ci
def test_the_job_runs_all_of_core_and_resumes_after_the_last_answer(trained, tmp_path, capfd):
  data = core_bundle.write(tmp_path / 'data')
  assert evaluate(job(trained, data, counterfactual=True), tmp_path / 'run') == 0
  said = capfd.readouterr().out
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  metrics = results['tasks']['core']
  centred = [results['tasks'][task.name]['centered'] for task in TABLE]
  assert metrics['core'] == pytest.approx(np.mean(centred)) and metrics['tasks_run'] == 22
  assert f'CORE {metrics["core"]:.6f} (GPT-2 XL: 0.256525)' in said
  table = (tmp_path / 'run' / 'results.md').read_text()
  assert '| bigbench_dyck_languages | language_modeling | 10 | 0 |' in table
  lines = (tmp_path / 'run' / 'examples' / 'copa.jsonl').read_text().splitlines()
  assert [json.loads(line).keys() for line in lines] == [{'text', 'correct', 'correct_counterfactual'}] * 8
  # Killed during the last task: its journal has three answers, the results do not have it.
  journal = tmp_path / 'run' / 'answers' / 'copa.jsonl'
  answers = journal.read_text().splitlines(keepends=True)
  journal.write_text(''.join(answers[:3]))
  del results['tasks']['copa'], results['limits']['copa'], results['crc32']
  (tmp_path / 'run' / 'results.json').write_text(json.dumps(results))
  assert evaluate(job(trained, data, counterfactual=True), tmp_path / 'run') == 0
  assert 'copa: resuming after 3 answers' in capfd.readouterr().out
  again = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert again['tasks']['core'] == metrics and sorted(journal.read_text().splitlines(True)) == sorted(answers)


def test_without_the_data_of_some_tasks_there_is_no_core(trained, tmp_path, capfd):
  data = core_bundle.write(tmp_path / 'data', [task for task in TABLE if task.label in ('copa', 'winograd')])
  assert evaluate(job(trained, data), tmp_path / 'run') == 0
  results = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert results['tasks'].keys() == {'copa', 'core_winograd', 'core'} and len(results['not_run']) == 20
  assert results['tasks']['core'].keys() == {'mean_of_tasks_run', 'tasks_run'}
  said = capfd.readouterr().out
  assert 'centred accuracies of 2 of the 22 tasks of CORE' in said and 'not CORE' in said
  assert 'CORE 0' not in said
