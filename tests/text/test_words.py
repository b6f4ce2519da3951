"""Numbers with their nouns, and suggestions that are near or are not made."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax import defaults
from gptjax.command import run
from gptjax.config import resolve
from gptjax.config.resolve import flat
from gptjax.evaluate.tasks import suite
from gptjax.finetune.tasks import published
from gptjax.plan import topology
from gptjax.text import words


@pytest.mark.parametrize('n, noun, several, said', [
  (0, 'example', '', '0 examples'), (1, 'example', '', '1 example'), (2, 'entry', '', '2 entries'),
  (1, 'entry', '', '1 entry'), (3, 'day', '', '3 days'), (12345, 'corpus', 'corpora', '12,345 corpora')])
def test_plural(n, noun, several, said):
  assert words.plural(n, noun, several) == said


TEXT = st.text('abc.', max_size=8)


@given(TEXT, TEXT, TEXT)
def test_distance_is_one(a, b, c):
  assert words.distance(a, b) == words.distance(b, a) <= max(len(a), len(b))
  assert (words.distance(a, b) == 0) == (a == b)
  assert words.distance(a + c, b + c) <= words.distance(a, b)
  assert words.distance('ab' + a, 'ba' + a) == 1


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_one_typing_error_in_any_field_is_understood(seed):
  rng, fields = random.Random(seed), list(flat(defaults.get_config()))
  name = rng.choice([field for field in fields if len(field) > 6])
  at = rng.randrange(len(name) - 2)
  wrong = rng.choice([name[:at] + name[at + 1:], name[:at] + 'z' + name[at:],
                      name[:at] + name[at + 1] + name[at] + name[at + 2:]])
  near = words.nearest_name(wrong, fields)
  assert words.distance(wrong, near) <= 1


@pytest.mark.parametrize('argument, says', [
  ('--config.train.dropout=0', 'did you mean config.model.dropout?'),
  ('--config.n_layers=2', 'did you mean config.model.n_layer?'),
  ('--config.train.stepz=2', 'did you mean config.train.steps?'),
  ('--config.learning_rate=2', 'did you mean config.optimizer.learning_rate?'),
  ('--config.mesh.zebra=2', '; config.mesh has replica, data, fsdp, tensor'),
  ('--config.zebra.stripes=2', '; config has job, init_from,'),
  ('--config.zebra=2', 'model., attention., loss., data.,')])
def test_unknown_fields(argument, says):
  said = resolve.unknown_field([argument])
  assert says in said and said.startswith(argument[2:].partition('=')[0] + ' is not a field')
  assert ('did you mean' in said) == ('did you mean' in says)


@pytest.mark.parametrize('refuse', [
  lambda: suite.parse_tasks('hellaswag'), lambda: published.find('hellaswag')])
def test_tasks_that_are_not_near_are_listed(refuse):
  with pytest.raises(ValueError, match=r"'hellaswag'.* not a task; the tasks are \w+, \w+, ") as caught:
    refuse()
  assert 'did you mean' not in str(caught.value)


def test_unknown_flags():
  parser = run.Parser(prog='x')
  parser.add_argument('--source')
  parser.add_argument('--out')
  for argument, says in (('--suorce=a', '--suorce is not a flag: did you mean --source?'),
                      ('--zebra', '--zebra is not a flag; the flags are --help, --source, --out'),
                      ('zebra', 'unrecognized arguments: zebra; --help lists the flags')):
    with pytest.raises(ValueError) as caught:
      parser.parse_args([argument])
    assert str(caught.value) == says


@pytest.mark.parametrize('name, meant', [
  ('v5e-256', 'v5e:16x16'), ('v5litepod-8', 'v5e:2x4'), ('v6e-32', 'v6e:4x8'), ('v5p-128', 'v5p:4x4x4'),
  ('v4-8', 'v4:2x2x1'), ('v4-32', 'v4:2x2x4'), ('v3-8', 'v3:2x2')])
def test_slices_by_the_names_of_clouds(name, meant):
  for refuse in (topology.check_name, topology.describe):
    with pytest.raises(ValueError, match=f"'{name}' is not a topology: did you mean {meant}\\?"):
      refuse(name)
  topology.check_name(meant)


def test_slices_of_no_shape_are_refused_too():
  for name in ('v5e-3', 'v9e-8', 'v5e-1', 'v4-6'):
    with pytest.raises(ValueError, match='use its shape'):
      topology.check_name(name)
