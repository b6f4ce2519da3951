"""Fields of the config: each has a domain, and what is just outside it is refused in one line."""

import json
import math
import os
import shlex
import stat
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of, tiny_config
from variants import OPTIMIZERS

from gptjax import defaults, domains
from gptjax.config import memory
from gptjax.config import resolve as configs
from gptjax.data import prepare
from gptjax.errors import InputError
from gptjax.kernels import xla_presets
from gptjax.model import attention, compute, gpt
from gptjax.parallel import jax_settings
from gptjax.pretrain.loop import pretrain
from gptjax.storage.files import private_folder

FIELDS = defaults.declared()


def plain():
  """The defaults in a form that takes any value; lists stand for tuples."""
  return json.loads(json.dumps(defaults.fields()), object_hook=lambda d: defaults.Plain(**d))


def changed(name, value):
  config, (*sections, leaf) = plain(), name.split('.')
  place = config
  for section in sections:
    place = getattr(place, section)
  setattr(place, leaf, value)
  return config


def outside(domain):
  """Values that are refused: just beyond its ends if it has some, and of other kinds."""
  never = [None, object(), {}, 1j, math.nan, math.inf, -math.inf, '\x1b[2J', '\ud800', b'x']
  if domain.high is None:
    return [*never, -1, 10**20, ('\0',), (3,)]
  if isinstance(domain.low, int) and 'whole' in domain.words:
    below = domain.low - (2 if domain.low == 0 and 'or -1' in domain.words else 1)
    return [*never, below, domain.high + 1, domain.low + 0.5, True, '1', 10**20, 10**5000, -2**63]
  step = lambda value, towards: value if not domain.holds(value) else math.nextafter(value, towards)
  return [*never, step(domain.low, -math.inf), step(domain.high, math.inf), True, '0.5', -0.1, 10**400]


@pytest.mark.parametrize('changes, n_vocab', [
  ({'data.tokenizer': 'train-bpe:300'}, 300),
  ({'data.tokenizer': 'train-bpe:300', 'model.n_vocab': 290}, 290),
  ({'data.tokenizer': 'train-bpe:300', 'init_from': 'gpt2'}, 50257),
  ({'data.tokenizer': 'train-bpe:x'}, 50257), ({'data.tokenizer': f'train-bpe:{"9" * 5000}'}, 50257),
  ({'data.tokenizer': 'train-char'}, 50257), ({'data.tokenizer': 'gpt2'}, 50257)])
def test_a_bpe_that_is_trained_sets_the_vocabulary_unless_it_is_known(changes, n_vocab):
  config = defaults.get_config()
  for name, value in changes.items():
    section, _, leaf = name.rpartition('.')
    (config[section] if section else config)[leaf] = value
  configs.resolve(config, 'workdir')
  assert config.model.n_vocab == n_vocab


@pytest.mark.parametrize('changes, says', [
  ({'checkpoint.keep_period_weights_only': True}, 'needs a period: set config.checkpoint.keep_period'),
  ({'train.rewind': 100, 'checkpoint.every_steps': 0}, 'set config.checkpoint.every_steps'),
  ({'train.rewind': 101, 'checkpoint.every_steps': 50}, 'keep 4'),
  ({'train.rewind': 100, 'checkpoint.every_steps': 50, 'checkpoint.keep': 3}, ''),
  ({'train.rewind': 100, 'checkpoint.every_steps': 50, 'checkpoint.keep_period': 60,
    'checkpoint.keep_period_weights_only': True}, 'keep 5'),
  ({'train.rewind': 100, 'checkpoint.every_steps': 50, 'checkpoint.keep': 3, 'checkpoint.keep_period': 100,
    'checkpoint.keep_period_weights_only': True}, ''),
  ({'train.rewind': 100, 'checkpoint.every_minutes': 5.0}, 'set it to 0, or config.checkpoint.keep_period'),
  ({'train.rewind': 100, 'checkpoint.every_minutes': 5.0, 'checkpoint.every_steps': 0,
    'checkpoint.keep_period': 100}, '')])
def test_checkpoints_reach_back_as_far_as_a_rewind(changes, says):
  config = tiny_config()
  for name, value in changes.items():
    if name == 'train.rewind':
      config.train.rewind.update(dict(threshold=1.0, steps_back=value))
    else:
      config.checkpoint[name.partition('.')[2]] = value
  if not says:
    configs.check(config)
    return
  with pytest.raises(InputError, match=f'^[^\n]*{says}'):
    configs.check(config)


