"""A folder's tokenizer is read as `transformers.AutoTokenizer` reads it, whatever files it holds."""

import json
import random

import pytest

transformers = pytest.importorskip('transformers')

from gptjax.data.sources import files  # noqa: E402
from gptjax.data.tokenizers import byte_bpe, hf_tokenizer, loading  # noqa: E402
from gptjax.errors import InputError  # noqa: E402

WORDS = 'the blue stone never sings of rain, and trees walk under it; don\'t they zzz? '
TEXTS = ['the cat sat', ' and a dog', 'a  b\n\nc', "don't", '', 'zzz stone zzz',
         'naïve café 日本 \U0001f600', 'rain']
END, OTHER = '<|endoftext|>', '</s>'
ROWS = {'exact': 0, 'padded': 24}
# What a folder may hold, by file; None: the file is not there, or the field.
PARTS = {
  'layout': ['gpt2', 'front', 'other end'],
  'files': ['slow', 'fast', 'both'],
  'merges': ['lf', 'crlf', 'no version'],
  'rows': list(ROWS),
  'class': [None, 'GPT2Tokenizer', 'GPT2TokenizerFast', 'PreTrainedTokenizerFast', 'TokenizersBackend'],
  'prefix': [None, False, True],
  'json prefix': [False, True],
  'named': [None, {'eos_token': END}, {'eos_token': OTHER}, {'eos_token': {'content': END, 'lstrip': False}},
            {'pad_token': '[PAD]'}, {'eos_token': END, 'pad_token': '[PAD]', 'bos_token': None}],
  'map': [None, {}, {'eos_token': OTHER, 'bos_token': OTHER}, {'eos_token': {
    'content': OTHER, 'lstrip': False, 'rstrip': False, 'normalized': False, 'single_word': False}},
    {'additional_special_tokens': ['<sep>']}],
  'added': [None, {}, {'zzz': 0}, {'<sep>': 0}],
  'decoder': [None, {}, {'zzz': False}, {'<sep>': True}],
  'config end': [None, 'null', 0, 17],
  'generation': [None, {}, {'eos_token_id': 17}, {'eos_token_id': [0, 17]}, {'eos_token_id': None}]}
PLAIN = {name: values[0] for name, values in PARTS.items()}


@pytest.fixture(scope='module')
def symbols():
  """{layout: [entries in the order of their ids]} and the merges."""
  made = byte_bpe.train_bpe([WORDS * 9], 300)
  merges = [tuple(line.split(' ')) for line in made.files['vocab.bpe'].decode().split('\n')[1:] if line]
  *entries, _ = byte_bpe.bpe_symbols(merges)
  return {'gpt2': [*entries, END], 'front': [END, *entries], 'other end': [OTHER, *entries]}, merges


def write_folder(folder, parts, symbols):
  """Writes what `parts` says; gives the rows of the model."""
  layouts, merges = symbols
  entries = layouts[parts['layout']]
  vocab = {symbol: i for i, symbol in enumerate(entries)}
  rows = len(vocab) + ROWS[parts['rows']]
  end = END if END in vocab else OTHER
  write = lambda name, value: (folder / name).write_text(json.dumps(value), encoding='utf-8')
  if parts['files'] != 'fast':
    write('vocab.json', vocab)
    lines = ['#version: 0.2'][parts['merges'] == 'no version':] + [f'{a} {b}' for a, b in merges] + ['']
    text = ('\r\n' if parts['merges'] == 'crlf' else '\n').join(lines)
    (folder / 'merges.txt').write_bytes(text.encode())
  if parts['files'] != 'slow':
    write('tokenizer.json', tokenizer_json(vocab, merges, end, parts['json prefix']))
  settings = {'tokenizer_class': parts['class'], 'add_prefix_space': parts['prefix']} | (parts['named'] or {})
  if parts['decoder'] is not None:
    settings['added_tokens_decoder'] = {
      str(len(vocab) + i): token_json(*token) for i, token in enumerate(parts['decoder'].items())}
  settings = {name: value for name, value in settings.items() if value is not None}
  if settings:
    write('tokenizer_config.json', settings)
  for part, name in (('map', 'special_tokens_map.json'), ('generation', 'generation_config.json')):
    if parts[part] is not None:
      write(name, parts[part])
  if parts['added'] is not None:
    write('added_tokens.json', {name: len(vocab) + i for i, name in enumerate(parts['added'])})
  config = {'model_type': 'gpt2', 'vocab_size': rows, 'n_embd': 8, 'n_layer': 1, 'n_head': 1,
            'n_positions': 8}
  if parts['config end'] is not None:
    config |= {'eos_token_id': None if parts['config end'] == 'null' else parts['config end']}
  write('config.json', config)
  return rows, set(vocab)


def token_json(name, special, **more):
  return {'content': name, 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': not special,
          'special': special, **more}


