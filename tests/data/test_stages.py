"""The stages of `prepare`: any tasks, in any order, write the corpus of one process."""

import itertools
import json
import random
import re
import subprocess
import threading
from pathlib import Path

import hypothesis
import pyarrow
import pytest
from hypothesis import strategies as st
from prepared import command, contents, documents, make_texts, run, write_jsonl
from pyarrow import parquet

import gptjax
from gptjax.data import prepare
from gptjax.data.clean import near_duplicates, webtext
from gptjax.data.corpus import held_out
from gptjax.data.sources import documents as sources
from gptjax.data.sources import jsonl
from gptjax.data.stages import encode_part, mark, parts, verdicts
from gptjax.data.stages import run as stages
from gptjax.errors import InputError, Unavailable
from gptjax.storage.files import access

DUPLICATES = {'clean': 'webtext', 'clean_without': [
  name for name in webtext.FILTERS if name not in webtext.DUPLICATES]}
NAMES = list(stages.STAGES)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)


def with_duplicates(seed, n=150):
  """Texts of random words, some of them copies, equal or with changed words, of texts far before them."""
  rng, words = random.Random(seed), [f'word{i}' for i in range(3000)]
  texts = [' '.join(rng.choices(words, k=rng.randint(8, 300))) for _ in range(n)]
  for changed in (0, 0, 1, 2, 5, 40) * 6:
    copy = rng.choice(texts[:n]).split()
    for i in rng.sample(range(len(copy)), min(changed, len(copy))):
      copy[i] = rng.choice(words)
    texts.append(' '.join(copy))
  return texts


def judge(texts, near, filters=webtext.DUPLICATES):
  """{position: reason} of the texts that an independent comparison of all pairs removes."""
  signatures = near_duplicates.signatures([text.split() for text in texts], near)
  keys, removed = near_duplicates.band_keys(signatures, near), {}
  for i, text in enumerate(texts):
    if text in texts[:i] and 'exact_duplicate' in filters:
      removed[i] = 'webtext exact_duplicate'
      continue
    for band in range(near.bands if 'near_duplicate' in filters else 0):
      first = next(j for j in range(i + 1) if keys[j, band] == keys[i, band])
      if first < i and (signatures[i] == signatures[first]).mean() >= near.threshold:
        removed[i] = 'webtext near_duplicate'
  return removed


@pytest.mark.parametrize('filters', [webtext.DUPLICATES, *((name,) for name in webtext.DUPLICATES)])
@pytest.mark.parametrize('bits, segment, read', [
  (0, 1 << 27, 1 << 25), (3, 1 << 27, 1 << 25), (0, 4000, 1 << 25), (2, 20_000, 1000), (1, 1500, 1 << 11)])