@pytest.mark.parametrize('name', FIELDS)
def test_every_field_has_a_domain_and_a_meaning_and_refuses_what_is_just_outside(name):
  field = FIELDS[name]
  assert field.domain.holds(field.default) and len(field.meaning) >= 4
  assert field.legacy_default is None or field.domain.holds(field.legacy_default)
  refused = [value for value in outside(field.domain) if not (name == 'model.scan' and value is None)]
  for value in refused:
    with pytest.raises(InputError, match=r'^[^\n\x1b]*$') as error:
      configs.check_fields(changed(name, value))
    assert str(error.value).startswith(f'config.{name} = ') and field.domain.words in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize('name', [name for name, field in FIELDS.items() if field.domain.high is not None])
def test_the_ends_of_a_domain_of_numbers_belong_to_it_unless_it_says_otherwise(name):
  domain = FIELDS[name].domain
  for end, is_open in ((domain.low, '(' in domain.words), (domain.high, domain.words[-1] == ')')):
    if 'whole' in domain.words or not is_open:
      configs.check_fields(changed(name, end))


@pytest.mark.parametrize('name, value', [
  ('log.profile_steps', (5, 1)), ('log.profile_steps', (1, 2, 3)), ('log.profile_steps', (-1, 1)),
  ('log.every_steps', 0), ('eval.every_steps', -1), ('checkpoint.every_steps', -1), ('eval.tasks', ','),
  ('eval.tasks', 'lambada,,ptb'), ('train.seed', 2**32), ('train.seed', 2**64), ('train.seed', -1),
  ('data.validation_fraction', 1.0), ('train.epochs', math.inf), ('train.steps', 2**63 - 1),
  ('finetune.n_seeds', 1_000_000), ('finetune.lm_coef', math.inf), ('optimizer.epsilon', 0),
  ('data.mixture', (('a', math.nan),)), ('data.mixture', (('a', 0),)), ('data.mixture', (('a', 1), ('b',))),
  ('finetune.tasks', 'sst2'), ('finetune.tasks', ('',)), ('data.corpus', 'a\nb'), ('mesh.data', 0),
  ('model.remat', ''), ('job', 'train'), ('optimizer.learning_rate', 1.5), ('model.init_std', -0.02)])
def test_a_value_that_once_was_accepted_is_refused(name, value):
  with pytest.raises(InputError, match=rf'^config\.{name} = '):
    configs.check_fields(changed(name, value))


@pytest.mark.parametrize('name, value', [
  ('optimizer.learning_rate', 0.0), ('train.seed', 2**32 - 1), ('data.validation_fraction', 0.0),
  ('log.sample_prompt', 'two\nlines'), ('data.corpus', 'größe/語料'), ('eval.tasks', 'lambada, ptb'),
  ('mesh.fsdp', -1), ('finetune.transfer_layers', -1), ('log.profile_steps', (3, 3)),
  ('data.mixture', (('a', 1), ('b', 0.5)))])
def test_what_is_inside_is_accepted(name, value):
  configs.check_fields(changed(name, value))


def test_the_largest_seed_makes_its_own_key():
  """A larger one would be truncated to 32 bits, and have the key of a smaller one."""
  high = FIELDS['train.seed'].domain.high
  assert jax.random.key_data(jax.random.key(high)).tolist() == [0, high]


def test_names_to_choose_from_are_those_that_exist():
  for name, there in (('xla_preset', xla_presets.PRESETS), ('model.remat', compute.REMAT),
                      ('model.activation_function', gpt.ACTIVATIONS),
                      ('attention.kernel', attention.KERNELS)):
    assert FIELDS[name].domain.words == f'one of {", ".join(there)}'


