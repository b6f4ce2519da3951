"""`prepare --exclude` against plain sets of n-grams over whole texts."""

import itertools
import json
import random
import re

import hypothesis
import pytest
from hypothesis import strategies as st
from prepared import contents, documents, make_texts, run, write_jsonl

from gptjax.data.clean import webtext
from gptjax.data.corpus import reader
from gptjax.data.ngrams import key_set, keys, windows
from gptjax.data.sources import files
from gptjax.data.stages import excluded, match, parts
from gptjax.data.tokenizers import byte_bpe
from gptjax.errors import InputError

few = hypothesis.settings(deadline=None, max_examples=150)
words = st.sampled_from(['a', 'B', 'the', 'Tree', '7', 'été', 'ΣΑΣ', 'İx', 'xİ', '日本', 'x_y', '½', 'É'])
separators = st.sampled_from([' ', '\n', ' - ', ', ', ' \u0307 ', '   ' * 30, '\u2028', '\x00'])
texts = st.lists(st.tuples(words, separators), max_size=50).map(lambda pairs: ''.join(map(''.join, pairs)))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(parts, 'MIN_BYTES', 20_000)


def grams(text, n):
  found = re.findall(r'[^\W_]+', text.lower())
  return [' '.join(found[i:i + n]) for i in range(len(found) - n + 1)]


def shared(text, test_grams, n):
  """For each character of a text whether it is in an n-gram of the test sets, by the definition."""
  place = [i for i, character in enumerate(text) for _ in character.lower()]
  found = [match.span() for match in re.finditer(r'[^\W_]+', text.lower())]
  inside = [False] * len(text)
  for i, gram in enumerate(grams(text, n)):
    if gram in test_grams:
      first, last = place[found[i][0]], place[found[i + n - 1][1] - 1]
      inside[first:last + 1] = [True] * (last + 1 - first)
  return inside


def stretches(text, test_grams, n, least):
  """The texts between the shared characters."""
  groups = itertools.groupby(zip(text, shared(text, test_grams, n), strict=True), lambda pair: pair[1])
  found = [''.join(character for character, _ in group) for inside, group in groups if not inside]
  return [text for text in found if len(text) >= least and text.strip()]


def keys_of(texts, n):
  own = key_set.sorted_unique(keys.ngram_keys(texts, n).keys)
  every = key_set.KeySet.of(own)
  return excluded.Keys(every, {'a': every.keys.searchsorted(own)})


@few
@hypothesis.given(st.lists(texts, max_size=4), st.lists(texts.filter(str.strip), min_size=1, max_size=5),
                  st.integers(1, 5), st.booleans(), st.integers(20, 60), st.integers(1, 5000))
def test_matches_are_those_of_sets_of_strings_however_documents_are_cut(
    test_texts, train, n, spans, piece, batch):
  train = [text.replace('\x00', '') for text in train]
  test_grams = {gram for text in test_texts for gram in grams(text, n)}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'MAX_PIECE', piece)
    patch.setattr(match, 'BATCH_CHARACTERS', batch)
    patch.setattr(match, 'LEAST_CHARACTERS', 5)
    matcher = match.Matcher(keys_of(test_texts, n), n, spans)
    pieces = [list(files.document_pieces(text, '', {})) for text in train]
    for one in itertools.chain(*pieces):
      matcher.add(one)
    found = matcher.documents()
  with_any = {i for i, text in enumerate(train) if test_grams & set(grams(text, n))}
  assert found.keys() == with_any
  index, counts = matcher.found()
  assert len(index) == len(test_grams & {gram for text in train for gram in grams(text, n)})
  assert counts == {'a': len(with_any)}
  for i in with_any:
    if spans:
      assert [train[i][start:stop] for start, stop in found[i]] == stretches(train[i], test_grams, n, 5)
  if spans:
    kept = [(i, *span) for i, bounds in sorted(found.items()) for span in bounds]
    kept = match.np.array(kept, match.STRETCH)
    numbered = ((one, i, '') for i, some in enumerate(pieces) if not (i in found and not found[i])
                for one in some)
    cut = [one for one, _ in match.stretches_of(numbered, kept)]
    joined, document = [], ''
    for one in cut:
      assert one.start == len(document)
      document += one.text
      if len(document) == one.length:
        joined.append(document)
        document = ''
    assert joined == [left for i, text in enumerate(train) for left in (
      stretches(text, test_grams, n, 5) if i in with_any else [text])]