def test_what_is_removed_are_the_later_ones_of_all_pairs(tmp_path, monkeypatch, bits, segment, read, filters):
  monkeypatch.setattr(mark, 'range_bits', lambda n_kept: bits)
  monkeypatch.setattr(mark, 'SORTED_PAIRS', segment // 100)
  monkeypatch.setattr(stages.judge, 'SEGMENT_BYTES', segment)
  monkeypatch.setattr(verdicts, 'READ_BYTES', read)
  monkeypatch.setattr(verdicts, 'AT_A_TIME', read // 100)
  texts = with_duplicates(1)
  options = {'clean': 'webtext', 'clean_without': [name for name in webtext.FILTERS if name not in filters]}
  made = run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'c', _tokenizer(tmp_path),
             validation_fraction=0, **options)
  removed = judge(texts, webtext.make_recipe('webtext', (), '', '').near, filters)
  assert made['skipped'] == {reason: list(removed.values()).count(reason) for reason in set(removed.values())}
  assert len(made['skipped']) == len(filters)
  assert documents(tmp_path / 'c', 'train') == [text for i, text in enumerate(texts) if i not in removed]


def test_any_number_of_tasks_in_any_order_writes_the_corpus_of_one_process(tmp_path, monkeypatch):
  monkeypatch.setattr(mark, 'range_bits', lambda n_kept: 2)
  monkeypatch.setattr(stages.judge, 'SEGMENT_BYTES', 15_000)  # about 20 documents
  (tmp_path / 'b.jsonl').write_text('{"text": "last"}\n{"text": 1}\n')
  source = [write_jsonl(tmp_path / 'a.jsonl', with_duplicates(2)), f'jsonl:{tmp_path}/b.jsonl']
  options = {'shard_tokens': 5000, 'on_error': 'skip', **DUPLICATES}
  run(source, tmp_path / 'one', **options)
  rng, expected = random.Random(0), contents(tmp_path / 'one')
  assert 'train-00002.bin' in expected and b'b.jsonl:2: not text' in expected['skipped.txt']
  for tasks in (1, 3, 50):
    out = tmp_path / f'tasks{tasks}'
    for stage in NAMES:
      order = [*range(tasks), *rng.choices(range(tasks), k=2)]  # some are repeated
      rng.shuffle(order)
      done = [run(source, out, stage=stage, task=task, tasks=tasks, **options) for task in order]
      if stage != 'join':
        assert not any(done)
    assert contents(out) == expected
  assert run(source, out, stage='judge', **options)['content']  # nothing is left to do


@pytest.mark.parametrize('tasks', [1, 2, 7, 100])
def test_one_share_chooses_the_tokenizer(tmp_path, monkeypatch, tasks):
  source, chosen = write_jsonl(tmp_path / 'a.jsonl', make_texts(5)), []
  monkeypatch.setattr(stages.tokenizer, 'is_chosen', lambda job: False)
  monkeypatch.setitem(stages.STAGES, 'tokenizer', stages.STAGES['tokenizer']._replace(
    make=lambda job: lambda number: chosen.append(number)))
  for task in range(tasks):
    run(source, tmp_path / 'c', stage='tokenizer', task=task, tasks=tasks)
  assert chosen == [0]


def test_tasks_of_several_processes_at_the_same_time(tmp_path, monkeypatch):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(200))
  run(source, tmp_path / 'one')
  errors = []
  def stage_by_stage():
    try:
      for stage in NAMES[2:]:
        run(source, tmp_path / 'two', stage=stage)
        barrier.wait(600)
    except BaseException as error:
      errors.append(error)
      barrier.abort()
      raise
  barrier = threading.Barrier(2)
  threads = [threading.Thread(target=stage_by_stage) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not errors and contents(tmp_path / 'two') == contents(tmp_path / 'one')


def test_the_copy_that_another_task_writes_is_left_alone(tmp_path, monkeypatch):
  writing = tmp_path / 'c/tokenizer/encoder.json.0123abcd.new'
  copy_files = stages.tokenizer.copy_files
  def copied(job):
    writing.parent.mkdir()
    writing.touch()
    copy_files(job)
    assert writing.exists()
  monkeypatch.setattr(stages.tokenizer, 'copy_files', copied)
  run(write_jsonl(tmp_path / 'a.jsonl', make_texts(30)), tmp_path / 'c')
  assert not writing.exists()  # the finished corpus has no leftovers


def test_a_late_task_leaves_the_finished_corpus_as_it_is(tmp_path, monkeypatch):
  """It copies the tokenizer while another task, which has written the manifest, removes the work folder."""
  copy_files = stages.tokenizer.copy_files
  def copied(job):
    copy_files(job)
    for path in (job.work / stages.tokenizer.FILES).iterdir():
      path.unlink()
    with pytest.raises(FileNotFoundError):
      copy_files(job)
  monkeypatch.setattr(stages.tokenizer, 'copy_files', copied)
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(30))
  run(source, tmp_path / 'c')
  monkeypatch.undo()
  run(source, tmp_path / 'one')
  assert contents(tmp_path / 'c') == contents(tmp_path / 'one')


def test_a_stage_needs_those_before_it(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(100))
  def task(stage, number, **options):
    return run(source, tmp_path / 'c', stage=stage, task=number, tasks=2, **DUPLICATES, **options)
  task('judge', 0)
  with pytest.raises(InputError, match=r'--stage=judge is not complete, \d+ of \d+ results are missing'):
    task('mark', 0)
  task('judge', 1)
  with pytest.raises(InputError, match=r'--stage=mark is not complete'):
    task('tokenizer', 0)
  task('mark', 1)
  task('mark', 0)
  with pytest.raises(InputError, match=r'--stage=tokenizer is not complete'):
    task('encode', 0)
  task('tokenizer', 0)
  with pytest.raises(InputError, match=r'--stage=encode is not complete'):
    task('join', 0)
  with pytest.raises(InputError, match='another seq_len'):
    task('encode', 0, seq_len=9)
  with pytest.raises(InputError, match=r'--stage=judge: this corpus has the stages tokenizer, encode, join'):
    run(source, tmp_path / 'plain', stage='judge')
  for number, excluded in enumerate(({}, {'exclude': [source]})):  # nothing looks for duplicates
    with pytest.raises(InputError, match=r'--stage=mark: this corpus has the stages judge, tokenizer'):
      run(source, tmp_path / f'{number}', stage='mark', clean='webtext', clean_without=webtext.DUPLICATES,
          **excluded)
  with pytest.raises(InputError, match=r'--task=2 --tasks=2: .* must be less than --tasks'):
    task('encode', 2)
  with pytest.raises(InputError, match=r'--task=1 --tasks=2: .*: give --stage too'):
    task('all', 1)


