"""Fine-tuning results in the GPT-1 paper (Radford et al. 2018), Tables 1 to 5, and GLUE's average.

Figures are per cent, of test sets; None: the paper has none. '5x' is an ensemble of five models. Tasks and
metrics have the names of `gptjax.finetune.tasks.published`.
"""

import statistics
from typing import NamedTuple

# Table 1: {kind of task: {data set: task}}.
DATA_SETS = {
  'natural language inference': {'SNLI': 'snli', 'MultiNLI': 'mnli', 'Question NLI': 'qnli', 'RTE': 'rte',
                                 'SciTail': 'scitail'},
  'question answering': {'RACE': 'race', 'Story Cloze': 'story_cloze'},
  'sentence similarity': {'MSR Paraphrase Corpus': 'mrpc', 'Quora Question Pairs': 'qqp',
                          'STS Benchmark': 'stsb'},
  'classification': {'Stanford Sentiment Treebank-2': 'sst2', 'CoLA': 'cola'}}

GPT1 = 'GPT-1'  # its row; the paper says "Finetuned Transformer LM (ours)"


class Column(NamedTuple):
  """A column of a table: its head, and the task and the metric of its figures."""
  head: str
  task: str
  metric: str


class PaperTable(NamedTuple):
  """A table of the paper; `rows` is {system: figures, one per column}."""
  number: int
  title: str
  columns: tuple
  rows: dict


GLUE_COLUMN = Column('GLUE', 'glue', 'average')
TABLES = (
  PaperTable(2, 'natural language inference, accuracy', (
    Column('MNLI-m', 'mnli', 'accuracy/m'), Column('MNLI-mm', 'mnli', 'accuracy/mm'),
    Column('SNLI', 'snli', 'accuracy'), Column('SciTail', 'scitail', 'accuracy'),
    Column('QNLI', 'qnli', 'accuracy'), Column('RTE', 'rte', 'accuracy')), {
      'ESIM + ELMo (5x)': (None, None, 89.3, None, None, None),
      'CAFE (5x)': (80.2, 79.0, 89.3, None, None, None),
      'Stochastic Answer Network (3x)': (80.6, 80.1, None, None, None, None),
      'CAFE': (78.7, 77.9, 88.5, 83.3, None, None),
      'GenSen': (71.4, 71.3, None, None, 82.3, 59.2),
      'Multi-task BiLSTM + Attn': (72.2, 72.1, None, None, 82.1, 61.7),
      GPT1: (82.1, 81.4, 89.9, 88.3, 88.1, 56.0)}),
  PaperTable(3, 'question answering and commonsense reasoning, accuracy', (
    Column('Story Cloze', 'story_cloze', 'accuracy'), Column('RACE-m', 'race', 'accuracy/m'),
    Column('RACE-h', 'race', 'accuracy/h'), Column('RACE', 'race', 'accuracy/all')), {
      'val-LS-skip': (76.5, None, None, None),
      'Hidden Coherence Model': (77.6, None, None, None),
      'Dynamic Fusion Net (9x)': (None, 55.6, 49.4, 51.2),
      'BiAttention MRU (9x)': (None, 60.2, 50.3, 53.3),
      GPT1: (86.5, 62.9, 57.4, 59.0),
      # Not in the table: the README of openai/finetune-transformer-lm; the paper's figure is of one run.
      'GPT-1, released code, median of 10 runs': (85.8, None, None, None)}),
  PaperTable(4, 'semantic similarity and classification', (
    Column('CoLA, Matthews', 'cola', 'matthews'), Column('SST-2, accuracy', 'sst2', 'accuracy'),
    Column('MRPC, F1', 'mrpc', 'f1'), Column('STS-B, Pearson', 'stsb', 'pearson'),
    Column('QQP, F1', 'qqp', 'f1'), GLUE_COLUMN), {
      'Sparse byte mLSTM': (None, 93.2, None, None, None, None),
      'TF-KLD': (None, None, 86.0, None, None, None),
      'ECNU (mixed ensemble)': (None, None, None, 81.0, None, None),
      'Single-task BiLSTM + ELMo + Attn': (35.0, 90.2, 80.2, 55.5, 66.1, 64.8),
      'Multi-task BiLSTM + ELMo + Attn': (18.9, 91.6, 83.5, 72.8, 63.3, 68.9),
      GPT1: (45.4, 91.3, 82.3, 82.0, 70.3, 72.8)}))

