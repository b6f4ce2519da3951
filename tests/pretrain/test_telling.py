"""What only tells of a run never ends it: each row breaks it in one way, and the run is as if undisturbed."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import tty
import warnings

import pytest
from conftest import ENVIRONMENT, ROOT, command

from gptjax import errors
from gptjax.command import bars, figures, startup
from gptjax.command import streams as console
from gptjax.report import telemetry

LOSSES = {'train/loss', 'train/grad_norm', 'eval/loss'}
SHORT = ['--config.train.steps=3', '--config.eval.every_steps=3', '--config.checkpoint.every_steps=3']


def start(corpus, workdir, *flags, shell='exec "$@"', options=(), env=None, **streams):
  """Starts the real command in a shell, which can redirect its streams."""
  python, *rest = command(corpus, workdir, *SHORT, *flags)
  # Programs of any size are kept, so that each row but the first finds them.
  cache = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
  return subprocess.Popen(['bash', '-c', shell, 'bash', python, *options, *rest], cwd=ROOT, text=True,
                          env={**ENVIRONMENT, **cache, **(env or {})}, **streams)


def losses(workdir):
  """What the run measured, time and speed left out."""
  records = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [(record['step'], name, record[name]) for record in records
          for name in sorted(LOSSES & record.keys())]


@pytest.fixture(scope='module')
def undisturbed(corpus_folder, tmp_path_factory):
  folder = tmp_path_factory.mktemp('undisturbed')
  assert start(corpus_folder, folder, stderr=subprocess.DEVNULL).wait() == 0
  found = losses(folder)
  assert {name for _, name, _ in found} == LOSSES
  return found


def head(process):
  """Reads one line, and no more."""
  assert process.stdout.readline()
  process.stdout.close()


slow = pytest.mark.slow
STREAMS = [
  pytest.param('exec "$@" 2>&1', head, id='reader gone'),
  pytest.param('exec "$@" <&- >&- 2>&-', None, id='all closed'),
  pytest.param('exec "$@" >/dev/full 2>&1', None, id='disk of the log full'),
  pytest.param('exec "$@" 2>/dev/full', None, id='stderr on a full disk'),
  pytest.param('exec "$@" 2>&-', None, id='stderr closed'),
  pytest.param('exec "$@" >&-', None, id='stdout closed')]


@pytest.mark.slow
@pytest.mark.parametrize('shell, read', STREAMS)
def test_a_broken_stream_changes_nothing(shell, read, corpus_folder, tmp_path, undisturbed):
  process = start(corpus_folder, tmp_path, shell=shell, stdout=subprocess.PIPE)
  if read:
    read(process)
  else:
    said = process.stdout.read()
    assert said.count('cannot be written') == ('2>/dev/full' in shell)
  assert process.wait() == 0
  assert losses(tmp_path) == undisturbed
  assert (tmp_path / 'report.html').exists() and (tmp_path / 'curves.png').exists()


@pytest.mark.ci
def test_a_terminal_that_closes_changes_nothing(corpus_folder, tmp_path, undisturbed):
  ours, theirs = pty.openpty()
  process = start(corpus_folder, tmp_path, shell='trap "" HUP; exec "$@"', stdin=theirs, stdout=theirs,
                  stderr=theirs, start_new_session=True)
  os.close(theirs)
  assert os.read(ours, 1)
  os.close(ours)
  assert process.wait() == 0
  assert losses(tmp_path) == undisturbed


@pytest.mark.ci
def test_what_a_terminal_shows(corpus_folder, tmp_path):
  """One bar, which says when it compiles and gives one remaining time; none after the last step."""
  ours, theirs = pty.openpty()
  tty.setraw(theirs)  # or the kernel would write \r\n for \n
  fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 40, 120, 0, 0))
  process = start(corpus_folder, tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
  os.close(theirs)
  said = b''
  with contextlib.suppress(OSError):  # EIO: the last process that had the terminal open has ended
    while part := os.read(ours, 1 << 16):
      said += part
  os.close(ours)
  assert process.wait() == 0, said
  shown = re.split(r'[\r\n]', said.decode())
  bar = re.compile(r'\d+%\|')
  assert any(bar.search(text) and 'compiling the step' in text for text in shown)
  times = [re.findall(r'left\b|\d<[\d?]|/s\b.*?/s\b', text) for text in shown]
  assert max(map(len, times)) == 1 and all('<' not in found for text in times for found in text)
  last = next(i for i, text in enumerate(shown) if text.startswith('step 3/3  loss'))
  assert any('held-out text' in text for text in shown[last:])
  assert any(map(bar.search, shown[:last])) and not any(map(bar.search, shown[last:]))


@pytest.mark.ci
def test_without_a_terminal_a_line_says_that_it_compiles(corpus_folder, tmp_path):
  process = start(corpus_folder, tmp_path, stderr=subprocess.PIPE)
  lines = process.stderr.read().splitlines()
  assert process.wait() == 0
  compiled = next(i for i, line in enumerate(lines) if line.startswith('compiled the step in'))
  assert lines[compiled - 1] == 'compiling the step'


@pytest.mark.ci
def test_places_that_cannot_be_written_are_one_warning_each(corpus_folder, tmp_path, undisturbed):
  (tmp_path / 'curves.png').mkdir()
  (tmp_path / 'report.html').mkdir()
  (tmp_path / 'tensorboard').write_text('')
  env = {'MPLBACKEND': 'module://matplotlib_inline.backend_inline', 'PYTHONWARNINGS': 'error'}
  process = start(corpus_folder, tmp_path, '--config.log.tensorboard=True', env=env, stderr=subprocess.PIPE)
  said = process.stderr.read()
  assert process.wait() == 0, said
  assert losses(tmp_path) == undisturbed
  failed = [line.partition(' failed, continuing without: ')[0] for line in said.splitlines()
            if ' failed, continuing without: ' in line]
  # A set: TensorBoard is written in a thread, so its warning may come at any time.
  assert len(failed) == 3
  assert set(failed) == {f'TensorBoard ({tmp_path}/tensorboard)', 'the report', 'the plot of curves'}
  assert 'Traceback' not in said
  assert 'tensorboard --logdir' not in said  # there is nothing to show


@slow
@pytest.mark.parametrize('options, env', [(['-OO'], {}), (['-W', 'error'], {}), (
  [], {'MPLBACKEND': 'module://matplotlib_inline.backend_inline'})])
def test_the_interpreter_and_its_environment_change_nothing(options, env, corpus_folder, tmp_path,
                                                            undisturbed):
  process = start(corpus_folder, tmp_path, *['--config.log.tensorboard=True'] * bool(env), options=options,
                  env=env, stderr=subprocess.PIPE)
  said = process.stderr.read()
  assert process.wait() == 0, said
  assert losses(tmp_path) == undisturbed and 'failed' not in said
  assert (tmp_path / 'report.html').exists() and (tmp_path / 'curves.png').exists()


def test_records_that_cannot_be_written_still_end_a_run(corpus_folder, tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  process = start(corpus_folder, tmp_path, stderr=subprocess.PIPE)
  process.stderr.read()
  assert process.wait() != 0


def python(code, shell='exec "$@"', **more):
  return subprocess.run(['bash', '-c', shell, 'bash', sys.executable, '-c', code], cwd=ROOT, text=True,
                        capture_output=True, timeout=60, **more)


BEGIN = ('import sys\nfrom gptjax.command import startup\n'
         'startup.begin("test", "stopped", stdout_is_result={})\n')


@pytest.mark.parametrize('closed', ['<&-', '>&-', '2>&-', '<&- >&- 2>&-'])
def test_no_file_takes_the_number_of_a_closed_stream(closed, tmp_path):
  code = BEGIN.format(False) + (
    f'file = open({str(tmp_path / "x")!r}, "w")\nassert file.fileno() > 2\n'
    'sys.stderr.write("a"); sys.stdout.write("b"); assert sys.stdin.read() == ""\n')
  assert python(code, f'exec "$@" {closed}', stdin=subprocess.DEVNULL).returncode == 0
  assert (tmp_path / 'x').read_text() == ''


@pytest.mark.parametrize('product, stream, fails, warned', [
  (False, 'stdout', False, True), (True, 'stderr', False, False), (False, 'stderr', False, True),
  (True, 'stdout', True, False)])
def test_output_on_a_full_disk_is_an_error_only_where_it_is_the_product(product, stream, fails, warned):
  number = {'stdout': '', 'stderr': '2'}[stream]
  done = python(BEGIN.format(product) + f'sys.{stream}.write("line\\n")\n', f'exec "$@" {number}>/dev/full')
  assert (done.returncode != 0) == fails
  assert (f'{stream} cannot be written (No space left on device)' in done.stdout + done.stderr) == warned


# What is printed: by Python as it goes, when Python ends, by a command that ends through `sys.exit`.
PRINTS = {'on and on': 'while True: print("line")', 'at the end': 'READ()\nprint("line")',
          'and exits': 'READ()\nprint("line")\nsys.exit(0)', 'by the command': (
            'READ()\nfrom gptjax.command import run\nrun.run(lambda _: print("line"), "test")')}


@pytest.mark.parametrize('name', PRINTS)
def test_a_command_whose_output_is_its_product_ends_with_its_reader(name):
  """With 141 and no word; the reader is gone before anything is printed, or after its first line."""
  gone = 'import os\nr, w = os.pipe()\nos.dup2(w, 1)\nos.close(w)\nREAD = lambda: os.close(r)\n'
  shell = '"$@" | head -1; exit ${PIPESTATUS[0]}' if name == 'on and on' else 'exec "$@"'
  done = python((gone if name != 'on and on' else '') + BEGIN.format(True) + PRINTS[name], shell)
  assert done.returncode == 141 and done.stderr == '', done.stderr


@pytest.mark.parametrize('product', [True, False])
def test_a_reader_of_stderr_that_goes_away_ends_no_command(product):
  """Neither by Python nor, past its streams, by a library in C."""
  code = BEGIN.format(product) + (
    'import os\nfor _ in range(3): print("line", file=sys.stderr, flush=True)\n'
    'try: os.write(2, b"line")\nexcept OSError: pass\nprint("done")\n')
  gone = 'import os\nr, w = os.pipe()\nos.dup2(w, 2)\nos.close(w)\nos.close(r)\n'
  done = python(gone + code)
  assert done.returncode == 0 and done.stdout.endswith('done\n'), (done.returncode, done.stdout)
  assert done.stdout.count('cannot be written') == (not product)


@pytest.mark.parametrize('module, fails', [('tensorflow.x', False), ('gptjax.x', True)])
def test_warnings_are_errors_in_our_modules_alone(module, fails):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    startup.relax_libraries()
    def warn():
      warnings.warn_explicit('old', DeprecationWarning, 'x.py', 1, module)
    if fails:
      with pytest.raises(DeprecationWarning):
        warn()
    else:
      warn()


def test_the_filters_are_listed_without_docstrings():
  plain, done = (subprocess.run([sys.executable, *options, '-m', 'gptjax.data.clean'], cwd=ROOT, text=True,
                                capture_output=True) for options in ([], ['-OO']))
  assert done.returncode == 0, done.stderr
  assert done.stdout == plain.stdout and 'short: Fewer than 96 words' in done.stdout


class Broken:
  """A writer of TensorBoard whose disk fills up after a step."""
  calls = 0

  def write(self, step, metrics):
    self.calls += 1
    if step > 1:
      raise OSError(28, 'No space left on device', 'events')

  def close(self):
    raise AssertionError('not to be tried again')


def test_a_disk_that_fills_up_in_mid_run_takes_tensorboard_alone(tmp_path, monkeypatch, capsys):
  broken = Broken()
  monkeypatch.setattr(telemetry.TensorBoard, '_open', lambda self: broken)
  log = telemetry.Telemetry(tmp_path, 4, tensorboard=True)
  log.begin(0)
  for step in range(1, 5):
    log.write(step, {'train/loss': 1.0})
  log.close()
  assert broken.calls == 2
  assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 4
  lines = [line for line in capsys.readouterr().err.splitlines() if 'continuing without' in line]
  assert lines == [f'TensorBoard ({tmp_path}/tensorboard) failed, continuing without: '
                   'No space left on device events']


def test_a_bug_in_what_is_optional_shows_its_traceback(capsys):
  with console.optional('the plot'):
    raise KeyError('x')
  with console.optional('the report'):
    raise errors.InputError('damaged')
  said = capsys.readouterr().err
  assert said.count('Traceback') == 1 and "KeyError: 'x'" in said
  assert 'the report failed, continuing without: damaged' in said


@pytest.mark.parametrize('calm, leave, lines', [(0, False, 7), (0, True, 7), (3600, True, 1),
                                                (3600, False, 0)])
def test_without_a_terminal_a_bar_writes_lines(calm, leave, lines, monkeypatch):
  monkeypatch.setattr(bars, 'INTERVAL', calm)
  monkeypatch.setattr(sys, 'stderr', said := io.StringIO())
  with bars.bar(total=5, desc='reading', unit='B', leave=leave) as bar:
    for i in range(5):
      bar.set_postfix_str(f'file {i}', refresh=False)
      bar.update()
  written = said.getvalue()
  assert '\r' not in written and written.count('\n') == lines
  for line in written.splitlines()[lines == 7:]:  # the first of the seven is of the beginning
    assert re.fullmatch(r'reading: +\d+% \d/5 \[\d\d:\d\d<\S+, +\S+, file \d\]', line), line


def test_a_bar_around_items_gives_them_all(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  assert list(bars.bar(range(5))) == list(bars.bar(range(5), shown=False)) == list(range(5))


def test_a_figure_needs_no_backend(tmp_path):
  code = (BEGIN.format(False) +
          'from gptjax.command import figures\nfigure, axes = figures.figure(1, 2, (4, 2))\n'
          f'figure.savefig({str(tmp_path / "x.png")!r})\nassert "matplotlib.pyplot" not in sys.modules\n')
  done = python(code, env={**os.environ, 'MPLBACKEND': 'module://matplotlib_inline.backend_inline'})
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'x.png').read_bytes()[1:4] == b'PNG'
  assert figures.figure(1, 1, (4, 2))[0].canvas.__class__.__name__ == 'FigureCanvasAgg'
