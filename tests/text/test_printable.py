"""Text of others never acts on a terminal: messages are escaped always, text of models on terminals."""

import io
import json
import re
import sys

import pytest
from corpus_files import write_manifest
from hf_files import write_folder

import gptjax
from gptjax import errors
from gptjax.command import run as command
from gptjax.command import streams as console
from gptjax.data import inspect, prepare
from gptjax.errors import InputError, LostProcess
from gptjax.generate import __main__ as generate_command
from gptjax.parallel import rendezvous
from gptjax.pretrained import __main__ as pretrained
from gptjax.report import __main__ as report
from gptjax.storage.files import records
from gptjax.text.printable import printable

# Sets a title, clears the screen, C1's control sequence introducer, reverses a line, ends a line.
HOSTILE = '\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2028'
ACTS = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


@pytest.mark.parametrize('text, shown', [
  ('plain, naïve, 日本語 🙂', 'plain, naïve, 日本語 🙂'), ('\x1b[2J', r'\x1b[2J'), ('\x9b2J', r'\x9b2J'),
  ('a\x7fb\x00', r'a\x7fb\x00'), ('\u202eabc\u2066', r'\u202eabc\u2066'), ('a\u2028b\x85', r'a\u2028b\x85'),
  ('\udcff', r'\udcff'), ('a\rb', r'a\rb'), ('two\nlines\t', r'two\nlines\t')])
def test_what_acts_on_a_terminal_is_escaped(text, shown):
  assert printable(text) == shown
  assert printable(text, '\n\t') == shown.replace(r'\n', '\n').replace(r'\t', '\t')


@pytest.mark.parametrize('kind', [InputError, LostProcess])
def test_errors_can_be_printed_by_whoever_catches_them(kind):
  error = kind(f'the tensor {HOSTILE} is missing\nin two lines')
  assert not ACTS.search(str(error)) and 'in two lines' in str(error) and '\n' in str(error)


class Terminal(io.StringIO):
  def isatty(self):
    return True


def streams(monkeypatch, product, terminal=False):
  """(stdout, stderr) as a command writes to them."""
  made = [(Terminal if terminal else io.StringIO)() for _ in range(2)]
  for name, stream in zip(('stdout', 'stderr'), made, strict=True):
    monkeypatch.setattr(sys, name, stream)
  console.protect(product)
  return made


@pytest.mark.parametrize('product', [False, True])
def test_all_that_is_written_is_escaped_but_the_moves_of_bars(product, monkeypatch):
  for stream, name in zip(streams(monkeypatch, product, terminal=True), ('stdout', 'stderr'), strict=True):
    print(f'a {HOSTILE}\nb\tc', file=getattr(sys, name))
    getattr(sys, name).writelines(['\x1b[1A', 'x\rfalse $ '])
    assert '\nb\tc\n' in stream.getvalue() and not ACTS.search(stream.getvalue().replace('\x1b[1A', ''))
  bar = gptjax.command.bars.bar(range(3), desc=f'corpus {HOSTILE}')
  list(bar)
  shown = stream.getvalue().replace('\r', '').replace('\x1b[A', '')
  assert '100%' in shown and not ACTS.search(shown)


