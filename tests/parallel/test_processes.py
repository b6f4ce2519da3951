"""Real processes over gloo: they start together, survive what is done to one of them, and end together."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, command, slow_except
from hosts import HOST_PROCESS, TOKEN, free_port, last_line, run, run_script, start, wait
from runs import LONG, after, arrays, assert_same_run, in_save, losses, storm

from gptjax.parallel import compiling, processes
from gptjax.storage import checkpoint

DEAD = 'http://127.0.0.1:9'  # a proxy where nothing listens


# Without a model: tests/parallel/host_process.py


@pytest.mark.ci
def test_what_process_0_knows_all_know():
  for code, said, error in run_script(2, 'told'):
    assert code == 0, error
    assert "{'by': 0, 'list': [1, None]}" in said


@pytest.mark.ci
def test_without_a_token_the_processes_start_with_a_warning():
  (_, said, warned), (_, too, nothing) = run_script(2, 'told', GPTJAX_RUN_TOKEN='')
  assert "{'by': 0" in said and "{'by': 0" in too and not nothing, nothing
  assert len(warned.splitlines()) == 1 and 'set GPTJAX_RUN_TOKEN' in warned, warned


@pytest.mark.ci
def test_with_another_token_a_process_is_not_let_in():
  port, signs = free_port(), tempfile.mkdtemp()
  running = [subprocess.Popen(
    [sys.executable, HOST_PROCESS, str(port), '2', str(i), 'told'], cwd=ROOT,
    env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT), 'SIGNS': signs, 'PRESENT': '2', 'START_LIMIT': '3',
         'GPTJAX_RUN_TOKEN': f'a token, that of {i}'}, stderr=subprocess.PIPE, text=True) for i in range(2)]
  errors = [process.communicate(timeout=60)[1] for process in running]
  shutil.rmtree(signs)
  assert [process.returncode for process in running] == [70, 2], errors
  assert 'has another token' in last_line(errors[0]) and 'give all processes the same' in last_line(errors[1])


def test_tensor_and_what_is_inside_a_replica_stay_inside_a_host():
  for code, said, error in run_script(2, 'mesh', JAX_NUM_CPU_DEVICES='4'):
    assert code == 0, error
    for line in said.splitlines():  # the outermost axis goes over hosts
      assert json.loads(line) == 4 * [0] + 4 * [1]


@pytest.mark.ci
def test_a_difference_stops_all_and_names_host_and_field():
  for code, _, error in run_script(2, 'differ'):
    assert code == 2
    here = socket.gethostname()
    assert f'config.b is [1] in process 1 of 2 ({here}), but [0] in process 0' in last_line(error)


@pytest.mark.ci
def test_who_has_not_come_is_named():
  for code, _, error in run_script(3, 'told', absent=[1], START_LIMIT='3'):
    assert code == 70
    assert 'of 3 processes these did not connect within 3 s: 1; connected: 0' in last_line(error)


def test_without_process_0_the_others_say_so():
  (code, _, error), = run_script(2, 'told', absent=[0], START_LIMIT='2')
  assert code == 70 and 'got no answer from process 0' in last_line(error)


@pytest.mark.ci
@pytest.mark.parametrize('who', slow_except([0, 1], 1))
def test_one_is_killed_while_jax_starts_and_the_others_name_it_at_once(who):
  for i, (code, _, error) in enumerate(run_script(3, f'start{who}')):
    if i == who:
      assert code == -signal.SIGKILL
    else:
      assert code == 70 and f'process {who} of 3 (' in last_line(error), error
      assert len(error.splitlines()) == 1, error


@pytest.mark.ci
@pytest.mark.parametrize('who', slow_except([0, 1], 0))
def test_one_hangs_while_jax_starts_and_all_end_with_a_line(who):
  for code, _, error in run_script(2, f'stuck{who}', START_LIMIT='3'):
    assert code == 70 and last_line(error).startswith('gptjax: process '), error


@pytest.mark.ci
def test_a_roll_call_in_one_does_not_disturb_what_all_do():
  for code, _, error in run_script(2, 'roll'):
    assert code == 0, error


@pytest.mark.ci
def test_a_barrier_that_all_have_reached_lets_pass_whatever_the_time():
  for code, _, error in run_script(2, 'no wait'):
    assert code == 0, error


def hits_and_misses(cache, n=2, **env):
  """Of the compilation cache, in each process."""
  ended = run_script(n, 'compile', CACHE=str(cache), **env)
  assert [code for code, *_ in ended] == [0] * n, ended
  return [tuple(map(int, said.split('misses')[1].split())) for _, said, _ in ended]


@pytest.mark.ci
def test_the_second_start_finds_all_programs_of_all_processes_in_the_cache(tmp_path):
  first, second = hits_and_misses(tmp_path), hits_and_misses(tmp_path)
  assert all(misses > 1 for _, misses in first)
  assert second == [(hits + misses, 0) for hits, misses in first]


@pytest.mark.ci
def test_none_runs_a_program_before_all_have_compiled_it(tmp_path):
  """Nor where the cache is a disk of each host, of which one has been lost."""
  cache = tmp_path / '{}'
  first = hits_and_misses(cache)
  shutil.rmtree(tmp_path / '1')
  second = hits_and_misses(cache, LATE='1', MARKER=str(tmp_path / 'compiled'))
  total = [sum(both) for both in first]
  assert second == [(total[0], 0), (0, total[1])]
  assert hits_and_misses(cache) == [(count, 0) for count in total]


@pytest.mark.parametrize('limit, waited', [(0, 24 * 3600), (7200, 7200), (10, processes.LIMIT)])
def test_all_barriers_wait_as_long_as_a_compilation_may_take(monkeypatch, limit, waited):
  """One process may find a program of its own in the cache, and the next compiles it."""
  limits = []
  for function in ('compile_or_get_cached', '_cache_write'):
    monkeypatch.setattr(compiling.compiler, function, None)  # restored afterwards
  monkeypatch.setattr(processes, '_limit', processes.LIMIT)
  monkeypatch.setattr(processes, 'is_multiprocess', lambda: True)
  monkeypatch.setattr(processes, 'process_index', lambda: 1)
  monkeypatch.setattr(processes, 'gather', lambda name, text, limit, participants: limits.append(limit))
  monkeypatch.setattr(processes.control, 'wait_for_key', lambda key, limit: limits.append(limit) or '{}')
  compiling.synchronize(limit)
  processes.on_process_0(None)
  processes.on_process_0(None, 1)
  processes.barrier('end of a test')
  processes.compare({})
  assert limits == [waited] * 5
  processes.on_process_0(None, 10 * waited)
  processes.barrier('short', 1)
  assert limits[5:] == [10 * waited, 1]


@pytest.mark.ci
@pytest.mark.parametrize('who', slow_except([0, 1], 1))
def test_a_signal_to_one_stops_all_after_the_same_step(who):
  ended = run_script(2, f'term{who}')
  assert [code for code, *_ in ended] == [0, 0], ended
  after = [line for _, said, _ in ended for line in said.splitlines() if 'stopped after' in line]
  assert len(after) == 2 and len(set(after)) == 1


@pytest.mark.ci
def test_all_save_after_the_same_steps_by_the_clock_of_process_0_and_still_stop_together():
  ended = run_script(3, 'timed saves')
  assert [code for code, *_ in ended] == [0, 0, 0], ended
  said = [line for _, said, _ in ended for line in said.splitlines() if 'saved after' in line]
  assert len(said) == 3 and len(set(said)) == 1, said
  saved = json.loads(said[0].partition('[')[1] + said[0].partition('[')[2].partition(']')[0] + ']')
  assert len(saved) >= 3 and saved == sorted(set(saved))


@pytest.mark.ci
@pytest.mark.parametrize('n, who', [(2, 1), pytest.param(2, 0, marks=pytest.mark.slow),
                                    pytest.param(4, 2, marks=pytest.mark.slow)])
def test_one_is_killed_and_the_others_name_it(n, who):
  for i, (code, _, error) in enumerate(run_script(n, f'kill{who}')):
    if i == who:
      assert code == -signal.SIGKILL
    else:
      assert code == 70, error
      assert f'process {who} of {n} (' in last_line(error) and 'does not answer' in last_line(error)


@pytest.mark.slow
@pytest.mark.parametrize('who', [0, 1])
def test_one_hangs_and_the_other_names_it(who):
  ended = run_script(2, f'halt{who}')
  code, _, error = ended[1 - who]
  assert code == 70 and f'process {who} of 2' in last_line(error) and 'does not answer' in last_line(error)


@pytest.mark.slow
@pytest.mark.parametrize('what, code, says', [
  ('raise1', 2, 'no space left on the disk'), ('raise0', 2, 'no space left on the disk'),
  ('bug1', 1, "KeyError: 'a bug'"), ('unpack0', 1, 'ValueError: not enough values'),
  ('library1', 1, 'JSONDecodeError'), ('late', 70, 'did not reach the barrier "start" within 1 s')])
def test_an_exception_in_one_is_the_last_line_of_all(what, code, says):
  for ended, _, error in run_script(2, what):
    assert ended == code
    assert last_line(error).startswith('gptjax: ') and says in last_line(error), error


@pytest.mark.ci
@pytest.mark.parametrize('address, env', [
  ('localhost', {'http_proxy': DEAD, 'grpc_proxy': DEAD, 'all_proxy': DEAD, 'no_proxy': 'x'}),
  pytest.param('::1', {'https_proxy': DEAD, 'HTTPS_PROXY': DEAD, 'no_grpc_proxy': 'x'},
               marks=pytest.mark.slow)])
def test_no_proxy_is_between_the_processes(address, env):
  for code, said, error in run_script(2, 'told', ADDRESS=address, **env):
    assert code == 0 and not error, error
    assert "{'by': 0, 'list': [1, None]}" in said


def test_half_an_environment_is_not_asked_where_all_flags_are_given():
  half = {'SLURM_STEP_NODELIST': 'a', 'SLURM_NTASKS': 'x', 'SLURM_PROCID': '7', 'SLURM_JOB_ID': '1',
          'OMPI_MCA_orte_hnp_uri': 'x', 'TPU_WORKER_HOSTNAMES': 'a,b', 'KUBERNETES_SERVICE_HOST': '127.0.0.1'}
  for code, _, error in run_script(2, 'told', **half):
    assert code == 0 and not error, error


def alone(**env):
  """host_process.py without flags, in an environment."""
  return subprocess.run(
    [sys.executable, HOST_PROCESS, '0', '0', '0', 'alone'], cwd=ROOT, text=True,
    env={**ENVIRONMENT, **TOKEN, 'PYTHONPATH': str(ROOT), 'SIGNS': os.devnull, **env}, timeout=60,
    capture_output=True)


STEP = {'SLURM_JOB_ID': '1', 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '4', 'SLURM_PROCID': '0',
        'SLURM_LOCALID': '0', 'JAX_COORDINATOR_PORT': ''}


@pytest.mark.first_cases(1)
@pytest.mark.parametrize('env, code, says', [
  ({}, 0, '1 process'), ({**STEP, 'SLURM_STEP_NUM_TASKS': '1'}, 0, '1 process'),
  ({**STEP, 'SLURM_PROCID': 'x'}, 2, "SLURM_PROCID='x' is not a non-negative integer"),
  ({'OMPI_COMM_WORLD_SIZE': '2'}, 2, 'OMPI_COMM_WORLD_SIZE=2 means'),
  ({**STEP, 'START_LIMIT': '1'}, 70,
   'SLURM_NTASKS=4 made this one of 4 processes; --num_processes=1 runs a single process')])
def test_what_an_environment_says_is_one_line(env, code, says):
  if 'JAX_COORDINATOR_PORT' in env:
    env = {**env, 'JAX_COORDINATOR_PORT': str(free_port())}
  ended = alone(**env)
  assert ended.returncode == code, ended.stderr
  assert says in (last_line(ended.stderr) if code else ended.stdout), ended
  assert 'Traceback' not in ended.stderr and len(ended.stderr.splitlines()) == bool(code), ended.stderr


@pytest.mark.ci
@pytest.mark.parametrize('who', slow_except([0, 2], 2))
def test_one_is_told_to_stop_before_all_are_there_and_ends_those_that_are(who):
  ended = run_script(4, f'early{who}', absent=[3], START_LIMIT='50')
  assert [code for code, *_ in ended] == [75] * 3, ended
  for i, (_, _, error) in enumerate(ended):
    assert i == who or (f'process {who} of 4 (' in last_line(error) and 'SIGTERM' in last_line(error)), error


@pytest.mark.ci
@pytest.mark.parametrize('who', slow_except([0, 1], 1))
def test_one_is_told_to_stop_while_jax_starts_and_ends_all(who):
  for i, (code, _, error) in enumerate(run_script(3, f'told-to-stop{who}')):
    assert code == 75, error
    assert i == who or (f'process {who} of 3 (' in last_line(error) and 'SIGTERM' in last_line(error)), error


# Whole runs


@pytest.fixture(scope='module')
def undisturbed(corpus_folder, tmp_path_factory):
  """The workdir of a run of two processes that nothing happened to."""
  workdir = tmp_path_factory.mktemp('hosts') / 'undisturbed'
  run(corpus_folder, workdir, 2)
  return workdir


@pytest.mark.slow
def test_told_to_one_of_two_all_save_the_same_step_and_go_on(undisturbed, corpus_folder, tmp_path):
  workdir = tmp_path / 'run'
  ended = wait(start(corpus_folder, workdir, 2, at=(after(workdir, 7), signal.SIGTERM, [1])), workdir)
  assert [code for code, _ in ended] == [75, 75], ended
  assert not any('Traceback' in error for _, error in ended)
  step = checkpoint.steps(workdir / 'checkpoints')[-1]
  assert 7 <= step < 30 and f'stopped after step {step}' in ended[0][1]
  assert f'resuming after step {step}' in run(corpus_folder, workdir, 2)[0][1]
  assert_same_run(workdir, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize('n', [2, 4])
def test_one_is_killed_at_any_moment_and_the_run_goes_on_bit_for_bit(corpus_folder, tmp_path, n):
  rng = random.Random(n)
  run(corpus_folder, tmp_path / 'undisturbed', n)
  workdir = tmp_path / 'run'
  for point in (after(workdir, 3), in_save(workdir, 10, 3), after(workdir, 17)):
    who = rng.randrange(n)
    ended = wait(start(corpus_folder, workdir, n, at=(point, signal.SIGKILL, [who])), workdir)
    assert time.time() - os.stat(f'{workdir}.told').st_mtime < processes.HEARTBEAT_LIMIT
    assert ended[who][0] == -signal.SIGKILL, ended
    for i, (code, error) in enumerate(ended):
      if i != who:
        assert code == 70 and f'process {who} of {n} (' in last_line(error), (i, who, code, error)
  run(corpus_folder, workdir, n)
  assert_same_run(workdir, tmp_path / 'undisturbed')


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_storm_of_kills(corpus_folder, tmp_path):
  """Of one process or of both, at random; export and fsdp on."""
  flags = *LONG, '--config.train.steps=160', '--config.checkpoint.export=True', '--config.mesh.fsdp=2'
  run(corpus_folder, tmp_path / 'whole', 2, *flags, limit=240)
  workdir, rng = tmp_path / 'run', random.Random(3)
  for point in storm(workdir, 8):
    who = rng.choice(([0], [1], [0, 1]))
    ended = wait(start(corpus_folder, workdir, 2, *flags, at=(point, signal.SIGKILL, who)), workdir)
    assert all(code == -signal.SIGKILL if i in who else code not in (0, -signal.SIGKILL)
               for i, (code, _) in enumerate(ended)), (point, who, ended)
  run(corpus_folder, workdir, 2, *flags, limit=240)
  assert losses(workdir) == losses(tmp_path / 'whole')
  assert arrays(workdir, 160) == arrays(tmp_path / 'whole', 160)
  for name in ('model.safetensors', 'config.json'):
    assert (workdir / 'export' / name).read_bytes() == (tmp_path / 'whole' / 'export' / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize('who', [0, 1])
def test_one_is_stuck_and_the_watchdog_of_the_other_ends_it(corpus_folder, tmp_path, who):
  workdir, limit = tmp_path / 'run', 8
  running = start(corpus_folder, workdir, 2, f'--config.watchdog.step_timeout={limit}',
                  '--config.train.steps=5000', '--config.checkpoint.every_steps=0',
                  '--config.eval.every_steps=0', at=(after(workdir, 5), signal.SIGSTOP, [who]))
  code = running[1 - who].wait(240)
  assert time.time() - os.stat(f'{workdir}.told').st_mtime < processes.HEARTBEAT_LIMIT
  running[who].kill()
  error = wait(running, workdir)[1 - who][1]
  assert code == 70 and 'Thread 0x' in error and f'step_timeout = {limit} s' in last_line(error), error
  assert f'process {who} of 2' in last_line(error)


@pytest.mark.slow
def test_a_bad_shard_on_one_host_ends_all_with_its_name(corpus_folder, tmp_path):
  for i in range(2):
    shutil.copytree(corpus_folder, tmp_path / f'host{i}' / 'made')
  shard = tmp_path / 'host1' / 'made' / 'train-00000.bin'
  data = bytearray(shard.read_bytes())
  data[100] ^= 1
  shard.write_bytes(data)
  workdir = tmp_path / 'run'
  ended = wait(start('made', workdir, 2, cwd=[tmp_path / 'host0', tmp_path / 'host1']), workdir)
  for code, error in ended:
    assert code == 2 and 'train-00000.bin' in last_line(error) and 'Traceback' not in error, error


@pytest.mark.slow
def test_another_config_on_one_host_ends_all(corpus_folder, tmp_path):
  workdir, port, running = tmp_path / 'run', free_port(), []
  for i in range(2):
    line = command(corpus_folder, workdir, f'--coordinator=127.0.0.1:{port}', '--num_processes=2',
                   f'--process_id={i}', f'--config.train.seed={i}')
    with open(f'{workdir}.{i}.err', 'w') as error:
      running.append(subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL,
                                      stderr=error))
  for code, error in wait(running, workdir):
    assert code == 2 and 'config.train.seed is 1 in process 1 of 2' in last_line(error), error
  assert not workdir.exists()


@pytest.mark.slow
def test_a_disk_that_one_host_cannot_write_ends_all(corpus_folder, tmp_path):
  workdir = tmp_path / 'run'
  limited = tmp_path / 'sitecustomize.py'
  limited.write_text('import resource, sys\nif "--process_id=1" in " ".join(sys.orig_argv):\n'
                     '  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n')  # stderr is shorter
  running = start(corpus_folder, workdir, 2, '--config.compilation_cache=', '--config.mesh.fsdp=2',
                  env={'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'})
  ended = wait(running, workdir)
  lines = [last_line(error) for _, error in ended]
  assert [code for code, _ in ended] == [2, 2] and 'process 1 of 2' in lines[0], ended
  assert 'File too large' in lines[0] and not any('Traceback' in error for _, error in ended), ended
  assert lines[1].removeprefix('gptjax: ') in lines[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_number_of_processes_and_devices_goes_on_with_the_same_run(corpus_folder, tmp_path):
  """1 -> 2 -> 4 processes, 8 -> 4 -> 1 -> 8 devices, and other meshes."""
  flags = '--config.train.microbatch_size=8', '--config.eval.batch_size=8'
  run(corpus_folder, tmp_path / 'one', 1, *flags)
  workdir = tmp_path / 'run'
  parts = [(1, 8, []), (2, 2, ['--config.mesh.fsdp=2']), (4, 1, []), (1, 1, []),
           (4, 2, ['--config.mesh.fsdp=4'])]
  for part, (n, devices, mesh) in enumerate(parts):
    told = (after(workdir, 5 * (part + 1)), signal.SIGTERM, [n - 1]) if part < len(parts) - 1 else None
    running = start(corpus_folder, workdir, n, *flags, *mesh, devices=devices, at=told)
    codes = [code for code, _ in wait(running, workdir)]
    assert codes == [75 if part < len(parts) - 1 else 0] * n
  one, many = losses(tmp_path / 'one'), losses(workdir)
  assert one.keys() == many.keys()
  for key in one:
    np.testing.assert_allclose(float.fromhex(one[key]), float.fromhex(many[key]), rtol=1e-5, err_msg=str(key))


# With no level for all of JAX, its handler for these modules prints nothing.
LOG_CACHE = {'JAX_LOGGING_LEVEL': 'WARNING', 'JAX_DEBUG_LOG_MODULES': 'jax._src.compiler',
             'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
SHORT = ('--config.train.steps=4', '--config.checkpoint.every_steps=2', '--config.eval.steps=1')


@pytest.mark.slow
@pytest.mark.parametrize('n', [1, 2])
def test_a_resume_compiles_no_step_that_the_first_start_has_compiled(corpus_folder, tmp_path, n):
  workdir, cache = tmp_path / 'run', f'--config.compilation_cache={tmp_path / "cache"}'
  run(corpus_folder, workdir, n, *SHORT, cache, env=LOG_CACHE)
  shutil.rmtree(workdir / 'checkpoints' / '4')
  for _, error in run(corpus_folder, workdir, n, *SHORT, cache, env=LOG_CACHE):
    assert "compilation cache hit for 'jit_train_step'" in error
    assert "CACHE MISS for 'jit_train_step'" not in error


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_step', 'eval_step', 'digests'])
def test_one_is_late_to_compile_by_more_than_gloo_waits(corpus_folder, tmp_path, name):
  workdir, cache = tmp_path / 'run', f'--config.compilation_cache={tmp_path / "cache"}'
  (tmp_path / 'sitecustomize.py').write_text(f"""
