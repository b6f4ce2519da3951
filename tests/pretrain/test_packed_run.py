"""The real command with packed documents: it trains, evaluates, and resumes as if it had not been stopped."""

import json

import pytest
from conftest import train

FLAGS = ('--config.data.packing=True', '--config.data.restart_positions=True', '--config.eval.every_steps=3',
         '--config.optimizer.schedule=constant')


def losses(workdir):
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {(line['step'], name): line[name] for line in lines for name in ('train/loss', 'eval/loss')
          if name in line}


@pytest.mark.slow
def test_a_packed_run_resumes_as_if_it_had_not_been_stopped(corpus_folder, tmp_path):
  for workdir, steps in (('whole', 6), ('parts', 3), ('parts', 6)):
    done = train(corpus_folder, tmp_path / workdir, *FLAGS, f'--config.train.steps={steps}')
    assert done.returncode == 0, done.stderr
  whole = losses(tmp_path / 'whole')
  assert losses(tmp_path / 'parts') == whole and len(whole) == 8
  # A resumed run keeps its documents apart, and another value is another run.
  other = train(corpus_folder, tmp_path / 'whole', *FLAGS[2:], '--config.train.steps=6',
                '--config.data.packing=False', '--config.data.restart_positions=False')
  assert other.returncode == 2 and 'has a run with config.data.packing = True, not False' in other.stderr
