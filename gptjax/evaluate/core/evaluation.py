"""Evaluation of a task: few-shot prompts, scores, accuracy, and the counterfactual control."""

from gptjax.evaluate.core import counterfactual, prompts
from gptjax.evaluate.core.types import TYPES, answer, make_requests
from gptjax.evaluate.scoring.evaluated_model import TaskResult
from gptjax.evaluate.scoring.shared_prefix import score_groups


def evaluate(evaluated, task_and_items):
  """Return the TaskResult of a CoreTask and its items, as `bundle.read` returns them.

  metrics: `accuracy`, and `centered`: (accuracy - baseline) / (1 - baseline). With `evaluated.counterfactual`
  the same of the control, as `accuracy_counterfactual` and `centered_counterfactual`.
  """
  task, items = task_and_items
  kind = TYPES[task.type]
  correct = answers_correct(evaluated, task, task.label, items, items)
  metrics = {'accuracy': sum(correct) / len(items), 'correct': sum(correct), 'examples': len(items)}
  metrics['centered'] = centered(metrics['accuracy'], task.baseline)
  examples = [{'text': text_of(item, kind), 'correct': right} for item, right in zip(items, correct)]
  if evaluated.counterfactual:
    controls = counterfactual.corrupted(items, kind.read)
    control = answers_correct(evaluated, task, f'{task.label} counterfactual', items, controls)
    metrics['accuracy_counterfactual'] = sum(control) / len(items)
    metrics['centered_counterfactual'] = centered(metrics['accuracy_counterfactual'], task.baseline)
    examples = [{**example, 'correct_counterfactual': right} for example, right in zip(examples, control)]
  return TaskResult(metrics, protocol(evaluated, task, items), examples=tuple(examples))


def answers_correct(evaluated, task, name, items, questions):
  """Return [whether the answer to each question is correct], in the order of the questions.

  Args:
    evaluated: EvaluatedModel.
    task: CoreTask.
    name: of the part in the journal.
    items: the items from which few-shot examples are drawn.
    questions: items that are asked, for each one of `items`.
  """
  kind = TYPES[task.type]
  groups = [make_requests(evaluated, kind, question_prompts(task, items, i, question))
            for i, question in enumerate(questions)]
  answers = [answer(kind, spans) for spans in score_groups(evaluated, name, groups)]
  return [bool(chosen == question['gold']) if kind.options else chosen
          for chosen, question in zip(answers, questions, strict=True)]


def question_prompts(task, items, i, question):
  """Return the prompts of a question in place of item i."""
  examples = prompts.draw_examples(items, i, task.n_shots)
  return TYPES[task.type].prompts(question, examples, task.delimiter)


def centered(accuracy, baseline):
  """Return the accuracy on a scale of 0, guessing, to 1.

  Args:
    accuracy: a fraction.
    baseline: accuracy of guessing, per cent.
  """
  return (accuracy - baseline / 100) / (1 - baseline / 100)


def text_of(item, kind):
  """Return the text of an item without examples, with the correct answer."""
  texts = kind.prompts(item, [], ' ')
  return texts[item['gold'] if kind.options else -1]


def protocol(evaluated, task, items):
  """Return how the task was measured, with a complete prompt."""
  scored = {'multiple_choice': 'the choice with the lowest mean loss of its tokens is the answer',
            'schema': 'the context that gives the continuation the lowest mean loss is the answer',
            'language_modeling': 'correct if each token of the continuation is the most likely one'}
  first = evaluated.tokenizer.start_of_text
  begins = ('every prompt begins with the start-of-text token' if first is not None else
            'the tokenizer has no start-of-text token for the beginning of prompts')
  prompt = question_prompts(task, items, 0, items[0])[-1]
  return (f'CORE: {task.type}, {task.n_shots} examples, delimiter {task.delimiter!r}, baseline '
          f'{task.baseline:g} %; {scored[task.type]}; {begins}; prompts are cut on the left to '
          f'{evaluated.model.n_ctx:,} tokens. A prompt:\n{prompt}')