import sys, time
if '--process_id=1' in ' '.join(sys.orig_argv):
  from jax._src import compiler
  compile_ = compiler.backend_compile_and_load
  def late(backend, module, *args, **options):
    if '{name}' in str(module.operation.attributes['sym_name']):
      time.sleep(35)
      open({str(tmp_path / "was late")!r}, 'w').close()
    return compile_(backend, module, *args, **options)
  compiler.backend_compile_and_load = late
""")
  ended = run(corpus_folder, workdir, 2, *SHORT, cache, env={'PYTHONPATH': f'{ROOT}{os.pathsep}{tmp_path}'})
  assert (tmp_path / 'was late').exists() and 'step 4/4' in ended[0][1]


@pytest.mark.ci
def test_two_processes_train_and_what_they_save_is_whole(corpus_folder, tmp_path):
  import gptjax
  workdir = tmp_path / 'run [lr=3e-4]*\\'
  ended = run(corpus_folder, workdir, 2, '--config.train.steps=4', '--config.checkpoint.every_steps=2',
                '--config.eval.steps=1', '--config.log.sample_tokens=0')
  assert 'step 4/4' in ended[0][1] and 'step 4/4' not in ended[1][1]
  assert json.loads((workdir / 'config.json').read_text())['devices'][1] == 2
  assert checkpoint.find_fault(workdir / 'checkpoints' / '4', checkpoint.read_manifest(
    workdir / 'checkpoints' / '4')) is None
  model, tokenizer = gptjax.load(str(workdir))
  assert model(np.zeros((1, 4), np.int32)).shape == (1, 4, 290) and tokenizer.n_vocab == 290


@pytest.mark.ci
def test_the_time_to_connect_is_a_field(corpus_folder, tmp_path):
  """Where Python is loaded from a slow disk, processes start at different times."""
  line = command(corpus_folder, tmp_path, '--config.watchdog.connect_timeout=1.5')
  done = subprocess.run(
    [*line, f'--coordinator=127.0.0.1:{free_port()}', '--num_processes=2', '--process_id=0'], cwd=ROOT,
    env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
  assert done.returncode == 70 and 'did not connect within 2 s: 1' in last_line(done.stderr), done.stderr