def test_the_command_runs_a_share_of_a_stage(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(30))
  for stage in NAMES[2:]:
    done = subprocess.run(command(source, tmp_path / 'c', f'--stage={stage}'), capture_output=True, text=True,
                          check=True)
    assert ('held out' if stage == 'join' else f'task 0 of 1 of --stage={stage} is complete') in done.stdout
  run(source, tmp_path / 'one')
  made = contents(tmp_path / 'c')
  assert all(made[name] == content for name, content in contents(tmp_path / 'one').items()
             if name != 'manifest.json')  # which has other shard sizes in its settings


LINES = st.lists(st.sampled_from([
  b'{"text": "a"}', b'', b'  ', b'{"text": 3}', b'\xff', b'{"text": "b b b"}', b'{"te',
  '{"text": "\u00e9\u4e2d"}'.encode()]), max_size=12)


@hypothesis.given(LINES, st.booleans(), st.booleans(), st.lists(st.integers(1, 120), max_size=5))
def test_parts_of_a_file_have_its_documents_and_lines(tmp_path_factory, lines, mark_first, ended, cuts):
  path = tmp_path_factory.mktemp('ranges') / 'a.jsonl'
  path.write_bytes(b'\xef\xbb\xbf' * mark_first + b'\n'.join(lines) + b'\n' * ended)
  jsonl._counted.clear()
  def shown(pieces):
    return [piece._replace(location=jsonl.shown_location(piece.location)) for piece in pieces]
  borders = [0, *sorted({cut for cut in cuts if cut < path.stat().st_size}), None]
  found = [piece for first, end in itertools.pairwise(borders)
           for piece in shown(jsonl.pieces(str(path), 'text', first, end))]
  assert found == shown(jsonl.pieces(str(path), 'text'))


def test_parts_depend_on_the_sources_alone_and_cover_them(tmp_path):
  for name, n in (('a', 3), ('b', 400), ('c', 1), ('d', 60)):
    write_jsonl(tmp_path / f'{name}.jsonl', make_texts(n))
  units = prepare.documents.units([f'jsonl:{tmp_path}/*.jsonl'], '')
  borders = parts.borders(units)
  assert borders[0] == [0, 0] and borders[-1] == [4, 0] and borders == sorted(borders) and len(borders) > 5
  spans = [span for number in range(len(borders) - 1) for span in parts.spans(borders, number)]
  for unit in range(4):
    own = [(first, end) for number, first, end in spans if number == unit]
    assert own[0][0] == 0 and own[-1][1] is None
    assert [end for _, end in own[:-1]] == [first for first, _ in own[1:]]


def test_the_first_unusable_document_is_named_with_its_line(tmp_path):
  path = tmp_path / 'a.jsonl'
  write_jsonl(path, make_texts(300))
  lines = path.read_text().splitlines()
  lines[250] = lines[250][:-5]
  path.write_text('\n'.join(lines))
  for workers in (1, 2):
    with pytest.raises(InputError, match=r'a.jsonl:251: not JSON.*--on_error=skip'):
      run(f'jsonl:{path}', tmp_path / f'c{workers}', workers=workers, tokenizer=_tokenizer(tmp_path))


def _tokenizer(folder):
  from gptjax.data.tokenizers import byte_bpe
  byte_bpe.train_bpe(make_texts(20), 270).save(folder / 'bpe')
  return f'bpe:{folder}/bpe'


