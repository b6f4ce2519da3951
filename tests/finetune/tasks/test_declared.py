"""Tasks declared in a config file: parsed, checked, stored in config.json, fine-tuned."""

import json
import subprocess
import types

import pytest
from conftest import ENVIRONMENT, ROOT, tiny_config
from finetune.test_job import command, reviews  # noqa: F401 (a fixture)

from gptjax import defaults
from gptjax.config import resolve as configs
from gptjax.config import resume
from gptjax.finetune.tasks import examples, published

FILMS = dict(name='films', kind='classification', texts=('text',), label='label', classes=('bad', 'good'),
             metrics=('accuracy', 'f1'), train='train.tsv', validation='dev.tsv', test='test.tsv')
CHOICE = dict(name='quiz', kind='choice', texts=['story', 'question'], answers=['options'], label='right',
              classes=['1', '2'], metrics=['accuracy'], train=['a.jsonl', 'tfds:race/middle:train'],
              validation={'easy': 'b.jsonl', 'hard': 'c.jsonl'})


def test_a_declaration_is_a_task():
  own = (FILMS, CHOICE)
  films, quiz = (published.find(name, own) for name in ('films', 'quiz'))
  assert films.train == (examples.Tsv('train.tsv'),) and films.test == {'films': examples.Tsv('test.tsv')}
  assert films == published.find('reviews')._replace(test=films.test)
  assert quiz.train == (examples.Jsonl('a.jsonl'), examples.Tfds('race/middle', 'train')) and not quiz.test
  assert list(quiz.validation) == ['easy', 'hard'] and quiz.answers == ('options',)
  number = published.find('n', (dict(FILMS, name='n', classes=(), metrics=('pearson',), scale=(0, 5)),))
  assert number.scale == (0.0, 5.0) and number.classes == ()


@pytest.mark.parametrize('changes, says', [
  ({'name': 'sst2'}, 'task sst2: another task has this name'),
  ({'name': 'a/b'}, "the name 'a/b' must have only letters"),
  ({'lable': 'x'}, 'task films: lable is not a field: did you mean label?'),
  ({'train': None}, 'task films: train = None must be'), ({'train': ()}, 'train is empty'),
  ({'train': 'train.csv'}, "train = 'train.csv' must be 'FILE.tsv', 'FILE.jsonl' or 'tfds:NAME:SPLIT'"),
  ({'train': 'tfds:glue/sst2'}, "'tfds:glue/sst2' must be"),
  ({'validation': {}}, 'validation has no source'),
  ({'validation': {'all': 'dev.tsv'}}, '"all", which is reserved'),
  ({'test': {'all': 'x.tsv', 'b': 'y.tsv'}},
   'test has a source named "all"'),
  ({'test': {'a/b': 'x.tsv'}}, "the name 'a/b' in test"),
  ({'kind': 'ranking'}, "kind = 'ranking' must be one of classification, entailment"),
  ({'kind': 'entailment'}, "entailment takes 2 texts, not ('text',)"),
  ({'kind': 'choice'}, 'must be set for a choice'),
  ({'answers': ('a',)}, 'must be set for a choice'),
  ({'texts': 'text'}, "texts = 'text' must be names"),
  ({'classes': ('a', 'a')}, 'contains a name twice'),
  ({'classes': ('a',)}, "classes = ('a',) must be two or more"),
  ({'metrics': ('bleu',)}, "metrics = ('bleu',) must be of accuracy, matthews, f1"),
  ({'metrics': ()}, 'must be of'),
  ({'classes': ('a', 'b', 'c')}, "metrics = ('accuracy', 'f1') must be of accuracy"),
  ({'classes': ()}, 'must be of pearson, spearman'),
  ({'scale': (5, 0)}, 'scale = (5, 0) must be the smallest'),
  ({'label': 3}, 'label = 3 must be the name of a field')])
def test_a_declaration_that_cannot_be_a_task_is_refused_in_one_line(changes, says):
  with pytest.raises(ValueError, match=r'^config\.finetune\.own_tasks[^\n]*$') as error:
    published.find('films', (dict(FILMS, **changes),))
  assert says in str(error.value)


def test_a_missing_field_is_reported():
  with pytest.raises(ValueError, match='task films: label is missing; required: name, kind'):
    published.find('films', ({name: value for name, value in FILMS.items() if name != 'label'},))


@pytest.mark.parametrize('value', ['films', (1,), ({'name': 'a\nb'},), ({'name': object()},), ({1: 'a'},)])
def test_invalid_declarations_are_refused_with_the_config(value):
  config = types.SimpleNamespace(**{'finetune': types.SimpleNamespace(own_tasks=value)})
  domain = defaults.declared()['finetune.own_tasks'].domain
  assert not domain.holds(configs.value_of(config, 'finetune.own_tasks'))


