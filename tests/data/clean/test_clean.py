"""Each filter removes its example and keeps the other; duplicates are those a slow judge finds."""

import json
import random

import pytest
from conftest import SHARED
from prepared import documents, run, write_jsonl

from gptjax.data import summary
from gptjax.data.clean import __main__ as clean_command
from gptjax.data.clean import clean_examples, near_duplicates, webtext
from gptjax.data.prepare import prepare
from gptjax.data.sources import files

TEXT_FILTERS = [name for name in webtext.FILTERS if name not in webtext.DUPLICATES]


@pytest.fixture
def recipe(tmp_path):
  (tmp_path / 'blocked.txt').write_text('# blocked\n12345 blocked.example\nwww.other.example\n')
  (tmp_path / 'titles.txt').write_text('River\nNew_York_City\n\n')
  def make(without=()):
    return webtext.make_recipe('webtext', without, str(tmp_path / 'blocked.txt'),
                        str(tmp_path / 'titles.txt'))
  return make


def judge(example, recipe):
  verdict = webtext.find_filter(webtext.make_document(*example), recipe)
  return webtext.FILTERS[verdict - 1] if verdict else ''


@pytest.mark.parametrize('name', TEXT_FILTERS)
def test_example_of_each_filter(recipe, name):
  removed, kept = clean_examples.EXAMPLES[name]
  assert judge(removed, recipe()) == name
  assert judge(kept, recipe()) == ''
  assert judge(removed, recipe([name])) != name


def test_every_filter_has_an_example_and_says_what_it_does(capsys):
  assert set(clean_examples.EXAMPLES) == set(webtext.FILTERS)
  clean_command.main()
  printed = capsys.readouterr().out
  assert all(f'{name}: ' in printed for name in webtext.FILTERS)


def test_the_list_says_what_each_filter_costs(capsys):
  """Every kind of text is lost to some filter, and the list names just those that remove it."""
  clean_command.main()
  blocks = capsys.readouterr().out.strip().split('\n\n')
  found = {name: set() for name in clean_examples.FALSE_POSITIVES}
  plain = webtext.make_recipe('webtext', (), '', '')
  for block in blocks:
    name = block.partition(':')[0]
    line = next((line for line in block.split('\n') if line.startswith('  costs ')), '')
    for kind, text in clean_examples.FALSE_POSITIVES.items():
      removes = webtext.FILTER_FUNCTIONS.get(name, lambda document, recipe: False)
      removed = removes(webtext.make_document(text, {}), plain)
      assert (kind in line) == removed, (kind, name)
      found[kind] |= {name} if removed else set()
  assert found == {'verse': {'menu'}, 'a song with a refrain': {'repetition'},
                   'a scene of a play': {'menu', 'repetition'}, 'Python source': {'not_english'}}


@pytest.mark.parametrize('fields, title, removed', [
  ({'url': 'https://de.wikipedia.org/wiki/Fluss'}, '', True),
  ({'domain': 'en.m.wikipedia.org'}, '', True), ({'domain': 'wikipedia.org'}, '', True),
  ({'url': 'https://notwikipedia.org/'}, '', False),
  ({'url': 'https://example.org/River'}, 'River', False),  # its url says where it is from
  ({'title': 'river'}, '', True), ({'title': 'River - Wikipedia'}, '', True),
  ({'title': 'New York  City'}, '', True), ({'title': 'Rivers'}, '', False),
  ({}, ' = River = \n', True), ({}, 'Rivers\n', False),
  ({}, 'Stream\nFrom Wikipedia, the free encyclopedia\n', True)])
def test_wikipedia(recipe, fields, title, removed):
  found = judge((title + clean_examples.PROSE, fields), recipe())
  assert found == ('wikipedia' if removed else '')


@pytest.mark.parametrize('listed, domain, removed', [
  ('google', 'google.com', True), ('google', 'news.google.co.uk', True), ('google', 'google', True),
  ('google', 'google.example.com', False), ('google', 'notgoogle.com', False), ('gov', 'www.nasa.gov', False),
  ('in', 'news.example.in', False), ('ne', 'example.ne.jp', False), ('co', 't.co', False),
  ('go', 'www.abc.go.com', True), ('blogspot', 'x.blogspot.com', True), ('1542261 google', 'google.de', True),
  ('blogspot.com', 'x.blogspot.com', True), ('co.uk', 'bbc.co.uk', True), ('\ufeffbbc', 'bbc.co.uk', True)])