def test_a_range_has_no_more_keys_than_fit_into_memory():
  for n_kept in (0, 1, mark.RANGE_KEYS - 1, mark.RANGE_KEYS, 5 * mark.RANGE_KEYS, 1000 * mark.RANGE_KEYS):
    assert n_kept >> mark.range_bits(n_kept) < mark.RANGE_KEYS


@pytest.mark.parametrize('kind', ['jsonl', 'parquet', 'corpus'])
def test_a_large_file_is_read_in_parts_with_the_same_documents(tmp_path, kind):
  texts = [*make_texts(120), *(f'short {i}' for i in range(9))]
  write_jsonl(tmp_path / 'a.jsonl', texts)
  table = pyarrow.table({'text': texts})
  parquet.write_table(table, tmp_path / 'a.parquet', row_group_size=7)
  if kind == 'corpus':
    run(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'c', validation_fraction=0)
  source = f'corpus:{tmp_path}/c' if kind == 'corpus' else f'{kind}:{tmp_path}/a.{kind}'
  [unit] = sources.units([source], '')
  whole = list(sources.pieces(unit, '', ''))
  assert len(whole) == len(texts)
  for target in (3000, 20_000):
    positions = sources.positions(unit, target)
    assert len(positions) > 3 and positions == sorted(set(positions))
    found = [piece._replace(location=sources.shown_location(piece.location))
             for first, end in itertools.pairwise([0, *positions, None])
             for piece in sources.pieces(unit, '', '', first, end)]
    assert found == whole
  made = run(source, tmp_path / 'made', 'train-char', validation_fraction=0)
  assert made['splits']['train']['documents'] == len(texts)


def test_an_outage_is_not_taken_for_damage(tmp_path, monkeypatch):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(50))
  run(source, tmp_path / 'c', stage='tokenizer')
  read = access.read
  for name in ('progress.json', 'tokenizer.json'):
    def away(path, *limits, name=name):
      if path.name == name:
        raise Unavailable('the storage has not answered')
      return read(path, *limits)
    monkeypatch.setattr(access, 'read', away)
    with pytest.raises(Unavailable, match='has not answered'):
      run(source, tmp_path / 'c', stage='encode')


def test_results_of_other_settings_are_not_taken(tmp_path, monkeypatch):
  """Of tasks that still ran when the settings were replaced."""
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  run(source, tmp_path / 'one', tokenizer='train-char')
  def stopped(*_):
    raise KeyboardInterrupt
  with monkeypatch.context() as patched:
    patched.setattr(held_out, 'choose_rule', stopped)  # the tokenizer is there, its record is not
    with pytest.raises(KeyboardInterrupt):
      run(source, tmp_path / 'two', tokenizer='train-bpe:300')
  [late] = (tmp_path / 'two' / 'work').iterdir()
  late = {path: path.read_bytes() for path in late.rglob('*') if path.is_file()}
  encode = encode_part.encode_part
  def with_late_results(job, number, encoder):
    for path, content in late.items():
      path.write_bytes(content)
      (path.parent.parent / 'encode').mkdir(exist_ok=True)
      (path.parent.parent / 'encode' / '00000.json').write_text('{}')
    return encode(job, number, encoder)
  monkeypatch.setattr(encode_part, 'encode_part', with_late_results)
  run(source, tmp_path / 'two', tokenizer='train-char')
  assert contents(tmp_path / 'two') == contents(tmp_path / 'one')


@pytest.mark.parametrize('stage, suffix, says', [
  ('encode', 'train', 'was cut short'), ('encode', 'train', 'is missing'),
  ('encode', 'train-starts', 'is missing'), ('encode', 'json', 'is damaged'),
  ('judge', 'verdicts', 'is missing')])
def test_a_damaged_result_is_an_error_that_says_what_to_do(tmp_path, stage, suffix, says):
  """Who does it gets the corpus of one process."""
  source = write_jsonl(tmp_path / 'a.jsonl', with_duplicates(1))
  run(source, tmp_path / 'one', **DUPLICATES)
  at = NAMES.index(stage)
  for before in NAMES[:at + 1] if stage == 'encode' else NAMES[:at + 2]:
    run(source, tmp_path / 'c', stage=before, **DUPLICATES)
  path = max((tmp_path / 'c').glob(f'work/*/{stage}/*.{suffix}'))
  if says == 'is missing':
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:-2])
  after = 'join' if stage == 'encode' else 'tokenizer'
  with pytest.raises(InputError, match=rf'{path} {says}: remove .*, and run --stage={stage} again') as error:
    run(source, tmp_path / 'c', stage=after, **DUPLICATES)
  [removed] = re.findall(r'remove (.+?),', str(error.value).replace('remove it', f'remove {path}'))
  Path(removed).unlink()
  for again in (stage, *NAMES[at + 1:]):
    run(source, tmp_path / 'c', stage=again, **DUPLICATES)
  assert contents(tmp_path / 'c') == contents(tmp_path / 'one')


