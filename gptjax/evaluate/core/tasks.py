"""The 22 tasks of CORE: type, file, few-shot examples, delimiter and baseline of each.

Source: DCLM, arXiv 2406.11794, and the bundle of nanochat (see `bundle`). A task of the same types that is
not part of CORE is a CoreTask in MORE.
"""

import functools
from typing import NamedTuple

from gptjax.evaluate.core import bundle
from gptjax.evaluate.core.evaluation import evaluate
from gptjax.evaluate.scoring.evaluated_model import Task


class CoreTask(NamedTuple):
  """A task.

  label: name in the bundle.
  type: key of `types.TYPES`.
  file: JSON lines, in the folder `eval_data` of the bundle (its dataset_uri).
  n_shots: examples in a prompt.
  delimiter: text between question and answer.
  baseline: accuracy of guessing, per cent.
  n_items: number of published items; 0: unknown.
  name: as in `config.eval.tasks`, if other than the label.
  """
  label: str
  type: str
  file: str
  n_shots: int
  delimiter: str
  baseline: float
  n_items: int = 0
  other_name: str = ''

  @property
  def name(self):
    return self.other_name or self.label


CHOICE, SCHEMA, LM = 'multiple_choice', 'schema', 'language_modeling'
KNOWLEDGE, COMMONSENSE, LANGUAGE = 'world_knowledge', 'commonsense_reasoning', 'language_understanding'
SYMBOLIC, READING = 'symbolic_problem_solving', 'reading_comprehension'
SPACE, ANSWER = ' ', '\nAnswer: '
TABLE = (
  CoreTask('hellaswag_zeroshot', CHOICE, f'{LANGUAGE}/hellaswag.jsonl', 0, SPACE, 25, 10_042),
  CoreTask('jeopardy', LM, f'{KNOWLEDGE}/jeopardy_all.jsonl', 10, ANSWER, 0),
  CoreTask('bigbench_qa_wikidata', LM, f'{KNOWLEDGE}/bigbench_qa_wikidata.jsonl', 10, SPACE, 0, 20_321),
  CoreTask('arc_easy', CHOICE, f'{KNOWLEDGE}/arc_easy.jsonl', 10, ANSWER, 25, 2376),
  CoreTask('arc_challenge', CHOICE, f'{KNOWLEDGE}/arc_challenge.jsonl', 10, ANSWER, 25),
  CoreTask('copa', CHOICE, f'{COMMONSENSE}/copa.jsonl', 0, SPACE, 50, 100),
  CoreTask('commonsense_qa', CHOICE, f'{COMMONSENSE}/commonsense_qa.jsonl', 10, SPACE, 20),
  CoreTask('piqa', CHOICE, f'{COMMONSENSE}/piqa.jsonl', 10, ANSWER, 50, 1838),
  CoreTask('openbook_qa', CHOICE, f'{COMMONSENSE}/openbook_qa.jsonl', 0, SPACE, 25, 500),
  CoreTask('lambada_openai', LM, f'{LANGUAGE}/lambada_openai.jsonl', 0, SPACE, 0, 5153),
  CoreTask('hellaswag', CHOICE, f'{LANGUAGE}/hellaswag.jsonl', 10, SPACE, 25, 10_042),
  CoreTask('winograd', SCHEMA, f'{LANGUAGE}/winograd_wsc.jsonl', 0, SPACE, 50, 273, 'core_winograd'),
  CoreTask('winogrande', SCHEMA, f'{LANGUAGE}/winogrande.jsonl', 0, SPACE, 50),
  CoreTask('bigbench_dyck_languages', LM, f'{SYMBOLIC}/bigbench_dyck_languages.jsonl', 10, SPACE, 0, 1000),
  CoreTask('agi_eval_lsat_ar', CHOICE, f'{SYMBOLIC}/agi_eval_lsat_ar.jsonl', 3, SPACE, 20, 230),
  CoreTask('bigbench_cs_algorithms', LM, f'{SYMBOLIC}/bigbench_cs_algorithms.jsonl', 10, SPACE, 0),
  CoreTask('bigbench_operators', LM, f'{SYMBOLIC}/bigbench_operators.jsonl', 10, SPACE, 0, 210),
  CoreTask('bigbench_repeat_copy_logic', LM, f'{SYMBOLIC}/bigbench_repeat_copy_logic.jsonl', 10, SPACE, 0,
           32),
  CoreTask('squad', LM, f'{READING}/squad.jsonl', 10, SPACE, 0),
  CoreTask('coqa', LM, f'{READING}/coqa.jsonl', 0, SPACE, 0, 0, 'core_coqa'),
  CoreTask('boolq', CHOICE, f'{READING}/boolq.jsonl', 10, ANSWER, 62),
  CoreTask('bigbench_language_identification', CHOICE, f'{LANGUAGE}/bigbench_language_identification.jsonl',
           10, SPACE, 9.1, 10_000))
MORE = ()


def _task(declared):
  return Task(declared.name, f'CORE: {declared.label.replace("_", " ")}',
              functools.partial(bundle.read, declared), evaluate)


TASKS, MORE_TASKS = tuple(map(_task, TABLE)), tuple(map(_task, MORE))