def test_blocked_domains_with_and_without_their_end(tmp_path, listed, domain, removed):
  (tmp_path / 'blocked.txt').write_text(listed)
  made = webtext.make_recipe('webtext', (), str(tmp_path / 'blocked.txt'), '')
  found = judge((clean_examples.PROSE, {'url': f'https://{domain}/a'}), made)
  assert found == ('blocked_domain' if removed else '')


def test_origins_inside_of_a_record_are_seen_and_missing_ones_counted(tmp_path):
  origins = [{'meta': {'url': 'https://en.wikipedia.org/wiki/River'}}, {'url': 'https://a.example/'}, {},
             {'metadata': {'domain': 'wikipedia.org'}}, {'title': 'A title is no origin'}]
  texts = [clean_examples.PROSE.replace('river', f'{i}') for i in range(len(origins))]
  (tmp_path / 'a.jsonl').write_text('\n'.join(
    json.dumps({'text': text, **fields}) for text, fields in zip(texts, origins, strict=True)))
  for workers in (1, 2):
    made = prepare([f'jsonl:{tmp_path}/a.jsonl'], 'train-bpe:300', str(tmp_path / f'out{workers}'),
                   validation_fraction=0, clean='webtext', workers=workers, tfds_dir='', on_error='stop',
                   clean_without=['near_duplicate'], progress=False)
    assert made['skipped'] == {'webtext wikipedia': 2} and made['no_origin'] == {'documents': 2, 'of': 5}
  assert 'no url or domain: 2 of 5 documents' in summary.format_summary(made, 1.0)
  without = prepare([f'jsonl:{tmp_path}/a.jsonl'], 'train-bpe:300', str(tmp_path / 'without'),
                    validation_fraction=0, clean='webtext', workers=1, tfds_dir='', on_error='stop',
                    clean_without=['wikipedia', 'blocked_domain'], progress=False)
  assert 'no_origin' not in without and 'no url' not in summary.format_summary(without, 1.0)


@pytest.mark.parametrize('url, domain', [
  ('https://User@WWW.Blocked.example:8080/x?y', 'blocked.example'),
  ('blocked.example/x', 'blocked.example'),
  ('http://a.b.c#d', 'a.b.c'), ('', '')])
def test_domain_of(url, domain):
  assert webtext.get_domain({'url': url}) == domain
  assert webtext.get_domain({'url': 'http://x.example', 'domain': 'y.example'}) == 'y.example'


def test_real_text_is_judged_as_a_reader_would(shared_data):
  """News in English stays, its French translation goes; so with novels and Wikipedia's articles."""
  plain = webtext.make_recipe('webtext', (), '', '')
  counts = {}
  for language in 'en', 'fr':
    lines = (SHARED / f'eval/newstest2014.{language}').read_text().split('\n')
    documents = [' '.join(lines[i:i + 12]) for i in range(0, 3000, 12)]
    found = [judge((text, {}), plain) for text in documents]
    counts[language] = found.count('') / len(found)
    if language == 'fr':
      assert set(found) == {'not_english'}
  assert counts['en'] > 0.98 and counts['fr'] == 0
  wiki = (SHARED / 'text/wikitext-2/wiki.test.raw').read_text()
  articles = [wiki[i:i + 4000] for i in range(0, len(wiki) - 4000, 4000)]
  assert sum(judge((text, {}), plain) == '' for text in articles) > 0.98 * len(articles)


def test_unknown_names_are_refused(tmp_path):
  for call in [('web', (), '', ''), ('webtext', ['shorts'], '', ''), ('', ['short'], '', ''),
               ('webtext', (), str(tmp_path / 'none.txt'), '')]:
    with pytest.raises(ValueError, match=r'not one of|not a filter|cannot be read'):
      webtext.make_recipe(*call)


def test_the_description_tells_recipes_apart(recipe):
  plain = [webtext.make_recipe(name, (), '', '').description for name in ('', 'webtext')]
  assert len({recipe().description, recipe(['short']).description, *plain}) == 4


def shingles(text):
  words, n = text.lower().split(), near_duplicates.SHINGLE_WORDS
  return {tuple(words[i:i + n]) for i in range(len(words) - n + 1)}