@few
@hypothesis.given(texts, st.integers(1, 9), st.integers(20, 60))
def test_windows_have_each_n_gram_of_a_document_once(text, n, piece):
  hypothesis.assume(text.strip())
  text = text.replace('\x00', '')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(files, 'MAX_PIECE', piece)
    stream = windows.Windows(n)
    found = [stream.add(one) for one in files.document_pieces(text, '', {})]
  assert [gram for window in found for gram in grams(window.text, n)] == grams(text, n)


@few
@hypothesis.given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_a_key_set_has_its_keys_and_no_others(inside, others):
  array = lambda values: match.np.array(values, 'u8')
  made, asked = key_set.KeySet.of(array([*inside, *inside])), [*inside, *others, 0, 2**64 - 1]
  at, index = made.find(array(asked))
  assert at.tolist() == [i for i, key in enumerate(asked) if key in set(inside)]
  assert [asked[i] for i in at.tolist()] == made.keys[index].tolist()


def copied(seed, n=120):
  """(texts, some of which quote test sets or are copies of others, [texts of test set a, of b])."""
  rng, vocabulary = random.Random(seed), [f'word{i}' for i in range(2000)]
  draw = lambda low, high: ' '.join(rng.choices(vocabulary, k=rng.randint(low, high)))
  tests = [[draw(5, 60) for _ in range(20)] for _ in 'ab']
  made = []
  for i in range(n):
    parts = [draw(30, 120)]
    for _ in range(rng.choice((0, 0, 1, 2))):
      quoted = rng.choice(rng.choice(tests)).split()
      start = rng.randrange(len(quoted))
      quote = quoted[start:start + rng.randint(3, 20)]
      parts += [rng.choice((' - ', ', ')).join(quote).upper(), draw(1, 120)]
    made.append(f'{", ".join(parts)} {i}')
  made += [rng.choice(made) for _ in range(30)]                   # equal
  made += [made[i] + rng.choice(tests[0][:9]) for i in range(9)]  # near duplicates
  return made, tests


def tokenizer(folder):
  if not (folder / 'bpe').exists():
    byte_bpe.train_bpe(make_texts(20), 270).save(folder / 'bpe')
  return f'bpe:{folder}/bpe'


CLEAN = {'clean': 'webtext', 'clean_without': [
  name for name in webtext.FILTERS if name not in (*webtext.DUPLICATES, 'short')]}


@pytest.mark.parametrize('options', [{}, CLEAN], ids=['plain', 'clean'])
def test_the_corpus_is_that_of_the_sources_without_the_excluded_documents(tmp_path, options):
  made, tests = copied(1)
  flags = [write_jsonl(tmp_path / f'{name}.jsonl', own) for name, own in zip('ab', tests, strict=True)]
  options = {**options, 'tokenizer': tokenizer(tmp_path)}
  manifest = run(write_jsonl(tmp_path / 'all.jsonl', made), tmp_path / 'c', exclude=flags, **options)
  own = [{gram for text in texts for gram in grams(text, 8)} for texts in tests]
  kept = [text for text in made if not any(set(grams(text, 8)) & some for some in own)]
  assert 20 < len(kept) < len(made) - 20
  other = run(write_jsonl(tmp_path / 'kept.jsonl', kept), tmp_path / 'd', **options)
  assert manifest['splits'] == other['splits'] and manifest['content'] == other['content']
  assert manifest['skipped'] == {**other['skipped'], 'shares words with a test set': len(made) - len(kept)}
  every = {gram for text in made for gram in grams(text, 8)}
  assert manifest['excluded'] == {flag: {
    'documents': 20, 'skipped': 0, 'short': sum(len(text.split()) < 8 for text in texts),
    'ngrams': len(some), 'ngrams_found': len(some & every),
    'source_documents': sum(bool(set(grams(text, 8)) & some) for text in made)}
    for flag, texts, some in zip(flags, tests, own, strict=True)}
  assert reader.open_corpus(tmp_path / 'c', 'train', verify=True)