def test_generated_text_is_escaped_on_a_terminal_alone(monkeypatch):
  """Also where a sequence comes in several pieces."""
  for terminal in (False, True):
    out, _ = streams(monkeypatch, True, terminal)
    for piece in HOSTILE:
      console.write_generated(piece)
    assert out.getvalue() == (printable(HOSTILE) if terminal else HOSTILE)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Files of a stranger, with escape sequences wherever there is a text."""
  root = tmp_path_factory.mktemp('hostile')
  model = write_folder(root / 'model', text=f'{HOSTILE} the blue stone ' * 9)
  write_folder(root / 'tensor', extra=[HOSTILE])
  write_folder(root / 'activation', activation_function=HOSTILE)
  write_folder(root / 'kind', model_type=HOSTILE)
  write_folder(root / 'value', n_layer=HOSTILE)
  write_folder(root / 'class')
  settings = json.loads((root / 'class' / 'tokenizer_config.json').read_text())
  (root / 'class' / 'tokenizer_config.json').write_text(json.dumps({**settings, 'tokenizer_class': HOSTILE}))
  text = root / f'{HOSTILE.replace("/", "")}.txt'
  text.write_text(f'{HOSTILE} the blue stone never sings of rain. ' * 50)
  corpus = root / 'corpus'
  prepare.prepare([f'text:{text}'], str(model), str(corpus), validation_fraction=0.2, clean='', workers=1,
                  tfds_dir='', on_error='stop', seq_len=16, progress=False)
  manifest = json.loads((corpus / 'manifest.json').read_text())
  write_manifest(corpus, {**manifest, 'sources': [HOSTILE]})
  run = root / 'run'
  run.mkdir()
  (run / 'config.json').write_text(records.text({'config': {'job': HOSTILE, 'model': HOSTILE}}))
  (run / 'metrics.jsonl').write_text(f'{{"{HOSTILE}": 1}}\n')
  (root / 'bad.jsonl').write_text(f'{{"text": "good text"}}\n{{"{HOSTILE}": 1}}\n')
  return root


COMMANDS = {
  'generate': (generate_command.main, '--from=model', '--max_tokens=4', '--prompt=\x1b[2J'),
  'samples': (generate_command.main, '--from=model', '--max_tokens=4', '--prompt=\x1b[2J', '--num_samples=2'),
  'tensor': (generate_command.main, '--from=tensor'),
  'activation': (generate_command.main, '--from=activation'),
  'kind': (generate_command.main, '--from=kind'), 'value': (generate_command.main, '--from=value'),
  'class': (generate_command.main, '--from=class'),
  'pretrained': (pretrained.main, 'export', '--from=tensor', '--to=out'),
  'inspect': (inspect.main, 'corpus'), 'document': (inspect.main, 'corpus', '--document=0'),
  'batch': (inspect.main, 'corpus', '--step=0', '--batch_size=2', '--seq_len=8', '--seed=0',
            '--cross_documents=true', '--shift_windows=true'),
  'prepare': (prepare.main, '--source=jsonl:bad.jsonl', '--tokenizer=model', '--out=new'),
  'source': (prepare.main, f'--source=text:{HOSTILE}', '--tokenizer=model', '--out=new'),
  'report': (report.main, '--workdir=run')}
SUCCEED = 'generate', 'samples', 'inspect', 'document', 'batch'


@pytest.mark.parametrize('name', COMMANDS)
def test_no_command_passes_an_escape_sequence_on(name, folder, monkeypatch):
  job, *arguments = COMMANDS[name]
  monkeypatch.chdir(folder)
  monkeypatch.setattr(sys, 'argv', [name, *arguments])
  monkeypatch.setattr(gptjax.command.shutdown, 'ignore_signals', lambda: None)
  out, err = streams(monkeypatch, True, terminal=True)
  code = 0
  try:
    command.run(job, name)
  except SystemExit as end:
    code = end.code
  said = out.getvalue() + re.sub(r'\r', '', err.getvalue())
  assert code == (0 if name in SUCCEED else 2), said
  assert said and not ACTS.search(said)
  assert name in ('batch', 'prepare', 'report') or r'\x1b' in said or r'\u202e' in said, said


@pytest.mark.parametrize('line', [
  rendezvous.process_name(3, ['a', 'b', 'c', HOSTILE]), f'waits for {HOSTILE}'])
def test_names_of_hosts_are_escaped(line, monkeypatch):
  _, err = streams(monkeypatch, False, terminal=True)
  assert errors.print_line(LostProcess(line), 'gptjax') == errors.LOST
  print(line, file=sys.stderr)
  assert not ACTS.search(err.getvalue()) and r'\x1b]0;owned' in err.getvalue()