def test_a_field_that_is_refused_is_refused_before_anything_is_resolved_or_made(tmp_path):
  config = defaults.get_config()
  config.model.n_head = 0
  with pytest.raises(InputError, match=r'config\.model\.n_head = 0 must be a whole number from 1'):
    pretrain(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('changes', [
  {'model.n_embd': 10**9}, {'model.pad_vocab_to': 10**9}, {'model.n_layer': 2**31 - 1},
  {'model.n_ctx': 2**31 - 1}, {'model.n_vocab': 2**31 - 1}, {'model.n_inner': 2**31 - 8},
  {'train.batch_size': 2**31 - 1}, {'eval.batch_size': 2**30}])
def test_what_is_larger_than_memory_is_refused_with_the_bytes(tmp_path, monkeypatch, changes):
  monkeypatch.setattr(sys, 'argv', ['main', '--config=configs/gpt2_xl.py', '--config.train.steps=5'])
  config = defaults.get_config()
  config.model.n_head, config.train.steps = 1, 5
  config.update_from_flattened_dict({'mesh.data': 1, 'mesh.tensor': 8, 'train.batch_size': 8, **changes})
  if 'train.batch_size' not in changes:
    config.train.microbatch_size = 8
  with pytest.raises(InputError, match=r'^the run needs at least [\d,]+ bytes \(weights [\d,]+.*, and this '
                     r'machine has [\d,]+: .*python -m gptjax.plan --config=configs/gpt2_xl.py ') as error:
    pretrain(config, tmp_path / 'run')
  need, there = (int(part.split(' bytes')[0].split(':')[0].replace(',', '')) for part in (
    str(error.value).split('at least ')[1], str(error.value).split('machine has ')[1]))
  assert need > there == memory.host_bytes()
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('job, changes', [
  ('evaluate', {'model.n_embd': 10**9}), ('finetune', {'model.n_embd': 10**9}),
  ('evaluate', {'eval.batch_size': 2**30}), ('finetune', {'train.batch_size': 2**31 - 1})])
def test_the_other_jobs_are_refused_too(monkeypatch, job, changes):
  monkeypatch.setattr(memory, 'host_bytes', lambda: 10**10)
  config = defaults.get_config()
  config.job, config.model.n_head = job, 1
  config.update_from_flattened_dict(changes)
  configs.resolve(config, 'unused')
  with mesh_of() as mesh, pytest.raises(InputError, match='the run needs at least'):
    memory.check(config, mesh)


@pytest.mark.parametrize('field', ['eval.data_dir', 'finetune.data_dir'])
def test_a_folder_of_data_that_is_not_there_is_refused_at_the_start(field, tmp_path, monkeypatch):
  from gptjax.finetune.job import finetune
  monkeypatch.chdir(tmp_path)
  config = defaults.get_config()
  config.train.steps, config.finetune.tasks = 5, ('reviews',)
  config.update_from_flattened_dict({field: 'nowhere'})
  with pytest.raises(InputError, match=rf"config\.{field} = 'nowhere' is not a folder"):
    (finetune if field.startswith('finetune') else pretrain)(config, 'run')
  assert not list(tmp_path.iterdir())


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_memory_needed_counts_the_state_that_a_run_really_has(optimizer):
  from gptjax.train.step import init_state
  config = tiny_config(**{'optimizer.name': optimizer})
  with mesh_of(fsdp=2) as mesh:
    state = jax.jit(lambda: init_state(config))()
    need = memory.required_bytes(config, mesh)
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
  assert need['weights'] + need['optimizer'] <= held <= 1.2 * (need['weights'] + need['optimizer'])


def test_an_accelerator_is_asked_for_its_memory():
  config = tiny_config()
  device = SimpleNamespace(platform='gpu', device_kind='NVIDIA Small',
                           memory_stats=lambda: {'bytes_limit': 1000})
  mesh = SimpleNamespace(shape=dict(replica=1, data=1, fsdp=1, tensor=1), local_devices=[device])
  with pytest.raises(InputError, match=r'bytes per device .* and a NVIDIA Small has 1,000'):
    memory.check(config, mesh)
  device.memory_stats = lambda: None  # unknown: nothing is refused
  memory.check(config, mesh)


def test_an_unwritable_compilation_cache_is_refused(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(InputError, match=r'config\.compilation_cache = .* is not writable'):
    configs.check_cache(f'{tmp_path}/file/cache')
  configs.check_cache('')
  configs.check_cache(f'{tmp_path}/a/cache')
  assert stat.S_IMODE((tmp_path / 'a' / 'cache').stat().st_mode) == 0o700


@pytest.mark.parametrize('mode, owner, says', [
  (0o777, 0, 'can be written by others'), (0o1777, 0, 'can be written by others'),
  (0o775, 0, 'can be written by others'), (0o755, 1, 'belongs to the user'),
  (0o700, 54321, r'belongs to the user \d+,'), (0o755, 0, ''), (0o700, 0, '')])
def test_a_compilation_cache_of_others_is_refused(tmp_path, monkeypatch, mode, owner, says):
  folder = tmp_path / 'cache'
  folder.mkdir()
  folder.chmod(mode)
  found = SimpleNamespace(st_mode=folder.stat().st_mode, st_uid=os.geteuid() + owner, st_gid=os.getegid())
  monkeypatch.setattr(private_folder, 'os', SimpleNamespace(stat=lambda path: found, geteuid=os.geteuid))
  monkeypatch.setattr(private_folder, '_own_group', lambda found: False)
  if says:
    with pytest.raises(InputError, match=f'{says}.*--config.compilation_cache='):
      configs.check_cache(str(folder))
    with pytest.raises(InputError, match=f'--x .*{says}.*unset it'):
      jax_settings.use_cache(str(folder), '--x', 'unset it')
  else:
    configs.check_cache(str(folder))


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('set_by, cached', [('', 0.1), ('the environment', 1.0), ('the config of JAX', 0.5)])
def test_small_programs_are_cached_unless_the_user_has_set_the_threshold(tmp_path, set_by, cached):
  name = jax_settings.MIN_COMPILE_SECONDS
  code = ('import jax; from gptjax.parallel import jax_settings; '
          + f'jax.config.update({name!r}, 0.5); ' * (set_by == 'the config of JAX')
          + f'jax_settings.use_cache({str(tmp_path / "cache")!r}); print(jax.config.values[{name!r}])')
  own = {name.upper(): '1'} if set_by == 'the environment' else {}
  done = subprocess.run([sys.executable, '-c', code], env={**ENVIRONMENT, **own}, cwd=ROOT, text=True,
                        capture_output=True, check=True)
  assert float(done.stdout) == cached


@pytest.mark.parametrize('group, members, alone', [
  ('ann', [], True), ('ann', ['ann'], True), ('ann', ['ann', 'bob'], False), ('staff', [], False)])
def test_a_group_of_its_user_alone_may_write_to_the_cache(tmp_path, monkeypatch, group, members, alone):
  monkeypatch.setattr(private_folder.pwd, 'getpwuid', lambda number: SimpleNamespace(pw_name='ann', pw_gid=7))
  monkeypatch.setattr(private_folder.grp, 'getgrgid',
                      lambda number: SimpleNamespace(gr_name=group, gr_gid=number, gr_mem=members))
  assert private_folder._own_group(SimpleNamespace(st_uid=7, st_gid=7)) == alone


def as_it_is(name, folder, **environment):
  """The command with nothing but the config, run where there is nothing else."""
  return subprocess.run([sys.executable, '-m', 'gptjax.main', f'--config={ROOT}/configs/{name}'], cwd=folder,
                        env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), **environment}, capture_output=True,
                        text=True, timeout=250)