@pytest.mark.parametrize('clean', [False, True])
@pytest.mark.parametrize('change', ['one letter', 'more documents', 'fewer documents'])
def test_a_source_that_changes_between_stages_is_an_error(tmp_path, clean, change):
  """Also if it keeps its size. Restored, the corpus is that of one process."""
  path, options = tmp_path / 'a.jsonl', DUPLICATES if clean else {}
  source = write_jsonl(path, make_texts(100))
  run(source, tmp_path / 'one', **options)
  before = NAMES[:3] if clean else NAMES[2:3]
  for stage in before:
    run(source, tmp_path / 'c', stage=stage, **options)
  content = path.read_bytes()
  texts = {'more documents': ['{"text": "a word"}'] * 200, 'fewer documents': ['{"text": "a word"}'],
           'one letter': [content.decode()[:-1].replace('river', 'liver', 1)]}[change]
  path.write_text('\n'.join(texts).ljust(len(content), '\n'))
  assert path.stat().st_size == len(content) and path.read_bytes() != content
  with pytest.raises(InputError, match=r'a\.jsonl.* has changed since this corpus was begun: restore'):
    run(source, tmp_path / 'c', stage='encode', **options)
  path.write_bytes(content)
  for stage in ('encode', 'join'):
    run(source, tmp_path / 'c', stage=stage, **options)
  assert contents(tmp_path / 'c') == contents(tmp_path / 'one')


@pytest.mark.parametrize('tasks', [1, 3, 100])
def test_the_status_lists_the_tasks_that_are_left(tmp_path, capsys, tasks):
  """To run only those completes a stage."""
  source = write_jsonl(tmp_path / 'a.jsonl', with_duplicates(1))
  def status():
    assert run(source, tmp_path / 'c', stage='status', tasks=tasks, **DUPLICATES) is None
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ['stage', *NAMES]
    return {row[0]: row[1:] for row in rows}
  with pytest.raises(InputError, match=r'c has no progress\.json: its preparation has not begun'):
    status()
  run(source, tmp_path / 'c', stage='judge', task=0, tasks=1000, **DUPLICATES)
  assert status()['judge'][1] == '1' and status()['mark'][0] == status()['join'][0] == '?'
  for stage in NAMES[:-1]:
    for result in list((tmp_path / 'c').glob(f'work/*/{stage}/0000[02].json'))[:1]:
      result.unlink()
    *_, left = status()[stage]
    for one in left.split(','):
      first, _, last = one.partition('-')
      for task in range(int(first), int(last or first) + 1):
        run(source, tmp_path / 'c', stage=stage, task=task, tasks=tasks, **DUPLICATES)
    count, complete, left = status()[stage]
    assert count == complete and left == 'none'
  max((tmp_path / 'c').glob('work/*/judge/*.json')).write_text('{')
  with pytest.raises(InputError, match=r'json is damaged'):
    status()


def test_the_status_changes_nothing(tmp_path, capsys):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  run(source, tmp_path / 'c', stage='judge', **DUPLICATES)
  [path] = (tmp_path / 'c').glob('work/*/recipe.json')
  path.unlink()  # killed before it was written
  before = {path: path.is_file() and path.read_bytes() for path in (tmp_path / 'c').rglob('*')}
  run(source, tmp_path / 'c', stage='status', **DUPLICATES)
  assert {path: path.is_file() and path.read_bytes() for path in (tmp_path / 'c').rglob('*')} == before
  assert 'judge' in capsys.readouterr().out


