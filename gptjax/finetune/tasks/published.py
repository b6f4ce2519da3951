"""The supervised tasks of GPT-1 (sections 4.2 and 4.3), each a declaration.

For a task of your own, see `declared`; `reviews` is an example of a task that reads TSV files.
"""

from collections.abc import Callable
from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.evaluate.paper_gpt1 import QNLI_NOTE, figures
from gptjax.finetune.tasks import declared, transforms
from gptjax.finetune.tasks.examples import Corpus, Stories, Tfds, Tsv
from gptjax.text import words


class Task(NamedTuple):
  """The definition of a task.

  kind: how its texts become sequences, see `transforms`: classification, entailment, similarity or choice;
    or transforms.LANGUAGE_MODEL.
  train: sources of the training examples.
  validation: {name: source} for choosing the best checkpoint; a single source is named ''.
  test: {name of a predictions file: source}; scored if labelled, except GLUE's test sets, whose labels are
    not public. AX, GLUE's diagnostic set, is predicted by the model of MNLI.
  validation_of: {name of a predictions file: name of the validation source that it belongs to}, where these
    names differ.
  texts: fields of its texts: the text; premise, hypothesis; both texts; or document and, if it exists,
    question.
  metrics: of `metrics`; the first one selects the best checkpoint.
  paper: {metric, or metric/name of a validation source: the paper's figure, per cent, on its test set}.
  classes: names of the labels, in the order of their numbers; of a choice, one per answer; (): labels are
    numbers.
  answers: of a choice: fields, each with one answer or a list of answers.
  label: field of the label; a negative number or a missing value means that the example is unlabelled.
  scale: the smallest and the largest value of a numeric label.
  unfold: function from a record to the list of records in it.
  glue: format of predictions for the GLUE benchmark: 'number' or 'name' of the label.
  note: why no figure of the paper is comparable; then none is printed.
  """
  kind: str
  train: tuple
  validation: dict
  test: dict
  texts: tuple
  metrics: tuple
  paper: dict
  classes: tuple = ()
  answers: tuple = ()
  label: str = 'label'
  scale: tuple = (0.0, 1.0)
  unfold: Callable = lambda record: [record]
  glue: str = ''
  note: str = ''
  validation_of: dict | None = None

  def test_metric_names(self):
    """{name of a predictions file: suffix of its metrics after `test/METRIC/`, '' for a single test set}.

    A test set has the name of its validation source, so that both are in one row of the table.
    """
    default_name = lambda file: file if file in self.validation or len(self.test) > 1 else ''
    return {file: (self.validation_of or {}).get(file, default_name(file)) for file in self.test}


def _questions(record):
  """RACE stores an article and all its questions in one record."""
  return [{'article': record['article'], 'question': question, 'options': options, 'label': answer}
          for question, options, answer in zip(record['questions'], record['options'], record['answers'],
                                               strict=True)]


def _right_ending(record):
  """Story Cloze numbers its two endings from 1, and has -1 for unlabelled stories."""
  label = record['label']
  return [{**record, 'label': label - 1 if label > 0 else -1}]


def _glue(name, file, *, kind='classification', glue='number', **declaration):
  """A task of the GLUE benchmark from TFDS, where it has the same name."""
  source = lambda split: Tfds(f'glue/{name}', split)
  return Task(**{'kind': kind, 'train': (source('train'),), 'validation': {'': source('validation')},
                 'test': {file: source('test')}, 'glue': glue, 'paper': figures(name), **declaration})


PAIR, NLI = ('sentence1', 'sentence2'), ('premise', 'hypothesis')

