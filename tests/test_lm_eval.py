"""The harness's own Hugging Face model is the judge: the same weights, tasks that a test writes."""

import json
import subprocess
import sys
from types import SimpleNamespace

import hf_tokenizers
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of
from torch_models import twin

import gptjax
from gptjax.data.tokenizers import byte_bpe

lm_eval = pytest.importorskip('lm_eval', reason="needs lm-evaluation-harness: pip install 'gptjax[lm-eval]'")
huggingface = pytest.importorskip('lm_eval.models.huggingface', reason='needs accelerate (pip install it)')

WORDS = 'the blue stone never sings of rain, and trees walk under it while the rain sings of a stone'
CHOICE = """
task: which_word
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITING = """
task: go_on
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{choices[0]}}}}"
generation_kwargs: {{until: ["e", "st"], max_gen_toks: 9}}
metric_list: [{{metric: exact_match}}]
"""
READING = """
task: documents
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of transformers with a tokenizer, made by gptjax."""
  where = tmp_path_factory.mktemp('model')
  twin('gpt2', n_layer=1, vocab_size=300).save_pretrained(where / 'weights')
  with mesh_of():
    model, _ = gptjax.load(where / 'weights')
    gptjax.save_pretrained(model, byte_bpe.train_bpe([WORDS], 300), where / 'made')
  return where / 'made'


@pytest.fixture(scope='module')
def models(folder):
  from gptjax.lm_eval import HarnessModel
  with mesh_of():
    ours = HarnessModel(str(folder), batch_size=4)
  return ours, huggingface.HFLM(str(folder), device='cpu', dtype='float32', batch_size=4)


@pytest.fixture(scope='module')
def tasks(tmp_path_factory):
  where = tmp_path_factory.mktemp('tasks')
  words, rng = WORDS.split(), np.random.default_rng(0)
  some = lambda n: ' '.join(rng.choice(words, n))
  # The longest are longer than the context of 24 tokens.
  docs = [{'text': some(n), 'choices': [' ' + some(m) for m in (1, 3, 5)], 'label': n % 3}
          for n in (1, 2, 3, 5, 8, 13, 21, 34)]
  (where / 'docs.jsonl').write_text(''.join(json.dumps(doc) + '\n' for doc in docs))
  for name, text in (('choice', CHOICE), ('writing', WRITING), ('reading', READING)):
    (where / f'{name}.yaml').write_text(text.format(data=where / 'docs.jsonl', cache=where / 'cache'))
  return where


def evaluated(model, tasks, name):
  """(metrics, [[answers of the model] of each document])."""
  from lm_eval.tasks import TaskManager
  found = lm_eval.simple_evaluate(model, tasks=[name], bootstrap_iters=0, log_samples=True,
                                  task_manager=TaskManager(include_path=str(tasks), include_defaults=False))
  samples = sorted(found['samples'][name], key=lambda sample: sample['doc_id'])
  return found['results'][name], [sample['filtered_resps'] for sample in samples]


@pytest.fixture(scope='module')
def llamas(tmp_path_factory):
  """The same two for a Llama, whose tokenizer puts a begin-of-text token before each text."""
  from gptjax.lm_eval import HarnessModel
  where = tmp_path_factory.mktemp('llama')
  twin('llama', vocab_size=hf_tokenizers.N_VOCAB).save_pretrained(where)
  hf_tokenizers.write('llama3', where)
  with mesh_of():
    ours = HarnessModel(str(where), batch_size=4)
  return ours, huggingface.HFLM(str(where), device='cpu', dtype='float32', batch_size=4)


@pytest.mark.first_cases(2)
@pytest.mark.parametrize('name', ['which_word', 'documents', 'go_on'])
@pytest.mark.parametrize('kind', ['models', 'llamas'])
def test_a_task_gives_what_it_gives_for_the_harness_own_model(request, kind, tasks, name):
  models = request.getfixturevalue(kind)
  with mesh_of():
    ours, mine = evaluated(models[0], tasks, name)
  theirs, its = evaluated(models[1], tasks, name)
  assert ours.keys() == theirs.keys()
  for metric, value in theirs.items():
    assert ours[metric] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), metric
  assert len(mine) == len(its) == 8
  if name == 'go_on':
    # Half a character at the very end is U+FFFD there and nothing here.
    assert mine == [[text.rstrip('\ufffd') for text in texts] for texts in its]
    assert len({text for texts in mine for text in texts}) > 3
  else:
    flat = lambda answers: np.array([np.ravel(answer) for answer in answers], float)
    np.testing.assert_allclose(flat(mine), flat(its), atol=1e-3)


def requests(*arguments):
  return [SimpleNamespace(args=one) for one in arguments]


def test_scores_and_greediness_request_by_request(models):
  asked = requests(('the blue', ' stone'), ('', 'rain'), (WORDS * 2, ' it'), ('trees ', 'walk'),
                   ('a', WORDS[:30]))
  best = models[1].tok_decode([int(models[1]._model_call(
    models[1].tok_batch_encode(['the blue'])[0])[0, -1, :300].argmax())])
  asked += requests(('the blue', best))
  with mesh_of():
    mine = models[0].loglikelihood(asked, disable_tqdm=True)
  its = models[1].loglikelihood(asked, disable_tqdm=True)
  np.testing.assert_allclose([value for value, _ in mine], [value for value, _ in its], atol=1e-4)
  assert [bool(greedy) for _, greedy in mine] == [bool(greedy) for _, greedy in its]


END = byte_bpe.END_OF_TEXT


def test_special_tokens_are_text_and_with_the_option_what_they_are_to_the_harness(models, folder):
  from gptjax.lm_eval import HarnessModel
  with mesh_of():
    reads = HarnessModel(str(folder), batch_size=4, special_tokens='all')
  asked = requests((f'the blue{END}', ' stone'), ('the', f' rain{END}trees'))
  documents = requests((f'the blue stone{END}trees walk',))
  its = models[1].loglikelihood(asked, disable_tqdm=True)
  whole = models[1].loglikelihood_rolling(documents, disable_tqdm=True)
  for model, same in ((reads, True), (models[0], False)):
    with mesh_of():
      mine = model.loglikelihood(asked, disable_tqdm=True)
      read = model.loglikelihood_rolling(documents, disable_tqdm=True)
    assert np.allclose([value for value, _ in mine], [value for value, _ in its], atol=1e-4) == same
    assert np.allclose(read, whole, atol=1e-4) == same


def test_an_empty_continuation_is_named(models):
  with mesh_of(), pytest.raises(ValueError, match="continuation '' of the request 'the blue' has 0 tokens"):
    models[0].loglikelihood(requests(('a', ' stone'), ('the blue', '')), disable_tqdm=True)


@pytest.mark.parametrize('options, says', [
  ({'num_beams': 4}, 'generation_kwargs num_beams of a task'), ({'max_gen_toks': 24}, 'leaves no room'),
  ({'do_sample': True, 'temperature': -1.0, 'max_gen_toks': 3}, 'temperature of a task: -1.0')])
def test_what_cannot_be_had_is_refused_by_name(models, options, says):
  with pytest.raises(ValueError, match=says):
    models[0].generate_until(requests(('the', options)))


def test_draws_are_those_of_sample(models, folder):
  from gptjax.generate import generation
  with mesh_of():
    options = {'temperature': 0.8, 'max_gen_toks': 12, 'until': 'q'}
    drawn = models[0].generate_until(requests(('the', options)))
    assert drawn == generation.sample(str(folder), prompt='the', temperature=0.8, max_tokens=12, stop='q')


@pytest.mark.ci
def test_gptjax_itself_does_not_import_the_harness():
  code = ('import sys, gptjax, gptjax.generate, gptjax.pretrain.loop, gptjax.pretrained\n'
          'assert "lm_eval" not in sys.modules and "torch" not in sys.modules')
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=ENVIRONMENT, check=True)