def test_a_damaged_tokenizer_is_an_error_that_says_what_to_do(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  run(source, tmp_path / 'one')
  run(source, tmp_path / 'c', stage='tokenizer')
  [folder] = (tmp_path / 'c').glob('work/*/tokenizer_files')
  (folder / 'vocab.bpe').write_bytes((folder / 'vocab.bpe').read_bytes()[:-4])
  record = folder.parent / 'tokenizer.json'
  with pytest.raises(InputError, match=rf'{folder} is damaged: remove {record}, and run'):
    run(source, tmp_path / 'c', stage='encode')
  record.unlink()
  for stage in NAMES[2:]:
    run(source, tmp_path / 'c', stage=stage)
  assert contents(tmp_path / 'c') == contents(tmp_path / 'one')


def test_tasks_of_two_versions_do_not_share_a_corpus(tmp_path, monkeypatch):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  run(source, tmp_path / 'c', stage='tokenizer')
  monkeypatch.setattr(gptjax, '__version__', '99.1')
  for stage in ('encode', 'all'):
    with pytest.raises(InputError, match=r'begun by gptjax .*, and this is 99\.1: continue'):
      run(source, tmp_path / 'c', stage=stage)
  run(source, tmp_path / 'd', stage='tokenizer')
  monkeypatch.undo()
  for path in (tmp_path / 'd' / 'work').glob('*/tokenizer.json'):
    path.unlink()  # nothing is complete
  run(source, tmp_path / 'one')
  run(source, tmp_path / 'd')
  assert contents(tmp_path / 'd') == contents(tmp_path / 'one')


def test_results_of_a_stage_that_other_flags_do_not_need_are_not_given_up(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  run(source, tmp_path / 'c', stage='judge', **DUPLICATES)
  with pytest.raises(InputError, match='complete or partial, with another clean'):
    run(source, tmp_path / 'c')
  for stage in NAMES[1:]:
    run(source, tmp_path / 'c', stage=stage, **DUPLICATES)
  run(source, tmp_path / 'one', **DUPLICATES)
  assert contents(tmp_path / 'c') == contents(tmp_path / 'one')


def test_other_files_are_an_error_in_words(tmp_path):
  source = write_jsonl(tmp_path / 'a1.jsonl', make_texts(60)).replace('a1', 'a*')
  write_jsonl(tmp_path / 'a2.jsonl', make_texts(5))
  run(source, tmp_path / 'c', stage='tokenizer')
  (tmp_path / 'a2.jsonl').unlink()
  with pytest.raises(InputError, match=r'of other files: .* among the 1 file of the sources; restore'):
    run(source, tmp_path / 'c', stage='encode')


@pytest.mark.parametrize('out', ['a.jsonl', 'a.jsonl/c', '/proc/none/c'])
def test_a_task_whose_folder_cannot_be_made_ends_with_one_line(tmp_path, out):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(5))
  with pytest.raises(InputError, match=r'is not writable \(.*\): use another folder'):
    run(source, tmp_path / out, stage='tokenizer')


def test_after_an_unusable_document_the_tasks_that_are_left_may_skip_it(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', ['first', *make_texts(200)])
  (tmp_path / 'b.jsonl').write_text('{"text": 1}\n')
  sources = [source, f'jsonl:{tmp_path}/b.jsonl']
  run(sources, tmp_path / 'one', on_error='skip', **DUPLICATES)
  run(sources, tmp_path / 'c', stage='judge', task=0, tasks=2, **DUPLICATES)
  with pytest.raises(InputError, match=r'b\.jsonl:1: not text.*--on_error=skip would leave it out'):
    run(sources, tmp_path / 'c', stage='judge', task=1, tasks=2, **DUPLICATES)
  for stage in NAMES:
    run(sources, tmp_path / 'c', stage=stage, on_error='skip', **DUPLICATES)
  assert contents(tmp_path / 'c') == contents(tmp_path / 'one')


def test_a_whole_number_is_the_same_fraction(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  run(source, tmp_path / 'a', validation_fraction=0)
  run(source, tmp_path / 'b', validation_fraction=0.0)
  assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_after_an_error_the_parts_that_wait_are_not_read(tmp_path):
  lines = [json.dumps({'text': text}) for text in make_texts(600)]
  (tmp_path / 'a.jsonl').write_text('\n'.join(['{', *lines]))
  with pytest.raises(InputError, match=r'a.jsonl:1: not JSON'):
    run(f'jsonl:{tmp_path}/a.jsonl', tmp_path / 'c', workers=2, tokenizer=_tokenizer(tmp_path))
  assert len(list((tmp_path / 'c').glob('work/*/encode/*.json'))) < 6
