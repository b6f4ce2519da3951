"""Real processes that are told to stop at any moment: what they say, their exit code, what is left.

Most of them send the signal themselves, at a moment that tests/command/signalled/sitecustomize.py finds.
"""

import os
import pty
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ENVIRONMENT, ROOT, command, train
from hosts import run_script, start, wait
from runs import steps_logged

from gptjax.command import shutdown
from gptjax.storage import checkpoint

SHORT = ('--config.train.steps=4', '--config.checkpoint.every_steps=0', '--config.eval.every_steps=0',
         '--config.eval.ngrams=False')
NOT_BEGUN = 'stopped before the first step; nothing is lost: run the same command again'
CONTINUES = 'stopped; run the same command again to continue'
slow = pytest.mark.slow


def signalled(at, number, *, busy=False, only=''):
  """The environment of a process that sends itself a signal at a moment."""
  return {'SIGNAL_AT': at, 'SIGNAL': str(int(number)), 'SIGNAL_BUSY': '1' if busy else '',
          'SIGNAL_ONLY': only, 'PYTHONPATH': f'{ROOT / "tests" / "command" / "signalled"}{os.pathsep}{ROOT}'}


def after(said):
  """The lines that follow the moment of the signal."""
  return said.partition('the moment\n')[2].splitlines()


# moment, signal, in a call that is not Python's, flags, exit code, what is said at once, the last checkpoint
MOMENTS = [
  ('absl', 'INT', False, (), 75, NOT_BEGUN, 0),
  ('jax', 'TERM', False, (), 75, NOT_BEGUN, 0),
  ('gptjax.pretrain.loop', 'HUP', True, (), 75, NOT_BEGUN, 0),
  pytest.param('gptjax.pretrain.loop:device_batches', 'USR1', False, (), 75, NOT_BEGUN, 0, marks=slow),
  pytest.param('gptjax.pretrain.loop:initial_state', 'TERM', False, (), 75, NOT_BEGUN, 0, marks=slow),
  ('gptjax.pretrain.loop:begin_compiling', 'INT', True, (), 75, NOT_BEGUN, 0),
  pytest.param('gptjax.pretrain.loop:Evaluation', 'USR1', False, (), 75, 'stopping after this step', 4,
               marks=slow),
  ('gptjax.generate.generation:sample', 'INT', True, ('--config.log.sample_tokens=8',), 75,
   'to write the report', 4),
  pytest.param('gptjax.report.telemetry:plot_curves', 'TERM', False, (), 75, 'to write the report', 4,
               marks=slow),
  pytest.param('gptjax.parallel.processes:shut_down', 'TERM', False, (), 0, 'everything is saved, exiting', 4,
               marks=slow),
  ('exit', 'TERM', False, (), 0, '', 4)]


@pytest.mark.ci
@pytest.mark.parametrize('at, name, busy, flags, code, line, step', MOMENTS)
def test_at_every_moment(corpus_folder, tmp_path, at, name, busy, flags, code, line, step):
  number = signal.Signals[f'SIG{name}']
  done = train(corpus_folder, tmp_path / 'run', *SHORT, *flags, env=signalled(at, number, busy=busy))
  said = after(done.stderr)
  assert done.returncode == code and 'Traceback' not in done.stderr, done.stderr
  if line:
    assert re.match(f'gptjax: {"Ctrl-C" if name == "INT" else number.name}: .*{line}', said[0]), done.stderr
  assert len(said) <= 2, 'one line at once, and perhaps one about what is saved'
  assert checkpoint.steps(tmp_path / 'run' / 'checkpoints') == [step] * bool(step)


@pytest.mark.ci
def test_while_the_corpus_is_prepared_and_then_again(tmp_path):
  (tmp_path / 'text').write_text('the blue stone never sings\n' * 2000)
  flags = (*SHORT, f'--config.data.source=text:{tmp_path / "text"}', '--config.data.tokenizer=train-bpe:260',
           f'--config.data.corpus={tmp_path / "corpus"}', '--config.data.validation_fraction=0',
           '--config.model.n_vocab=260')
  done = train('', tmp_path / 'run', *flags,
               env=signalled('gptjax.data.stages.encode_part:encode_part', signal.SIGINT))
  assert done.returncode == 75
  assert after(done.stderr) == [
    'gptjax: Ctrl-C: stopped while the corpus is prepared: run the same command again to continue after the '
    'parts that are complete']
  done = train('', tmp_path / 'run', *flags)
  assert done.returncode == 0 and 'step 4/4' in done.stderr, done.stderr


