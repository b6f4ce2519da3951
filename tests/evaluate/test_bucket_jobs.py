"""The evaluation job with weights, data and workdir in a bucket: the results of a workdir here."""

import json

import object_storage
import prepared
import pytest
from hf_files import write_folder

from configs import gpt2_zero_shot
from gptjax.data.stages import parts
from gptjax.evaluate import run
from gptjax.evaluate.overlap import __main__ as overlap
from gptjax.evaluate.samples import continuations, store
from gptjax.report import page
from gptjax.storage.files import access, cache, paths

PASSAGES = ['the blue stone sings of rain', 'never under the tree', 'rain sings of the stone', 'a tree walks']


@pytest.fixture(scope='module', params=object_storage.GS_AND_SLOWLY_S3)
def bucket(request):
  with object_storage.in_process(object_storage.BUCKETS[request.param]('buck')):
    yield paths.location(f'{request.param}://buck/jobs')


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
  monkeypatch.setattr(cache._Settings, 'folder', tmp_path / 'cache')


def config_of(weights, data_dir):
  config = gpt2_zero_shot.get_config()
  config.init_from, config.compilation_cache = str(weights), ''
  config.eval.update(dict(tasks='lambada', data_dir=str(data_dir), batch_size=8))
  return config


@pytest.mark.ci
def test_results_are_those_of_a_workdir_here_and_answers_are_kept(bucket, tmp_path, monkeypatch):
  folder, data = write_folder(tmp_path / 'model'), tmp_path / 'data' / 'deeper'
  data.mkdir(parents=True)
  (data / 'lambada_test.jsonl').write_text(''.join(json.dumps({'text': one}) + '\n' for one in PASSAGES))
  for path in (*folder.iterdir(), data / 'lambada_test.jsonl'):
    access.write(bucket / str(path.relative_to(tmp_path)), path.read_bytes())
  assert run.evaluate(config_of(folder, tmp_path / 'data'), tmp_path / 'run', (), page.write) == 0

  def stop(self, *arguments):
    raise KeyboardInterrupt
  with monkeypatch.context() as patched:
    patched.setattr(run.Results, 'add', stop)  # after the answers, before the results
    with pytest.raises(KeyboardInterrupt):
      run.evaluate(config_of(bucket / 'model', bucket / 'data'), str(bucket / 'run'))
  assert access.names(bucket / 'run' / 'answers' / 'lambada')
  assert run.evaluate(config_of(bucket / 'model', bucket / 'data'), bucket / 'run', (), page.write) == 0
  here, there = (json.loads(access.read(place / 'run' / 'results.json')) for place in (tmp_path, bucket))
  for name in ('tasks', 'grids', 'protocols', 'weights', 'limits', 'not_run'):
    assert here[name] == there[name]
  examples = 'examples/lambada.jsonl'
  assert access.read(bucket / 'run' / examples) == (tmp_path / 'run' / examples).read_bytes()
  assert {*access.names(bucket / 'run')} >= {'report.html', 'report.md', 'results.md', 'config.json'}


def test_an_overlap_study_of_a_workdir_in_a_bucket_needs_a_folder_for_filters(bucket, tmp_path, capsys):
  (tmp_path / 'text').write_text(' '.join(f'word{number}' for number in range(40)))
  text = f'text:{tmp_path}/text'
  flags = [f'--workdir={bucket}/overlap', f'--train={text}', f'--test=mine={text}', '--strings=1000']
  with pytest.raises(ValueError, match='set --filters'):
    overlap.main(flags)
  overlap.main([*flags, f'--filters={tmp_path}/filters'])
  content = json.loads(access.read(bucket / 'overlap' / 'overlap.json'))
  assert content['tests']['mine']['train'] == 1.0
  assert access.names(bucket / 'overlap' / 'overlap') == ['mine.jsonl']


@pytest.mark.slow
def test_an_exact_overlap_study_needs_only_the_bucket_whatever_its_tasks(bucket, tmp_path, monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 4000)
  words = [f'word{number}' for number in range(2000)]
  texts = [' '.join(words[start:start + 40]) for start in range(0, 2000, 20)]
  lines = ''.join(json.dumps({'text': text}) + '\n' for text in texts)
  access.write(bucket / 'train.jsonl', lines)
  access.write(bucket / 'test.txt', f'{texts[50]} {texts[3]}')
  flags = ['--method=exact', '--test=mine=text:%s/test.txt', '--strings=1000', '--workers=1']
  source = prepared.write_jsonl(tmp_path / 'train.jsonl', texts)
  prepared.run(source, bucket / 'corpus', validation_fraction=0)
  for train in (f'jsonl:{bucket}/train.jsonl', f'{bucket}/corpus'):
    found = []
    for name, stages in (('all', [[]]), ('tasks', [
        *(['--stage=read', '--tasks=3', f'--task={task}'] for task in (2, 0, 1, 0)), ['--stage=report']])):
      workdir = bucket / name
      for stage in stages:
        overlap.main([*(flag.replace('%s', str(bucket)) for flag in flags), f'--workdir={workdir}',
                      f'--train={train}', *stage])
      found.append(access.read(workdir / 'overlap.json'))
      assert not [name for name in access.names(workdir / 'overlap') if name.endswith('.work')]
    assert found[0] == found[1]
    report = json.loads(found[0])
    assert report['tests']['mine']['eightgrams'] == 73 and report['exact']['train']['found'] == 66


def test_samples_in_a_bucket_are_those_of_a_workdir_here(bucket, tmp_path, monkeypatch):
  """Written by two commands, of which the second adds the rest; and looked up from there."""
  def generate(model, tokenizer, weights, batch, seed):
    return [store.Sample(one.id, weights, one.group, 'title', one.prompt.text, f'text of {one.id}', '', 1, 2,
                         3, 'end', one.number + 1, 1.0, 40, seed, -1.5)._asdict() for one in batch]
  monkeypatch.setattr(continuations, '_generate', generate)
  found = {}
  for folder in (bucket / 'samples-of', tmp_path):
    path = store.path_of(folder, store.BEST_OF)
    for number in (3, 5):
      continuations.write(path, None, None, 'w', [continuations.Prompt('title', 'prompt', [1], '', 3)],
                          [continuations.Decoding(number, 1.0, 40)], 0, 2)
    store.choose(path, 4)
    found[folder] = store.read(path)
  there, here = found.values()
  assert there == here and len(there.samples) == there.wanted == 5 and list(there.chosen.values()) == [4]
  assert len(there.lines) == 5 + 2 + 1