def test_it_survives_the_config_json(tmp_path):
  config = tiny_config()
  config.finetune.own_tasks = (FILMS, CHOICE)
  configs.write_or_check_config(config, tmp_path, 'digest')
  configs.write_or_check_config(config, tmp_path, 'digest')
  plain = tiny_config()
  resume.restore_stored_fields(plain, tmp_path)
  for name in ('films', 'quiz'):
    assert published.find(name, plain.finetune.own_tasks) == published.find(name, (FILMS, CHOICE))
  config.finetune.own_tasks = (dict(FILMS, label='stars'),)
  with pytest.raises(ValueError, match=r'has a run with config\.finetune\.own_tasks'):
    configs.write_or_check_config(config, tmp_path, 'digest')


CONFIG = '''
from configs import gpt1_finetune


def get_config():
  config = gpt1_finetune.get_config('films')
  config.finetune.own_tasks = (dict(
    name='films', kind='classification', texts=('text',), label='label', classes=('bad', 'good'),
    metrics=('accuracy',), train='train.jsonl', validation='dev.tsv', test='test.tsv'),)
  return config
'''


@pytest.mark.ci
def test_a_user_fine_tunes_on_files_of_their_own(corpus_folder, reviews, tmp_path):  # noqa: F811
  lines = (reviews / 'train.tsv').read_text().splitlines()[1:]
  for file in ('dev.tsv', 'test.tsv'):
    (tmp_path / file).write_text((reviews / file).read_text())
  (tmp_path / 'train.jsonl').write_text(''.join(
    json.dumps(dict(zip(('text', 'label'), line.split('\t')))) + '\n' for line in lines))
  (tmp_path / 'mine.py').write_text(CONFIG)
  line = command(corpus_folder, tmp_path, tmp_path / 'run')
  line[3] = f'--config={tmp_path}/mine.py'
  done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
  assert done.returncode == 0, done.stderr
  found = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert set(found['tasks']['films']) == {'accuracy', 'test/accuracy'}
  assert not (tmp_path / 'run' / 'predictions').exists(), 'only if asked for'
  (tmp_path / 'train.jsonl').write_text('{"text": "tree", "label": "ugly"}\n')
  done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
  assert done.returncode == 2 and done.stderr.strip().endswith(
    "task films, split train.jsonl, row 1: the label 'ugly' is not one of bad, good"), done.stderr


@pytest.mark.parametrize('content, says', [
  (b'{"text": "a", "label": "bad"}\n[1]\n', 'line 2 is not a JSON object'),
  (b'{"text": "a"\n', 'line 1 is not a JSON object'), (b'{"text": "\xff"}\n', 'is not in UTF-8'),
  (b'{"text": "\\ud800", "label": "bad"}\n', 'is not valid Unicode'), (b'', 'it has no examples'),
  (b'{"text": ["a"], "label": "bad"}\n', "row 1: the field 'text' is list, not text"),
  (b'{"text": "a", "label": null}\n', "row 1: the field 'label' is missing"),
  (b'{"text": "a", "label": {"x": 1}}\n', 'row 1: the label'), (b'[' * 9999 + b'\n', 'line 1 is not')])
def test_invalid_json_lines_are_reported(tmp_path, content, says):
  (tmp_path / 'train.jsonl').write_bytes(content)
  config = types.SimpleNamespace(finetune=types.SimpleNamespace(data_dir=str(tmp_path)))
  task = published.find('films', (dict(FILMS, train='train.jsonl'),))
  with pytest.raises(ValueError, match=r'^task films, split train.jsonl[^\n]*$') as error:
    examples.read('films', task, task.train[0], config, require_labels=True)
  assert says in str(error.value)


@pytest.mark.parametrize('content, says', [
  ('text\tlabel\nx\ty\tz\n', 'line 2 has 3 of 2 columns'),
  ('text\tlabel\n\nx\n', 'line 3 has 1 of 2 columns'),
  ('text\ttext\nx\ty\n', 'contains a name twice'), ('', 'it has no examples')])
def test_invalid_tsv_lines_are_reported(tmp_path, content, says):
  (tmp_path / 'train.tsv').write_text(content)
  config = types.SimpleNamespace(finetune=types.SimpleNamespace(data_dir=str(tmp_path)))
  with pytest.raises(ValueError, match=says):
    examples.read('reviews', published.find('reviews'), examples.Tsv('train.tsv'), config,
                  require_labels=True)


def test_a_byte_order_mark_is_removed(tmp_path):
  (tmp_path / 'train.tsv').write_bytes('\ufefftext\tlabel\r\nfine\tgood\r\n'.encode())
  config = types.SimpleNamespace(finetune=types.SimpleNamespace(data_dir=str(tmp_path)))
  found, _ = examples.read('reviews', published.find('reviews'), examples.Tsv('train.tsv'), config,
                           require_labels=True)
  assert [(one.texts, one.label) for one in found] == [(('fine',), 1)]