@pytest.mark.ci
def test_a_second_signal_ends_it_at_once(corpus_folder, tmp_path):
  """In the training loop, in a call that does not return."""
  process = subprocess.Popen(
    command(corpus_folder, tmp_path, *SHORT), cwd=ROOT, stderr=subprocess.PIPE, text=True,
    env={**ENVIRONMENT, **signalled('gptjax.pretrain.loop:Evaluation', signal.SIGTERM, busy=True)})
  for line in process.stderr:
    if 'stopping after this step' in line:
      process.send_signal(signal.SIGINT)
  assert process.wait(60) == -signal.SIGINT


SECOND = """
import os, signal, sys
from gptjax.command import shutdown
shutdown.catch('x', 'stopped')
shutdown.defer_signal('stopping')
for name in sys.argv[1:]:
  shutdown._handle(signal.Signals[f'SIG{name}'])
os.kill(os.getpid(), signal.SIGUSR1)  # and so it is where no Python runs
if 'SLURM_JOB_ID' in os.environ and 'TERM' in sys.argv[-1:]:
  os.kill(os.getpid(), signal.SIGTERM)
assert shutdown.signalled()
"""


@pytest.mark.parametrize('names, code', [
  ('TERM INT', -signal.SIGINT), ('INT INT', -signal.SIGINT), ('HUP TERM', -signal.SIGTERM),
  ('TERM HUP', -signal.SIGHUP), ('HUP HUP', 0), ('USR1', 0), ('USR1 USR1', 0), ('TERM USR1', 0),
  ('HUP USR1', 0), ('USR1 TERM', 0), ('USR1 HUP USR1 HUP', 0), ('USR1 TERM USR1 TERM', -signal.SIGTERM)])
def test_which_signal_is_the_second(names, code):
  done = subprocess.run([sys.executable, '-c', SECOND, *names.split()], cwd=ROOT, capture_output=True,
                        text=True, timeout=60)
  assert done.returncode == code, done.stderr


@pytest.mark.parametrize('names, code', [
  ('TERM TERM TERM', 0), ('USR1 TERM USR1 TERM', 0), ('TERM INT', -signal.SIGINT),
  ('INT TERM', -signal.SIGTERM)])
def test_under_slurm_sigterm_counts_once(names, code):
  """Slurm sends it twice when it preempts a job."""
  done = subprocess.run([sys.executable, '-c', SECOND, *names.split()], cwd=ROOT, capture_output=True,
                        text=True, timeout=60, env={**os.environ, 'SLURM_JOB_ID': '7'})
  assert done.returncode == code, done.stderr