CORPUS = 'does not exist: create it'
AS_THEY_ARE = {
  'default': 'set config.train.steps or config.train.epochs', 'gpt1': CORPUS, 'gpt1_lstm': CORPUS,
  'gpt1_mini': CORPUS, 'gpt2_small': CORPUS, 'gpt2_medium': CORPUS, 'gpt2_large': CORPUS, 'gpt2_xl': CORPUS,
  'gpt1_finetune': 'config.init_from is missing', 'gpt1_ablations': 'config.init_from is missing',
  'gpt1_transfer': 'config.init_from is missing', 'gpt1_zero_shot': 'config.init_from and',
  'gpt2_zero_shot': 'config.init_from is empty', 'gpt2_fineweb': CORPUS, 'gpt2_wikitext103': CORPUS,
  'gpt2_sweep': CORPUS, 'gpt2_released_sweep': 'gpt2 is not a folder', 'modern': CORPUS,
  'modern_124m': CORPUS}
SWEEPS = 'gpt2_sweep', 'gpt2_released_sweep'  # which say first which size they begin


def test_every_config_is_in_the_table():
  names = {path.stem for path in (ROOT / 'configs').glob('*.py')} - {'__init__'}
  assert names == {*AS_THEY_ARE, 'quickstart', 'gpt2_sweep_tiny', 'modern_small'}


