"""Counts of languages: every byte is counted once, however the work is divided."""

import json
import random
import subprocess
import sys

import hypothesis
import pytest
from conftest import ENVIRONMENT
from hypothesis import strategies as st
from prepared import run, write_jsonl

from gptjax.data import languages
from gptjax.data.sources import documents as sources
from gptjax.data.sources import files
from gptjax.data.stages import parts
from gptjax.errors import InputError

pytest.importorskip('pycld2', reason="needs CLD2: pip install 'gptjax[webtext]'")
ENGLISH = 'The river was low that summer, and the boy walked over to the other side without getting wet. '
FRENCH = 'Le gouvernement a annoncé hier que les travaux de la ligne commenceraient au printemps. '
GERMAN = 'Die Regierung hat gestern angekündigt, dass die Arbeiten im Frühjahr beginnen würden. '
TEXTS = [ENGLISH * 5, FRENCH * 3, ENGLISH * 20 + FRENCH * 4, GERMAN * 4, '12345 67890 ' * 9, ENGLISH * 2]


def count(*sources, **options):
  return languages.count(list(sources), options.pop('out', ''), progress=False, **options)


def size(text):
  return len(text.encode())


def test_documents_and_bytes_of_each_language(tmp_path):
  manifest = count(write_jsonl(tmp_path / 'a.jsonl', TEXTS))
  found = manifest['languages']
  assert {language: counts['documents'] for language, counts in found.items()} == {
    'en': 3, 'fr': 1, 'de': 1, 'un': 1}
  assert sum(counts['bytes'] for counts in found.values()) == sum(map(size, TEXTS))
  for language, expected in (('en', size(ENGLISH * 27)), ('fr', size(FRENCH * 7)), ('de', size(GERMAN * 4))):
    assert abs(found[language]['bytes'] - expected) < 60, language  # a border is somewhere near
  lines = languages.table(manifest).splitlines()
  assert lines[1].startswith('en English') and lines[2].startswith('fr French')
  assert lines[-1].split() == ['all', '6', f'{sum(map(size, TEXTS)):,}']


@hypothesis.given(st.lists(max_size=12, elements=st.text() | st.sampled_from(
  [ENGLISH, FRENCH, GERMAN, '\0\x85\ufdd0\U0010ffff', '漢字かな交じり文 ', '7 '])))
@hypothesis.settings(deadline=None, max_examples=200)
def test_every_byte_of_any_text_is_counted_once(parts):
  text = ''.join(parts)
  found = languages.languages(text)
  assert sum(found.values()) == size(languages._REFUSED.sub(' ', text)) and min(found.values(), default=1) > 0


def test_a_document_in_pieces_is_one_document(tmp_path, monkeypatch):
  source = write_jsonl(tmp_path / 'a.jsonl', [ENGLISH * 3 + FRENCH * 40, ENGLISH])
  monkeypatch.setattr(files, 'MAX_PIECE', 400)
  found = count(source)['languages']
  assert (found['fr']['documents'], found['en']['documents']) == (1, 1)
  assert sum(counts['bytes'] for counts in found.values()) == size(ENGLISH * 4 + FRENCH * 40)


def test_any_number_of_tasks_in_any_order_counts_the_same(tmp_path, monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)
  rng = random.Random(0)
  texts = [rng.choice([ENGLISH, FRENCH, GERMAN]) * rng.randint(1, 30) for _ in range(200)]
  source = write_jsonl(tmp_path / 'a.jsonl', texts)
  expected = count(source)
  assert len(parts.borders(sources.units([source], ''))) > 5
  for tasks in (1, 3, 40):
    out, done = tmp_path / f'{tasks}', []
    order = [*range(tasks), *rng.choices(range(tasks), k=2)]
    rng.shuffle(order)
    for task in order:
      done.append(count(source, out=str(out), stage='scan', task=task, tasks=tasks))
    assert done[-1] == expected
    assert json.loads((out / 'manifest.json').read_text())['languages'] == expected['languages']
    assert [path.name for path in out.iterdir()] == ['manifest.json']
  assert count(source, workers=2) == expected


def test_the_documents_of_a_corpus(tmp_path):
  run(write_jsonl(tmp_path / 'a.jsonl', TEXTS), tmp_path / 'corpus', validation_fraction=0)
  assert count(f'corpus:{tmp_path}/corpus')['languages'] == count(f'jsonl:{tmp_path}/a.jsonl')['languages']


def test_documents_that_cannot_be_used(tmp_path):
  (tmp_path / 'a.jsonl').write_text(json.dumps({'text': ENGLISH}) + '\n{"text": 3}\n{"text": ""}\n')
  with pytest.raises(InputError, match=r'a\.jsonl:2: not text'):
    count(f'jsonl:{tmp_path}/a.jsonl')
  manifest = count(f'jsonl:{tmp_path}/a.jsonl', on_error='skip')
  assert manifest['skipped'] == {'not text': 1, 'empty': 1}
  assert 'skipped 1: not text' in languages.table(manifest)


def test_errors_have_one_line(tmp_path, monkeypatch):
  source = write_jsonl(tmp_path / 'a.jsonl', TEXTS)
  with pytest.raises(InputError, match=r'--out=DIR is missing'):
    count(source, stage='scan')
  with pytest.raises(InputError, match=r'--urls=list chooses pages of web archives: give --source=warc:GLOB'):
    count(source, urls=['list'])
  monkeypatch.setitem(sys.modules, 'pycld2', None)
  with pytest.raises(InputError, match=r"counted by CLD2: pip install 'gptjax\[webtext\]'"):
    count(source)


def test_the_command(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', TEXTS)
  command = [sys.executable, '-m', 'gptjax.data.languages', f'--source={source}']
  done = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
  assert done.stdout.splitlines()[1].split()[:3] == ['en', 'English', '3']