def near_and_far(rng):
  """Documents, some of them copies of earlier ones with words changed; and their similarities."""
  words = [f'w{i}' for i in range(5000)]
  texts = [' '.join(rng.choices(words, k=300)) for _ in range(40)]
  for share in (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) * 8:
    copy = rng.choice(texts[:40]).split()
    for i in rng.sample(range(len(copy)), int(share * len(copy))):
      copy[i] = rng.choice(words)
    texts.append(' '.join(copy))
  return texts


def test_near_duplicates_are_those_of_high_similarity(tmp_path):
  texts = near_and_far(random.Random(1))
  made = run(write_jsonl(tmp_path / 'a.jsonl', texts), tmp_path / 'c', validation_fraction=0, clean='webtext',
             clean_without=TEXT_FILTERS)
  kept = set(documents(tmp_path / 'c', 'train'))
  sets = [shingles(text) for text in texts]
  for i, text in enumerate(texts):
    best = max((len(sets[i] & other) / len(sets[i] | other) for other in sets[:i]), default=0)
    if text not in texts[:i] and not 0.65 < best < 0.93:
      assert (text in kept) == (best < 0.65), best
  assert made['skipped']['webtext exact_duplicate'] == len(texts) - len(set(texts))
  assert made['skipped']['webtext near_duplicate'] == len(set(texts)) - len(kept)


def test_signatures_do_not_depend_on_the_machine_or_the_version():
  near = webtext.make_recipe('webtext', (), '', '').near
  signature = near_duplicates.signature(clean_examples.PROSE.split(), near)
  assert signature[:4].tolist() == [10059615, 54805009, 81105255, 60612603]
  assert near_duplicates.band_keys(signature[None], near)[0, :2].tolist() == GOLDEN_KEYS


GOLDEN_KEYS = [13304973739951596225, 17593078837002699539]


def test_recipe_in_a_corpus(tmp_path, recipe):
  """Counts by filter, the first of duplicates kept, the same corpus from 1 and from 2 workers."""
  removed = [clean_examples.EXAMPLES[name][0] for name in webtext.FILTERS]
  records = [(clean_examples.PROSE, {}), *removed,
             (clean_examples.OTHER_PROSE, {'url': 'http://a.example'})]
  (tmp_path / 'a.jsonl').write_text('\n'.join(
    json.dumps({'text': text, **fields}) for text, fields in records))
  made = [prepare([f'jsonl:{tmp_path}/a.jsonl'], 'train-bpe:300', str(tmp_path / f'out{n}'),
                  validation_fraction=0, clean='webtext', workers=n, tfds_dir='', on_error='stop',
                  blocked_domains=str(tmp_path / 'blocked.txt'),
                  wikipedia_titles=str(tmp_path / 'titles.txt'), progress=False) for n in (1, 2)]
  assert made[0] == made[1]
  assert made[0]['skipped'] == {f'webtext {name}': 1 for name in webtext.FILTERS}
  assert made[0]['splits']['train']['documents'] == 2
  kept = len((clean_examples.PROSE + clean_examples.OTHER_PROSE).encode())
  assert made[0]['splits']['train']['bytes'] == kept
  with pytest.raises(ValueError, match='another clean'):
    prepare([f'jsonl:{tmp_path}/a.jsonl'], 'train-bpe:300', str(tmp_path / 'out1'),
            validation_fraction=0, clean='', workers=1, tfds_dir='', on_error='stop',
            progress=False)


def test_long_documents_are_judged_by_their_first_piece(tmp_path, monkeypatch):
  monkeypatch.setattr(files, 'MAX_PIECE', 2000)
  texts = [clean_examples.PROSE * 5, clean_examples.FRENCH * 5 + clean_examples.PROSE * 5]
  (tmp_path / 'a.jsonl').write_text('\n'.join(json.dumps({'text': text}) for text in texts))
  made = prepare([f'jsonl:{tmp_path}/a.jsonl'], 'train-bpe:300', str(tmp_path / 'out'),
                 validation_fraction=0, clean='webtext', workers=1, tfds_dir='', on_error='stop',
                 clean_without=['repetition'], progress=False)
  assert made['skipped'] == {'webtext not_english': 1}
  assert made['splits']['train']['bytes'] == len(texts[0].encode())