@pytest.mark.parametrize('options', [{}, CLEAN], ids=['plain', 'clean'])
def test_with_spans_the_stretches_between_shared_words_are_documents(tmp_path, options):
  made, tests = copied(2)
  flags = [write_jsonl(tmp_path / f'{name}.jsonl', own) for name, own in zip('ab', tests, strict=True)]
  own = {gram for texts in tests for text in texts for gram in grams(text, 6)}
  options = {**options, 'tokenizer': tokenizer(tmp_path), 'exclude_words': 6, 'exclude_spans': True}
  manifest = run(write_jsonl(tmp_path / 'all.jsonl', made), tmp_path / 'c', exclude=flags, **options)
  left = {text: stretches(text, own, 6, 200) for text in made}
  left = {text: found if any(shared(text, own, 6)) else [text] for text, found in left.items()}
  if not options.get('clean'):
    assert manifest['skipped'].get('shares words with a test set', 0) == sum(
      not left[text] for text in made)
    expected = {split: [one for text in made for one in left[text]
                        if _held(text) == (split == 'validation')] for split in ('train', 'validation')}
    for split, found in expected.items():
      assert documents(tmp_path / 'c', split) == found
    assert sum(len(some) > 1 for some in left.values()) > 10
  for text in documents(tmp_path / 'c', 'train'):
    assert not own & set(grams(text, 6))


def _held(text):
  return int.from_bytes(files.bytes_digest(text.encode())[:8], 'little') < 0.1 * 2**64


@pytest.mark.ci
@pytest.mark.parametrize('spans', [False, True])
def test_any_number_of_tasks_in_any_order_writes_the_same_corpus(tmp_path, spans):
  made, tests = copied(3)
  source = write_jsonl(tmp_path / 'a.jsonl', made)
  for options in ({}, CLEAN):
    options = {**options, 'exclude_spans': spans, 'tokenizer': tokenizer(tmp_path),
               'exclude': [write_jsonl(tmp_path / 't.jsonl', tests[0])]}
    name = f'{len(options)}'
    run(source, tmp_path / name, **options)
    run(source, tmp_path / f'{name}-2', workers=2, **options)
    assert contents(tmp_path / f'{name}-2') == contents(tmp_path / name)
    for tasks in (2, 30):
      out = tmp_path / f'{name}-tasks{tasks}'
      for stage in ('judge', *(['mark'] if 'clean' in options else []), 'tokenizer', 'encode', 'join'):
        order = [*range(tasks), 0]
        random.Random(tasks).shuffle(order)
        for task in order:
          run(source, out, stage=stage, task=task, tasks=tasks, **options)
      assert contents(out) == contents(tmp_path / name)
    with pytest.raises(InputError, match=r'--stage=mark: this corpus has the stages judge, tokenizer'):
      run(source, tmp_path / 'other', stage='mark', **{**options, 'clean': '', 'clean_without': ()})


def test_a_corpus_with_other_test_sets_is_another_corpus(tmp_path):
  source = write_jsonl(tmp_path / 'a.jsonl', make_texts(60))
  test = write_jsonl(tmp_path / 't.jsonl', ['one two three four five six seven eight'])
  options = {'tokenizer': tokenizer(tmp_path)}
  run(source, tmp_path / 'c', exclude=[test], stage='judge', **options)
  run(source, tmp_path / 'd', exclude=[test], **options)
  changed = [{}, {'exclude': [test], 'exclude_words': 7}, {'exclude': [test], 'exclude_spans': True}]
  for other in changed:
    for out in 'cd':
      with pytest.raises(InputError, match='another exclude'):
        run(source, tmp_path / out, stage='judge', **options, **other)
  write_jsonl(tmp_path / 't.jsonl', ['one two three four five six seven nine'])
  for out in 'cd':
    with pytest.raises(InputError, match='another text of --exclude'):
      run(source, tmp_path / out, exclude=[test], stage='judge', **options)


