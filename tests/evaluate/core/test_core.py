"""CORE: prompts, draws, data and the figure, and every answer against transformers."""

import csv
import json
import random

import pytest
import yaml
from conftest import SHARED, mesh_of
from evaluate.core.core_judge import CoreJudge, shown, shuffled
from evaluate.tasks.judge import make

import gptjax
from gptjax.evaluate.core import bundle, counterfactual, prompts, summary
from gptjax.evaluate.core.tasks import TABLE
from gptjax.evaluate.scoring.evaluated_model import make_evaluated_model
from gptjax.evaluate.tasks import suite
from gptjax.evaluate.texts import sources

PRESENT = [task for task in TABLE if (SHARED / 'core' / task.file).is_file()]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A random GPT-2 with a small vocabulary and a context of 256."""
  if not SHARED.is_dir():
    pytest.skip(f'needs the data folder {SHARED}')
  with mesh_of():
    return make(tmp_path_factory.mktemp('model'), SHARED)


@pytest.fixture(scope='module')
def judge(folder):
  return CoreJudge(folder)


def run(folder, name, data, batch_size=4, **axes):
  with mesh_of(**axes):
    model, tokenizer = gptjax.load(folder)
    evaluated = make_evaluated_model(model, tokenizer, batch_size, counterfactual=True)
    task = suite.ALL_TASKS[name]
    return task.evaluate(evaluated, task.read(data))


@pytest.mark.parametrize('task', PRESENT, ids=[task.label for task in PRESENT])
def test_every_answer_is_that_of_transformers(folder, judge, shared_data, task):
  limit = 24
  found = run(folder, task.name, sources.DataOptions(str(shared_data), '', limit))
  lines = (shared_data / 'core' / task.file).read_text().splitlines()
  items = shuffled(map(json.loads, lines), limit)
  wanted = judge.accuracy(task.type, items, task.n_shots, task.delimiter)
  assert [example['correct'] for example in found.examples] == wanted