def tokenizer_json(vocab, merges, end, prefix):
  split = {'type': 'ByteLevel', 'add_prefix_space': prefix, 'trim_offsets': True, 'use_regex': True}
  return {'version': '1.0', 'truncation': None, 'padding': None, 'normalizer': None, 'pre_tokenizer': split,
          'post_processor': None, 'decoder': split, 'added_tokens': [token_json(end, True, id=vocab[end])],
          'model': {'type': 'BPE', 'dropout': None, 'unk_token': None, 'continuing_subword_prefix': None,
                    'end_of_word_suffix': None, 'fuse_unk': False, 'byte_fallback': False, 'vocab': vocab,
                    'merges': [f'{a} {b}' for a, b in merges]}}


def combinations(n, seed):
  """The plain folder, each other value of each part alone, and n draws of all parts."""
  yield PLAIN
  for name, values in PARTS.items():
    for value in values[1:]:
      yield PLAIN | {name: value}
      yield PLAIN | {'layout': 'front', 'files': 'fast', name: value}
  drawn = random.Random(seed)
  for _ in range(n):
    yield {name: drawn.choice(values) for name, values in PARTS.items()}


def compared(folder, parts, symbols):
  """Compares the two readings of a folder; gives 'same', 'refused' or 'neither'."""
  rows, vocab = write_folder(folder, parts, symbols)
  try:
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
  except Exception:  # whatever is wrong, there is nothing to compare with
    return 'neither'
  try:
    ours = hf_tokenizer.load_folder(folder, rows)
  except InputError as error:
    assert any(name in str(error) for name in ('add_prefix_space', 'tokenizer_class')), error
    return 'refused'
  assert [ours.encode(text).tolist() for text in TEXTS] == [
    theirs.encode(text, add_special_tokens=False) for text in TEXTS]
  wanted = {token.content: i for i, token in theirs.added_tokens_decoder.items()
            if token.special and i < rows}
  # A default of the class that no file names and the vocabulary lacks is not made up.
  made_up = {END} - vocab
  assert {n: i for n, i in ours.special_tokens.items() if n not in made_up} == {
    n: i for n, i in wanted.items() if n not in made_up}
  sources = ['named'] + ['map'] * (parts['decoder'] is None)
  named = any('eos_token' in (parts[source] or {}) for source in sources)
  if theirs.eos_token in vocab or (named and theirs.eos_token_id < rows):
    assert ours.end_of_text == theirs.eos_token_id
  elif isinstance(parts['config end'], int):
    assert ours.end_of_text == parts['config end']
  if theirs.bos_token_id is not None and theirs.bos_token_id < rows and theirs.bos_token not in made_up:
    assert ours.start_of_text == theirs.bos_token_id
  config = transformers.AutoConfig.from_pretrained(folder)
  if parts['generation'] is not None and (folder / 'generation_config.json').exists():
    ends = transformers.GenerationConfig.from_pretrained(folder).eos_token_id
  else:
    ends = config.eos_token_id
  ends = [ends] if isinstance(ends, int) else ends
  if ends and all(i < ours.n_vocab for i in ends):
    assert list(ours.eos_ids) == ends
  ours.save(folder / 'saved')
  again = loading.load(str(folder / 'saved'))
  for name in ('digest', 'name', 'n_vocab', 'end_of_text', 'start_of_text', 'special_tokens', 'eos_ids'):
    assert getattr(again, name) == getattr(ours, name), name
  return 'same'


@pytest.mark.ci
def test_every_folder_that_transformers_opens_has_the_same_ids_special_tokens_and_ends(tmp_path, symbols):
  """Or it is refused, with the name of the feature."""
  found = []
  for number, parts in enumerate(combinations(150, 0)):
    folder = tmp_path / str(number)
    folder.mkdir()
    try:
      found.append(compared(folder, parts, symbols))
    except AssertionError as error:
      changed = {name: value for name, value in parts.items() if value != PLAIN[name]}
      raise AssertionError(f'{changed}: {error}') from None
  assert found.count('same') > 120 and found.count('refused') < len(found) / 4, found


@pytest.mark.parametrize('changes', [
  {'layout': 'front'}, {'named': {'eos_token': END, 'pad_token': '[PAD]'}}])
def test_pieces_of_a_long_document_give_the_ids_of_the_whole(changes, tmp_path, symbols, monkeypatch):
  monkeypatch.setattr(files, 'MAX_PIECE', 200)
  write_folder(tmp_path, PLAIN | {'files': 'both'} | changes, symbols)
  made = hf_tokenizer.load_folder(tmp_path)
  assert isinstance(made, hf_tokenizer.LibraryTokenizer)
  text = (' '.join(TEXTS) + "\n\n  the trees' ...  \n" + WORDS * 5) * 3
  pieces = list(files.document_pieces(text, '', {}))
  assert len(pieces) > 5
  ids = [i for piece in pieces for i in made.encode_part(piece.text, piece.start == 0).tolist()]
  assert ids == made.encode(text).tolist()


@pytest.mark.parametrize('changes', [
  {'json prefix': True, 'class': 'PreTrainedTokenizerFast'}, {'added': {'zzz': 0}}])
def test_pieces_are_refused_where_a_token_may_span_two(changes, tmp_path, symbols):
  write_folder(tmp_path, PLAIN | {'files': 'both', 'layout': 'front'} | changes, symbols)
  with pytest.raises(InputError, match='prepare` has --document_separator'):
    hf_tokenizer.load_folder(tmp_path).encode_part(' two', False)