# Table 5, on the test sets of GLUE; MNLI is one number.
TABLE_5 = {
  'aux LM': dict(cola=45.4, sst2=91.3, mrpc=82.3, stsb=82.0, qqp=70.3, mnli=81.8, qnli=88.1, rte=56.0),
  'no pretraining': dict(cola=18.9, sst2=84.0, mrpc=79.4, stsb=30.9, qqp=65.5, mnli=75.7, qnli=71.2,
                         rte=53.8),
  'no aux LM': dict(cola=47.9, sst2=92.0, mrpc=84.9, stsb=83.2, qqp=69.8, mnli=81.1, qnli=86.9, rte=54.4),
  'LSTM': dict(cola=30.3, sst2=90.5, mrpc=83.2, stsb=71.8, qqp=68.1, mnli=73.7, qnli=81.1, rte=54.6),
}

QNLI_NOTE = 'not comparable, the paper has QNLI v1 and TFDS has v2, another split of the data'

# The nine tasks of GLUE's average: {task: metrics that are averaged first}.
GLUE = {'cola': ('matthews',), 'sst2': ('accuracy',), 'mrpc': ('f1', 'accuracy'),
        'stsb': ('pearson', 'spearman'), 'qqp': ('f1', 'accuracy'), 'mnli': ('accuracy/m', 'accuracy/mm'),
        'qnli': ('accuracy',), 'rte': ('accuracy',), 'wnli': ('accuracy',)}
GLUE_HEADS = dict(cola='CoLA', sst2='SST-2', mrpc='MRPC', stsb='STS-B', qqp='QQP', mnli='MNLI', qnli='QNLI',
                  rte='RTE', wnli='WNLI')
# GPT-1's score on GLUE in full. The paper prints the average and one metric per task; the other metrics and
# WNLI are those of the leaderboard, as printed by Liu et al. 2019 (MT-DNN, Table 2).
GLUE_GPT1 = {'cola': {'matthews': 45.4}, 'sst2': {'accuracy': 91.3}, 'mrpc': {'f1': 82.3, 'accuracy': 75.7},
             'stsb': {'pearson': 82.0, 'spearman': 80.0}, 'qqp': {'f1': 70.3, 'accuracy': 88.5},
             'mnli': {'accuracy/m': 82.1, 'accuracy/mm': 81.4}, 'qnli': {'accuracy': 88.1},
             'rte': {'accuracy': 56.0}, 'wnli': {'accuracy': 53.4}}


def figures(task):
  """{metric: GPT-1's figure} of a task in Tables 2 to 4; {} if they do not have it."""
  return {column.metric: figure for table in TABLES
          for column, figure in zip(table.columns, table.rows[GPT1], strict=True) if column.task == task}


def glue_scores(scores):
  """{task: its score, the mean of its metrics} of the tasks of GLUE in {task: {metric: value}}."""
  return {task: statistics.fmean(scores[task][metric] for metric in metrics) for task, metrics in GLUE.items()
          if task in scores and all(metric in scores[task] for metric in metrics)}


def glue_average(scores, without=()):
  """GLUE's macro-average: the mean over tasks of the mean over the metrics of a task; None if one is missing.

  Args:
    scores: {task: {metric: value}}.
    without: tasks that are left out, like ('wnli',).
  """
  of_tasks = {task: value for task, value in glue_scores(scores).items() if task not in without}
  return statistics.fmean(of_tasks.values()) if len(of_tasks) == len(GLUE.keys() - set(without)) else None