@pytest.mark.parametrize('ignored', ['', 'HUP', 'INT', 'HUP INT'])
def test_what_is_ignored_from_the_start_stays_so(ignored):
  """SIGHUP under nohup, SIGINT in the background of a script; not SIGTERM."""
  code = ('import os, signal\nfrom gptjax.command import shutdown\nshutdown.catch("x", "stopped")\n'
          'print(*[n.name[3:] for n in shutdown.STOPS if signal.getsignal(n) == signal.SIG_IGN])\n'
          f'for name in {ignored.split()}: os.kill(os.getpid(), signal.Signals["SIG" + name])\n')
  shell = ['bash', '-c', f'trap "" {ignored or "WINCH"}; exec "$@"', 'bash']
  done = subprocess.run([*shell, sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                        timeout=60)
  assert done.returncode == 0 and set(done.stdout.split()) == set(ignored.split()), done.stderr


@pytest.mark.slow
def test_a_terminal_that_closes_stops_a_run_and_it_saves(corpus_folder, tmp_path):
  """The run leads the session of a terminal: the kernel sends SIGHUP when that goes, and we a second one."""
  ours, theirs = pty.openpty()
  program = ('import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); '
             'os.execv(sys.argv[1], sys.argv[1:])')
  process = subprocess.Popen(
    [sys.executable, '-c', program, *command(corpus_folder, tmp_path, '--config.train.steps=100000')],
    cwd=ROOT, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
  os.close(theirs)
  said = b''
  while b'step' not in said or steps_logged(tmp_path) < 3:
    said += os.read(ours, 1 << 16)
  os.close(ours)
  process.send_signal(signal.SIGHUP)
  assert process.wait(60) == 75
  assert checkpoint.steps(tmp_path / 'checkpoints')[-1] == steps_logged(tmp_path) >= 3


# Commands without a workdir


@pytest.mark.parametrize('module, at, name, code, line', [
  ('gptjax.generate', 'jax', 'INT', 130, 'generate: Ctrl-C: stopped'),
  ('gptjax.plan', 'jax', 'TERM', 143, 'plan: SIGTERM: stopped'),
  ('gptjax.data.prepare', 'numpy', 'INT', 130, f'prepare: Ctrl-C: {CONTINUES}'),
  ('gptjax.data.inspect', 'numpy', 'HUP', 129, 'inspect: SIGHUP: stopped'),
  ('gptjax.data.tokenizers', 'numpy', 'TERM', 143, 'tokenizers: SIGTERM: stopped'),
  ('gptjax.evaluate.overlap', 'numpy', 'USR1', 138, f'overlap: SIGUSR1: {CONTINUES}'),
  ('gptjax.report', 'jax', 'INT', 130, 'report: Ctrl-C: stopped'),
  ('gptjax.pretrained', 'jax', 'INT', 130, 'export: Ctrl-C: stopped'),
  ('gptjax.pretrained import', 'jax', 'INT', 130, 'import: Ctrl-C: stopped'),
  ('gptjax.benchmark', 'jax', 'TERM', 143, 'gptjax.benchmark: SIGTERM: stopped')])
def test_commands_end_in_one_line(module, at, name, code, line):
  # With a flag, for without arguments nothing large is imported.
  done = subprocess.run([sys.executable, '-m', *module.split(), '--x'], cwd=ROOT, capture_output=True,
                        text=True, timeout=60,
                        env={**ENVIRONMENT, **signalled(at, signal.Signals[f'SIG{name}'])})
  assert done.returncode == code and after(done.stderr) == [line], done.stderr


UNWINDS = """
import sys, tempfile
from gptjax.command import shutdown, startup
startup.begin('x', 'stopped')
from gptjax.benchmark import interleave
shutdown.unwind_on_signal('ending')
with tempfile.TemporaryDirectory(dir='.') as folder:
  worker = ['bash', '-c', 'echo {}; echo $$ >new; mv new pid; exec sleep 1000']
  if sys.argv[1] == 'interleaved':
    interleave.interleaved({'a': worker}, None, 1)
  else:
    interleave.output_of(worker)
"""


@pytest.mark.parametrize('function', ['interleaved', 'output_of'])
@pytest.mark.parametrize('name, group', [('INT', True), ('HUP', True), ('TERM', False), ('USR1', False)])
def test_a_benchmark_takes_its_workers_and_files_along(tmp_path, function, name, group):
  """Ctrl-C and the end of a terminal reach its workers as well."""
  process = subprocess.Popen([sys.executable, '-c', UNWINDS, function], cwd=tmp_path, stderr=subprocess.PIPE,
                             text=True, env={**ENVIRONMENT, 'PYTHONPATH': str(ROOT)}, start_new_session=True)
  while not (tmp_path / 'pid').exists():
    assert process.poll() is None
    time.sleep(0.01)
  number = signal.Signals[f'SIG{name}']
  (os.killpg if group else os.kill)(process.pid, number)
  said = process.communicate(timeout=60)[1]
  assert process.returncode == 128 + number
  assert said == f'x: {"Ctrl-C" if name == "INT" else number.name}: ending\n'
  worker = int((tmp_path / 'pid').read_text())
  (tmp_path / 'pid').unlink()
  assert not list(tmp_path.iterdir())
  with pytest.raises(ProcessLookupError):
    os.kill(worker, 0)


@pytest.mark.parametrize('then, until, code', [
  ('', 'False', 143), ('shutdown.exit_on_signal("at once")', 'False', 75),
  ('shutdown.defer_signal("later")', 'shutdown.signalled()', 0)])
def test_a_job_inside_a_command_that_unwinds_stops_in_its_own_way(then, until, code):
  program = ('import os, signal\nfrom gptjax.command import shutdown\nshutdown.catch("x", "stopped")\n'
             f'shutdown.unwind_on_signal("unwinding")\n{then}\ntry:\n  os.kill(os.getpid(), signal.SIGTERM)\n'
             f'  while not {until}: pass\nfinally: print("left")\n')
  done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=60)
  assert done.returncode == code and (done.stdout == 'left\n') == (code != 75), done.stderr


@pytest.mark.ci
def test_ctrl_c_reaches_workers_too_and_none_of_them_says_a_word(tmp_path):
  for name in 'ab':  # of two parts
    (tmp_path / f'text{name}').write_text('the blue stone never sings\n' * 170_000)
  out = tmp_path / 'corpus'
  line = [sys.executable, '-m', 'gptjax.data.prepare', f'--source=text:{tmp_path}/text?', '--workers=2',
          '--tokenizer=train-bpe:260', '--validation_fraction=0', f'--out={out}']
  # The signal comes while the workers are importing; they go on once the process that started them has ended.
  module = tmp_path / 'late' / 'sitecustomize.py'
  module.parent.mkdir()
  module.write_text(f"""
import os, sys, time
if 'multiprocessing.spawn' in str(sys.orig_argv):
  parent = os.getppid()
  open({str(tmp_path)!r} + '/worker-' + str(os.getpid()), 'w').close()
  while os.getppid() == parent:
    time.sleep(0.01)
""")
  process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
                             env={**ENVIRONMENT, 'PYTHONPATH': f'{module.parent}{os.pathsep}{ROOT}'})
  while len(list(tmp_path.glob('worker-*'))) < 2:
    assert process.poll() is None
    time.sleep(0.01)
  os.killpg(process.pid, signal.SIGINT)
  said = process.communicate(timeout=60)[1]  # to the end of the workers, which have the same stderr
  assert process.returncode == 130 and said.endswith(f'prepare: Ctrl-C: {CONTINUES}\n'), said
  assert 'Traceback' not in said
  subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, check=True, timeout=60)
  assert (out / 'manifest.json').exists()