TASKS = {
  # Classification.
  'sst2': _glue('sst2', 'SST-2', texts=('sentence',), classes=('negative', 'positive'),
                metrics=('accuracy',)),
  'cola': _glue('cola', 'CoLA', texts=('sentence',), classes=('unacceptable', 'acceptable'),
                metrics=('matthews', 'accuracy')),
  # Similarity.
  'mrpc': _glue('mrpc', 'MRPC', kind='similarity', texts=PAIR, classes=('not_equivalent', 'equivalent'),
                metrics=('f1', 'accuracy')),
  'qqp': _glue('qqp', 'QQP', kind='similarity', texts=('question1', 'question2'),
               classes=('not_duplicate', 'duplicate'), metrics=('f1', 'accuracy')),
  'stsb': _glue('stsb', 'STS-B', kind='similarity', texts=PAIR, scale=(0.0, 5.0),
                metrics=('pearson', 'spearman')),
  # Entailment.
  'mnli': _glue('mnli', '', kind='entailment', texts=NLI, glue='name', metrics=('accuracy',),
                classes=('entailment', 'neutral', 'contradiction'),
                validation={'m': Tfds('glue/mnli', 'validation_matched'),
                            'mm': Tfds('glue/mnli', 'validation_mismatched')},
                test={'MNLI-m': Tfds('glue/mnli', 'test_matched'),
                      'MNLI-mm': Tfds('glue/mnli', 'test_mismatched'), 'AX': Tfds('glue/ax', 'test')},
                validation_of={'MNLI-m': 'm', 'MNLI-mm': 'mm'}),
  'qnli': _glue('qnli', 'QNLI', kind='entailment', texts=('question', 'sentence'), glue='name',
                classes=('entailment', 'not_entailment'), metrics=('accuracy',), paper={}, note=QNLI_NOTE),
  'rte': _glue('rte', 'RTE', kind='entailment', texts=PAIR, glue='name', metrics=('accuracy',),
               classes=('entailment', 'not_entailment')),
  # For a complete submission to GLUE; the paper's tables do not have it.
  'wnli': _glue('wnli', 'WNLI', kind='entailment', texts=PAIR, metrics=('accuracy',),
                classes=('not_entailment', 'entailment'),
                note="not in the paper's tables, only in its GLUE score"),
  # SNLI has no label where its annotators disagreed; as is usual, those examples are skipped, see
  # `examples.read`.
  'snli': Task('entailment', (Tfds('snli', 'train'),), {'': Tfds('snli', 'validation')},
               {'SNLI': Tfds('snli', 'test')}, NLI, ('accuracy',), figures('snli'),
               classes=('entailment', 'neutral', 'contradiction')),
  'scitail': Task('entailment', (Tfds('sci_tail', 'train'),), {'': Tfds('sci_tail', 'validation')},
                  {'SciTail': Tfds('sci_tail', 'test')}, NLI, ('accuracy',), figures('scitail'),
                  classes=('entails', 'neutral')),
  # Multiple choice.
  'race': Task('choice', (Tfds('race/middle', 'train'), Tfds('race/high', 'train')),
               {'m': Tfds('race/middle', 'dev'), 'h': Tfds('race/high', 'dev')},
               {'RACE-m': Tfds('race/middle', 'test'), 'RACE-h': Tfds('race/high', 'test')},
               ('article', 'question'), ('accuracy',),
               figures('race'),
               classes=('A', 'B', 'C', 'D'), answers=('options',), unfold=_questions,
               validation_of={'RACE-m': 'm', 'RACE-h': 'h'}),
  # The labelled stories of 2016 are for training and validation, see `story_cloze`.
  'story_cloze': Task('choice', (Stories('train'),), {'': Stories('validation')},
                      {'StoryCloze': Stories('test')},
                      ('context',), ('accuracy',), figures('story_cloze'),
                      classes=('1', '2'), answers=('endings',), unfold=_right_ending),
  # Your own text from config.data.source or corpus: a language model without a head.
  'text': Task(transforms.LANGUAGE_MODEL, (Corpus('train'),), {'': Corpus('validation')}, {}, (),
               ('perplexity',), {}),
  # An example of your own task: TSV files with a line of field names, in config.finetune.data_dir.
  'reviews': Task(
    kind='classification',
    train=(Tsv('train.tsv'),),
    validation={'': Tsv('dev.tsv')},
    test={'reviews': Tsv('test.tsv')},
    texts=('text',),
    label='label',
    classes=('bad', 'good'),
    metrics=('accuracy', 'f1'),
    paper={}),
}


def find(name, own=()):
  """The Task of a name.

  Args:
    name: in TASKS, or of a task that the config file declares.
    own: `config.finetune.own_tasks`.

  Raises:
    InputError: the task is unknown, and the message has the most similar name; or a declaration in `own` is
      invalid.
  """
  tasks = dict(TASKS)
  for declaration in own:
    fields = declared.parse_declaration(declaration, tasks)
    tasks[declaration['name']] = Task(**fields)
  if name not in tasks:
    raise InputError(f'config.finetune.tasks: {name!r} is not a task'
                     + words.suggestion(name, list(tasks), 'the tasks are')
                     + '; declare a task of your own in config.finetune.own_tasks')
  return tasks[name]