def test_test_sets_are_sources_files_globs_and_folders(tmp_path, capsys):
  folder = tmp_path / 'tests'
  (folder / 'more').mkdir(parents=True)
  eight = 'one two three four five six seven'
  write_jsonl(folder / 'a.jsonl', [f'{eight} a', 'too short'])
  (folder / 'more' / 'b.txt').write_text(f'{eight.upper()}, b!')
  (folder / 'c.jsonl').write_text(json.dumps({'question': f'{eight} c'}) + '\n')
  source = write_jsonl(tmp_path / 's.jsonl', [*(f'x {eight} {c} y' for c in 'abcd'), *make_texts(20)])
  flags = [f'{folder}/a.jsonl', f'{folder}/more', f'{folder}/*/b.txt', f'jsonl:{folder}/c.jsonl:question']
  manifest = run(source, tmp_path / 'c', tokenizer(tmp_path), exclude=flags)
  assert manifest['skipped'] == {'shares words with a test set': 3}
  assert {name: counts['source_documents'] for name, counts in manifest['excluded'].items()} == dict.fromkeys(
    flags, 1)
  assert manifest['excluded'][flags[0]]['short'] == 1
  assert run(source, tmp_path / 'd', tokenizer(tmp_path), exclude=[str(folder)], on_error='skip')[
    'excluded'][str(folder)] == {'documents': 3, 'skipped': 1, 'short': 1, 'ngrams': 2, 'ngrams_found': 2,
                                 'source_documents': 2}
  (folder / 'empty.jsonl').write_text('')
  assert not capsys.readouterr().err
  for name, text in (('empty', ''), ('short', '{"text": "one two"}\n')):
    (folder / f'{name}.jsonl').write_text(text)
    made = run(source, tmp_path / name, tokenizer(tmp_path), exclude=[f'{folder}/{name}.jsonl'])
    assert not made['skipped'] and made['excluded'][f'{folder}/{name}.jsonl']['ngrams'] == 0
    assert f'{name}.jsonl excludes nothing: no document in it has 8 words' in capsys.readouterr().err


@pytest.mark.parametrize('exclude, says', [
  (['{folder}/none.txt'], 'none.txt: no file has this name'), (['{folder}/none'], 'none: no file has this'),
  (['jsonl:{folder}/none'], 'no file has this name'),
  (['{folder}/c'], r'is a corpus: write corpus:.*c:SPLIT'),
  (['{folder}/bad.jsonl'], r'bad.jsonl:1: not JSON.*--on_error=skip'),
  (['{folder}/s.jsonl', '{folder}/s.jsonl'], 's.jsonl is given twice'), ([], 'needs test sets')])
def test_wrong_test_sets_raise_an_error_of_one_line(tmp_path, exclude, says):
  source = write_jsonl(tmp_path / 's.jsonl', make_texts(20))
  (tmp_path / 'bad.jsonl').write_text('{')
  run(source, tmp_path / 'c', tokenizer(tmp_path))
  with pytest.raises(InputError, match=says) as error:
    run(source, tmp_path / 'd', tokenizer(tmp_path), exclude_spans=True,
        exclude=[one.format(folder=tmp_path) for one in exclude])
  assert '\n' not in str(error.value)


def test_other_test_sets_are_an_error_that_names_what_differs(tmp_path):
  source, test_set = write_jsonl(tmp_path / 's.jsonl', make_texts(20)), tmp_path / 't.txt'
  test_set.write_text('one two three four five six seven eight nine')
  options = {'exclude': [str(test_set)], 'tokenizer': tokenizer(tmp_path)}
  run(source, tmp_path / 'c', stage='judge', **options)
  for other, says in (({'exclude': [source]}, r'another exclude \(.*t\.txt.*s\.jsonl'),
                      ({'exclude_words': 9}, r'another exclude_words \(8, not 9\)'),
                      ({'exclude_spans': True}, r'another exclude_spans \(False, not True\)')):
    with pytest.raises(InputError, match=says):
      run(source, tmp_path / 'c', stage='encode', **options | other)
  test_set.write_text('one two three four five six seven eight ten')
  with pytest.raises(InputError, match=r'another text of --exclude \('):
    run(source, tmp_path / 'c', stage='encode', **options)


def test_everything_can_be_excluded_but_then_there_is_no_corpus(tmp_path):
  source = write_jsonl(tmp_path / 's.jsonl', ['one two three four'])
  with pytest.raises(InputError, match=r"no document left .*'shares words with a test set'"):
    run(source, tmp_path / 'd', tokenizer(tmp_path), exclude=[source], exclude_words=2)