# Several processes


@pytest.mark.parametrize('who', [0, pytest.param(1, marks=slow)])
def test_a_signal_before_there_is_anything_to_save_ends_all(who):
  for code, _, error in run_script(2, f'begin{who}'):
    assert code == 75 and NOT_BEGUN in error.splitlines()[-1], error


@pytest.mark.ci
@pytest.mark.parametrize('who', [pytest.param(0, marks=slow), 1])
def test_a_signal_after_a_process_has_left_its_steps_hangs_none(who):
  for code, _, error in run_script(2, f'left{who}'):
    assert code == 0 and 'Traceback' not in error and 'Exception' not in error, error


@slow
@pytest.mark.parametrize('who', [0, 1])
@pytest.mark.parametrize('at, codes, step', [
  ('gptjax.pretrain.loop:begin_compiling', {75}, 0), ('gptjax.pretrain.loop:Evaluation', {75}, 4),
  ('gptjax.generate.generation:sample', {75}, 4), ('gptjax.parallel.processes:shut_down', {0, 75}, 4),
  ('exit', {0}, 4)])
def test_at_every_moment_of_two(corpus_folder, tmp_path, who, at, codes, step):
  running = start(corpus_folder, tmp_path / 'run', 2, *SHORT, '--config.log.sample_tokens=8',
                  env=signalled(at, signal.SIGTERM, only=f'--process_id={who}'))
  ended = wait(running, tmp_path / 'run')
  assert {code for code, _ in ended} <= codes and len({code for code, _ in ended}) == 1, ended
  assert not any('Traceback' in error or 'Exception' in error for _, error in ended), ended
  assert checkpoint.steps(tmp_path / 'run' / 'checkpoints') == [step] * bool(step)


@slow
def test_sighup_to_local_sh_stops_its_processes_and_they_save(corpus_folder, tmp_path):
  workdir = tmp_path / 'run'
  flags = [f'--config={ROOT}/configs/quickstart.py', *command(corpus_folder, workdir)[4:]]
  process = subprocess.Popen(['launch/local.sh', '2', *flags, '--config.train.steps=100000'], cwd=ROOT,
                             env={**ENVIRONMENT, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)},
                             stderr=subprocess.PIPE, text=True)
  while steps_logged(workdir) < 3 and process.poll() is None:
    time.sleep(0.05)
  process.send_signal(signal.SIGHUP)
  said = process.communicate(timeout=100)[1]
  assert process.returncode == 75 and 'SIGHUP: stopping after this step' in said, said
  assert checkpoint.steps(workdir / 'checkpoints')[-1] == steps_logged(workdir)


# In a process that calls a job as a function


def test_a_job_that_is_called_as_a_function_leaves_the_process_as_it_was():
  before = [signal.getsignal(number) for number in shutdown.STOPS]
  with shutdown.catching('stopping'):
    shutdown.exit_on_signal('stopped')
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
      os.kill(os.getpid(), number)
    assert shutdown.signalled()
    shutdown.exit_on_signal('stopped')
  assert [signal.getsignal(number) for number in shutdown.STOPS] == before
  with shutdown.catching('stopping'):
    assert not shutdown.signalled()


HELD = """
import os, signal, sys, time
from gptjax.command import shutdown, startup
startup.begin('name', 'stopped')
shutdown.unwind_on_signal('ending')
process = None
try:
  with shutdown.block_signals():
    os.kill(os.getpid(), signal.SIGTERM)
    while not shutdown.signalled():
      time.sleep(0.01)
    process = 'started'
  print('went on')
finally:
  print(process)
"""


def test_a_signal_while_a_process_is_being_started_is_handled_once_it_can_be_ended():
  done = subprocess.run([sys.executable, '-c', HELD], capture_output=True, text=True, cwd=ROOT,
                        env=ENVIRONMENT)
  assert (done.returncode, done.stdout) == (143, 'started\n'), done
