"""Small TFDS folders of GPT-1's data sets, in the schemas of TFDS's own builders, with known irregular rows.

The builders themselves write them, from the rows below instead of a download.
"""

import types

# QQP's training set has two rows with an empty question, as published.
PAIRS = [('Is "it" true?', 'It\tis.'), ('Where?', ''), ('', 'Who?'), ('a', 'b'), ("don''t", '"'),
         ('x', 'n/a')]


def _pairs(first, second, labels, rows=PAIRS[:1] + PAIRS[3:], n=6):
  return [{first: a, second: b, 'label': labels[i % len(labels)], 'idx': i}
          for i, (a, b) in enumerate((rows * n)[:n])]


def _glue(train, test, extra=()):
  return {'train': train, 'validation': train, 'test': test, **dict(extra)}


def _sentences(labels):
  texts = ['a "fine" film', 'the\tfilm', 'no', 'They said so.', "it 's bad", 'x']
  return [{'sentence': text, 'label': labels[i % len(labels)], 'idx': i} for i, text in enumerate(texts)]


def _nli(labels, **more):
  return [{'premise': a, 'hypothesis': b, 'label': labels[i % len(labels)], **more}
          for i, (a, b) in enumerate(PAIRS[:1] + PAIRS[3:])]


def _race(name):
  article = {'article': 'Long ago "he" ran.\n\nHe won.', 'questions': ['When _ ?', 'Who?', 'Why?'],
             'options': [['a', 'b', 'c', 'd'], ['he', '', 'she', 'it'], ['1', '2', '3', '4']],
             'answers': ['A', 'C', 'D']}
  return [{**article, 'example_id': f'{name}{i}.txt'} for i in range(3)]


def _story(labels):
  return [{'context': 'He ran. He fell. He rose. He ran.', 'endings': ['He won.', 'It "slept".'],
           'label': labels[i % len(labels)]} for i in range(10)]


MNLI = [{**one, 'idx': i} for i, one in enumerate(_nli([0, 1, 2]))]
HIDDEN = [{**one, 'label': -1} for one in MNLI]
SETS = {
  'glue/cola': _glue(_sentences([0, 1]), _sentences([-1])),
  'glue/sst2': _glue(_sentences([0, 1]), _sentences([-1])),
  'glue/mrpc': _glue(_pairs('sentence1', 'sentence2', [0, 1]), _pairs('sentence1', 'sentence2', [-1])),
  'glue/qqp': _glue(_pairs('question1', 'question2', [0, 1], PAIRS), _pairs('question1', 'question2', [-1])),
  'glue/stsb': _glue(_pairs('sentence1', 'sentence2', [0.0, 5.0, 2.5]),
                     _pairs('sentence1', 'sentence2', [-1.0])),
  'glue/mnli': {'train': MNLI, 'validation_matched': MNLI, 'validation_mismatched': MNLI,
                'test_matched': HIDDEN, 'test_mismatched': HIDDEN},
  'glue/qnli': _glue(_pairs('question', 'sentence', [0, 1]), _pairs('question', 'sentence', [-1])),
  'glue/ax': {'test': HIDDEN},
  'glue/wnli': _glue(_pairs('sentence1', 'sentence2', [0, 1]), _pairs('sentence1', 'sentence2', [-1])),
  'glue/rte': _glue(_pairs('sentence1', 'sentence2', [0, 1]), _pairs('sentence1', 'sentence2', [-1])),
  # Where annotators did not agree SNLI has no label, in its test set, too.
  'snli': {split: _nli([0, -1, 1, 2]) for split in ('train', 'validation', 'test')},
  'sci_tail': {split: _nli([0, 1]) for split in ('train', 'validation', 'test')},
  'race/middle': {split: _race('m') for split in ('train', 'dev', 'test')},
  'race/high': {split: _race('h') for split in ('train', 'dev', 'test')},
  'story_cloze/2016': {'validation': _story([1, 2]), 'test': _story([2, 1, 1])},
  'definite_pronoun_resolution': {'test': [
    {'sentence': 'The dog barked at the fox because it was afraid.', 'pronoun': 'it',
     'candidates': ['The dog', 'the fox'], 'label': 1},
    {'sentence': 'Nobody is here.', 'pronoun': 'they', 'candidates': ['a', 'b'], 'label': 0}]}}


def write(folder, *names):
  """Prepares these data sets in a folder for `tfds_dir`; all without names."""
  from gptjax.data.corpus import pipeline
  pipeline.import_tensorflow()
  import tensorflow_datasets as tfds
  tfds.disable_progress_bar()
  for name in names or SETS:
    builder = tfds.builder(name, data_dir=str(folder))
    rows = {split: iter(list(enumerate(rows))) for split, rows in SETS[name].items()}
    builder._split_generators = types.MethodType(lambda self, dl_manager, rows=rows: rows, builder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(
      manual_dir=str(folder), register_checksums=False, compute_stats='skip'))
  return str(folder)