def run_as_it_is(name, folder, monkeypatch, there=10**15):
  """What `run` of main refuses a config with, on a machine of so many bytes."""
  import importlib

  from gptjax import main
  monkeypatch.chdir(folder)
  monkeypatch.setattr(memory, 'host_bytes', lambda: there)
  monkeypatch.setattr(jax_settings, 'use_cache', lambda folder: None)  # that of the tests stays
  config = importlib.import_module(f'configs.{name}').get_config()
  config.compilation_cache = ''
  if name.startswith('gpt2_') or name == 'gpt1':
    config.update_from_flattened_dict({'mesh.replica': 1, 'mesh.data': -1, 'mesh.fsdp': 1})
  if config.job in ('finetune', 'sweep'):
    main.FLAGS.mark_as_parsed()
  with pytest.raises(InputError, match=r'^[^\n]*$') as error:
    main.run(config, f'runs/{name}', file=name)
  assert not list(folder.iterdir()), 'nothing is written'
  return str(error.value)


@pytest.mark.parametrize('name', AS_THEY_ARE)
def test_a_config_as_it_is_says_what_it_lacks(name, tmp_path, monkeypatch, capsys):
  said = run_as_it_is(name, tmp_path, monkeypatch)
  assert name in SWEEPS or not capsys.readouterr().err, 'one line, that of the refusal'
  assert AS_THEY_ARE[name] in said
  if AS_THEY_ARE[name] == CORPUS:
    command = said.partition('python -m gptjax.data.prepare ')[2]
    with pytest.raises(InputError, match=r'no file has this name|encoder_bpe_40000|OfflineMode'):
      prepare.main(shlex.split(command))  # all its flags are known; the text is what is not there
    assert '--tokenizer=' in command and '/corpora/' in command.partition('--out=')[2]
    assert ' of text, ' in said and ' tokens, ' in said, 'size and time'


def test_a_model_that_does_not_fit_is_refused_before_its_corpus_is_missed(tmp_path, monkeypatch):
  said = run_as_it_is('gpt2_xl', tmp_path, monkeypatch, there=16 * 10**9)
  assert 'needs at least' in said and 'has 16,000,000,000' in said and 'python -m gptjax.plan' in said


def test_the_command_without_a_workdir_is_refused_in_one_line(tmp_path):
  done = as_it_is('gpt2_xl.py', tmp_path)
  assert done.returncode == 2 and done.stderr.startswith('gptjax: ') and done.stderr.count('\n') == 1
  assert not os.listdir(tmp_path)


def test_the_workdir_is_named_after_the_config():
  from gptjax.main import default_workdir
  assert default_workdir('configs/gpt2_xl.py') == 'runs/gpt2_xl'
  assert default_workdir('configs/gpt1_finetune.py:sst2,cola') == 'runs/gpt1_finetune-sst2,cola'


@pytest.mark.ci
def test_a_config_without_a_workdir_trains_in_one_of_its_name_and_resumes(tmp_path):
  (tmp_path / 'text').mkdir()
  for i in range(30):
    (tmp_path / 'text' / f'{i}.txt').write_text('All the world is a stage, and all men are players. ' * 20)
  (tmp_path / 'mine.py').write_text(
    'from configs import default\n'
    'def get_config():\n'
    '  config = default.get_config()\n'
    "  config.data.update(dict(source='text:text/*.txt', tokenizer='train-bpe:290', seq_len=16))\n"
    '  config.model.update(dict(n_layer=1, n_head=2, n_embd=16, n_ctx=16, n_vocab=290))\n'
    '  config.train.update(dict(steps=2, batch_size=4))\n'
    '  config.eval.steps = 1\n'
    '  config.log.tensorboard = False\n'
    '  return config\n')
  for _ in range(2):
    done = subprocess.run([sys.executable, '-m', 'gptjax.main', '--config=mine.py'], cwd=tmp_path,
                          env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True,
                          timeout=200)
    assert done.returncode == 0, done.stderr
    assert f'workdir {tmp_path}/runs/mine\n' in done.stderr
  assert 'training ended after step 2' in done.stderr
  assert (tmp_path / 'runs' / 'mine' / 'config.json').exists()


def test_domains_read_as_sentences():
  assert domains.violation(domains.integer(1, 8), 9) == '= 9 must be a whole number from 1 to 8'
  assert domains.violation(domains.real(0, 1, open_right=True), 1.0) == '= 1.0 must be a number in [0, 1)'
  assert domains.violation(domains.integer(1), 2) == ''
