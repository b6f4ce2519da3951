"""Numbers with their nouns, and suggestions that are near or are not made."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptjax import defaults
from gptjax.command import run
from gptjax.config import field_names
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


@pytest.mark.ci
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
  ('--config.batch_size=2', 'did you mean config.train.batch_size or config.eval.batch_size?'),
  ('--config.mesh.zebra=2', '; config.mesh has replica, data, fsdp, tensor'),
  ('--config.zebra.stripes=2', '; config has job, init_from,'),
  ('--config.zebra=2', 'model., attention., loss., data.,')])
def test_unknown_fields(argument, says):
  said = field_names.unknown_field([argument])
  assert says in said and said.startswith(argument[2:].partition('=')[0] + ' is not a field')
  assert ('did you mean' in said) == ('did you mean' in says)


@pytest.mark.parametrize('name, says', [
  ('batch_size', 'did you mean --config.train.batch_size or --config.eval.batch_size?'),
  ('wrokdir', 'did you mean --workdir?'), ('init_from', 'did you mean --config.init_from?'),
  ('from', 'did you mean --config.init_from?'), ('output_dir', 'did you mean --workdir?'),
  ('out_dir', "nanoGPT's out_dir is --workdir"), ('max_iters', "nanoGPT's max_iters is config.train.steps"),
  ('compile', 'every step is compiled'), ('zebra', 'set config fields with --config.FIELD=VALUE')])
def test_flags_that_are_fields_or_options_of_nanogpt(name, says):
  assert field_names.unknown_flag(name, ['config', 'workdir']) == f'--{name} is not a flag: {says}'


def test_options_of_nanogpt_are_no_fields_and_what_replaces_them_exists():
  fields = defaults.declared()
  ours = {name for name in field_names.NANOGPT.values() if name != '--workdir'}
  for text in field_names.NANOGPT_INSTEAD.values():
    ours.update(re.findall(r'config\.([a-z_.]*[a-z_])', text))
  assert ours <= fields.keys() and len(ours) > 15
  for name in (*field_names.NANOGPT, *field_names.NANOGPT_INSTEAD):
    assert not any(field.rpartition('.')[2] == name for field in fields), name
    assert field_names.meaning(name) in field_names.unknown_field([f'--config.train.{name}=1'])
  assert field_names.meaning('zebra') == ''


@pytest.mark.parametrize('name, near', [
  ('val_fraction', 'validation_fraction'), ('--val_fraction', '--validation_fraction'), ('eval', 'evaluate'),
  ('va_fraction', ''), ('fraction_val', ''), ('val', '')])
def test_words_may_be_abbreviated(name, near):
  dashes = '--' * name.startswith('--')
  assert words.nearest_name(name, [f'{dashes}validation_fraction', f'{dashes}evaluate']) == near


@pytest.mark.parametrize('refuse', [
  lambda: suite.parse_tasks('gsm8k'), lambda: published.find('gsm8k')])
def test_tasks_that_are_not_near_are_listed(refuse):
  with pytest.raises(ValueError, match=r"'gsm8k'.* not a task; the tasks are \w+, \w+, ") as caught:
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


def test_flags_under_other_names_are_reported_before_required_ones():
  parser = run.Parser(prog='x', other_names={'--start': '--prompt'})
  for flag in '--from', '--out':
    parser.add_argument(flag, required=True)
  parser.add_argument('--prompt')
  for arguments, says in (
      (['--start=a'], '--start is not a flag: did you mean --prompt?'),
      (['--form', 'a'], '--form is not a flag: did you mean --from?'),
      (['--start', 'a', '--from=b', '--out=c'], '--start is not a flag: did you mean --prompt?'),
      (['runs/a', '--out=b'], "'runs/a' needs the name of its flag, as in --from=runs/a"),
      (['--prompt=a', '--fro=b'], 'the following arguments are required: --out; --help lists the flags'),
      ([], 'the following arguments are required: --from, --out; --help lists the flags')):
    with pytest.raises(ValueError) as caught:
      parser.parse_args(arguments)
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
