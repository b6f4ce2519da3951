"""Text to token ids and back: byte-level BPE (GPT-2's), GPT-1's BPE, sentencepiece; and training.

A tokenizer has `name`, `n_vocab`, `end_of_text` (an id or None), `ends` (the ids at which generation ends),
`special_tokens` ({name: id}) and `digest` (SHA-256 of its files) and the methods `encode(text)`,
`encode_part(text, first)`, `decode(ids)` and `save(folder)`. Nothing in a text is a special token:
`<|endoftext|>` in a document is thirteen characters, unless `gptjax.data.special` is asked to read it as one.

    python -m gptjax.data.tokenizers train --kind=bpe --vocab_size=8192 --source=text:FILE --out=DIR
"""

if __name__ == '__main__':
  from gptjax import startup
  startup.begin('tokenizers', 'stopped')

import functools
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import regex

from gptjax import atomic, bounded, json_files, lfs, native, paths
from gptjax.data import command, files, hf_folder
from gptjax.data import progress as progress_bar
from gptjax.errors import InputError
from gptjax.flag_types import integer

KINDS = ('gpt2', 'bpe', 'gpt1', 'sentencepiece')  # of `KIND:PATH`
END_OF_TEXT = '<|endoftext|>'
VOCAB_SIZES = integer(1, 2**24)
# The published files, https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/
GPT2_URL = 'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/'
GPT2_SHA256 = {
  'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783',
  'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5'}
# digest() of the two, in this order.
GPT2_DIGEST = '00f404d36600411e497efb3df08d3b4e094f0820e2595afcb7cbd0c4353d4fcb'
LONGEST_WORD = 1000  # characters: the time that training takes is quadratic in the length of a word
AT_ONCE = 1 << 19  # characters given to tiktoken, whose stack is too small for a run of a million spaces
SPACE = '\u2581'  # sentencepiece's
# GPT-2's pre-split as tiktoken writes it: possessive, so faster, and the same on every text.
PATTERN = (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s")


def load(spec):
  """The tokenizer that `spec` names.

  Args:
    spec: `gpt2` (tiktoken's own cache), `gpt2:DIR`, `bpe:DIR` (a trained byte-level BPE),
      `gpt1:DIR`, `sentencepiece:FILE.model`, or a folder that holds the files of one of them.

  Raises:
    ValueError: no such kind, files absent, damaged, or not what the kind says.
  """
  spec = paths.expanded(spec, KINDS)
  kind, _, where = spec.partition(':')
  if spec == 'gpt2':
    return ByteBPE(*map(_from_tiktoken_cache, ('encoder.json', 'vocab.bpe')))
  if kind in ('gpt2', 'bpe') and where:
    made = ByteBPE.read(where)
    if kind == 'gpt2' and made.name != 'gpt2':
      raise InputError(f'{where} does not hold the published encoder.json and vocab.bpe of GPT-2 '
                       f'(SHA-256 {made.digest[:12]}): a BPE of your own is bpe:{where}')
    return made
  if kind == 'gpt1' and where:
    return _gpt1(where)
  if kind == 'sentencepiece' and where:
    return SentencePiece(_read(Path(where)))
  if spec and Path(spec).is_dir():
    return _load_folder(Path(spec))
  raise InputError(f'tokenizer {spec!r} is none of gpt2, gpt2:DIR, bpe:DIR, gpt1:DIR, '
                   'sentencepiece:FILE.model, or a folder that exists')


def _load_folder(folder):
  """The tokenizer whose files lie in the folder, told apart by their names."""
  if (folder / 'encoder_bpe_40000.json').exists() or (folder / 'encoder.json').exists():
    made = _gpt1(folder) if (folder / 'encoder_bpe_40000.json').exists() else ByteBPE.read(folder)
    made.ends = hf_folder.ends(folder, made.n_vocab, made.end_of_text)
    return made
  from gptjax.data import hf_tokenizer
  found = hf_tokenizer.load_folder(folder)
  if found is None:
    raise InputError(f'{folder} holds no tokenizer: looked for encoder.json and vocab.bpe, tokenizer.json, '
                     'vocab.json and merges.txt, encoder_bpe_40000.json, and one FILE.model')
  return found


def _gpt1(folder):
  from gptjax.data import gpt1_text
  return gpt1_text.GPT1(*(_read(Path(folder) / name) for name in gpt1_text.FILES))


def _read(path):
  lfs.refuse_pointer(path)
  try:
    return bounded.read(path)
  except OSError as error:
    raise InputError(f'tokenizer file {path}: {error.strerror}') from None


def _from_tiktoken_cache(name):
  """One of GPT-2's published files, from tiktoken's cache folder, or fetched by tiktoken."""
  import requests
  import tiktoken.load
  try:
    return tiktoken.load.read_file_cached(GPT2_URL + name, GPT2_SHA256[name])
  except (OSError, requests.RequestException) as error:
    raise InputError(f'GPT-2\'s {name} is not in tiktoken\'s cache (TIKTOKEN_CACHE_DIR) and cannot '
                     f'be fetched ({type(error).__name__}): name a folder that has it, '
                     'gpt2:DIR') from None


def digest(*files):
  """SHA-256 (hex) of the contents of files, in the given order."""
  return hashlib.sha256(b''.join(files)).hexdigest()


def only(end_of_text):
  """The `ends` of a tokenizer whose model names no others: its end of text, if there is one."""
  return () if end_of_text is None else (end_of_text,)


@functools.cache
def _byte_symbols():
  """{byte: character}: the stand-ins for bytes in OpenAI's files, in the order of their ids."""
  printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != ' ']
  others = [b for b in range(256) if b not in printable]
  return {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}


def bpe_symbols(merges):
  """The entries of a byte-level BPE in OpenAI's layout, in the order of their ids."""
  return [*_byte_symbols().values(), *(a + b for a, b in merges), END_OF_TEXT]


def train_bpe(texts, n_vocab):
  """A byte-level BPE with GPT-2's pre-split, trained on `texts`; the same for the same input.

  Args:
    texts: iterable of str.
    n_vocab: entries: 256 bytes, merges, and `<|endoftext|>` as the last.

  Raises:
    ValueError: n_vocab is below 257, or the texts do not have that many pairs to merge.
  """
  if n_vocab < 257:
    raise InputError(f'a byte-level BPE has 257 entries at least (256 bytes, {END_OF_TEXT}), '
                     f'not {n_vocab}')
  import tokenizers
  model = tokenizers.Tokenizer(tokenizers.models.BPE())
  model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  alphabet = list(_byte_symbols().values())
  model.train_from_iterator(_without_long_words(texts), tokenizers.trainers.BpeTrainer(
    vocab_size=n_vocab - 1, initial_alphabet=alphabet, min_frequency=1, show_progress=False))
  merges = [tuple(pair) for pair in json.loads(model.to_str())['model']['merges']]
  if len(merges) != n_vocab - 257:
    raise InputError(f'the text is too short for {n_vocab} entries: it gives {257 + len(merges)}')
  symbols = bpe_symbols(merges)
  assert len(set(symbols)) == n_vocab, 'two merges with one result'
  encoder = json.dumps({symbol: i for i, symbol in enumerate(symbols)})
  lines = ['#version: 0.2', *(f'{a} {b}' for a, b in merges)]
  return ByteBPE(encoder.encode(), ('\n'.join(lines) + '\n').encode())


def _runs(kind, longest):
  """A pattern of what is longer than that of one kind of characters, from its beginning."""
  return rf'(?<!{kind}){kind}{{{longest + 1},}}+'


# Words of the pre-split; and, where versions of Unicode differ in what a letter is, all but lines and spaces.
_MAYBE_LONG = re.compile('|'.join((_runs('[^ \n]', LONGEST_WORD), _runs(r'\s', LONGEST_WORD))))
_LONG_WORDS = (
  re.compile(_runs(r'\s', LONGEST_WORD)),
  regex.compile('|'.join(_runs(kind, LONGEST_WORD) for kind in (r'\p{L}', r'\p{N}', r'[^ \n\p{L}\p{N}]'))),
  re.compile(_runs('[^ \n]', 8 * LONGEST_WORD)))


def _without_long_words(texts):
  """The texts, cut where words of the pre-split are longer than LONGEST_WORD, or a few of them."""
  for text in texts:
    parts = [text]
    for pattern in _LONG_WORDS if _MAYBE_LONG.search(text) else ():
      parts = [part for one in parts for part in _cut_runs(one, pattern)]
    yield from parts


def _cut_runs(text, pattern):
  start = 0
  for match in pattern.finditer(text):
    for cut in range(match.start() + LONGEST_WORD, match.end(), LONGEST_WORD):
      yield text[start:cut]
      start = cut
  yield text[start:]


def train_sentencepiece(texts, n_vocab):
  """A sentencepiece unigram model trained on the lines of `texts`; the same for the same input.

  It keeps the text as it is (no normalisation, bytes for what it has not seen); id 0 is unknown, 1
  and 2 begin and end a text.

  Args:
    texts: iterable of str.
    n_vocab: entries, with 3 marks and 256 bytes.

  Raises:
    ValueError: the texts are too short for n_vocab, or n_vocab is too small for their characters.
  """
  import sentencepiece
  lines = (line for text in texts for line in text.split('\n') if line)
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=lines, model_writer=model, vocab_size=n_vocab, model_type='unigram',
      normalization_rule_name='identity', remove_extra_whitespaces=False, byte_fallback=True,
      character_coverage=0.9995, max_sentence_length=1 << 20, num_threads=1, minloglevel=2)
  except RuntimeError as error:
    raise InputError(f'no sentencepiece model of {n_vocab} entries: {error}') from None
  return SentencePiece(model.getvalue())


class ByteBPE:
  """Byte-level BPE, GPT-2's or a trained one, encoded by tiktoken."""

  @classmethod
  def read(cls, folder):
    """From OpenAI's `encoder.json` and `vocab.bpe`, or Hugging Face's names for the same files."""
    folder = Path(folder)
    if not (folder / 'encoder.json').exists() and (folder / 'vocab.json').exists():
      return cls(_read(folder / 'vocab.json'), _read(folder / 'merges.txt'))
    return cls(_read(folder / 'encoder.json'), _read(folder / 'vocab.bpe'))

  def __init__(self, encoder, merges):
    """From the contents (bytes) of `encoder.json` and `vocab.bpe`."""
    import tiktoken
    self.files = {'encoder.json': encoder, 'vocab.bpe': merges}
    self.digest = digest(encoder, merges)
    self.name = 'gpt2' if self.digest == GPT2_DIGEST else 'bpe'
    ranks = _ranks(encoder, merges)
    self.n_vocab, self.end_of_text = len(ranks) + 1, len(ranks)
    self.ends, self.special_tokens = only(self.end_of_text), {END_OF_TEXT: self.end_of_text}
    self.coder = native.call(
      'encoder.json and vocab.bpe cannot be read', tiktoken.Encoding, self.name, pat_str=PATTERN,
      mergeable_ranks=ranks, special_tokens={END_OF_TEXT: self.end_of_text}, explicit_n_vocab=self.n_vocab)

  def encode(self, text):
    """int32[n] ids of the text."""
    found = []
    while True:
      stop = files.cut(text[:AT_ONCE + 1], AT_ONCE)
      ids = native.call('vocab.bpe cannot encode a text', self.coder.encode_to_numpy, text[:stop],
                        disallowed_special=())
      found.append(ids.astype(np.int32))
      text = text[stop:]
      if not text:
        return np.concatenate(found) if len(found) > 1 else found[0]

  def encode_part(self, text, first):
    """int32[n] ids of a part of a document (see `files.cut`); parts give what the whole gives."""
    del first
    return self.encode(text)

  def decode_bytes(self, ids):
    """The bytes of the ids."""
    return native.call('vocab.bpe cannot decode ids', self.coder.decode_bytes, np.asarray(ids).tolist())

  def decode(self, ids):
    """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
    return self.decode_bytes(ids).decode('utf-8', errors='replace')

  def save(self, folder):
    """Writes the tokenizer's files into the folder, which is made if need be."""
    save_files(folder, files_of(self))


def _ranks(encoder, merges):
  """{bytes: id} of all entries but the last; ValueError unless the files are in OpenAI's layout."""
  try:
    ids = json_files.parsed(encoder)
    pairs = [line.split(' ') for line in merges.decode().split('\n')[1:] if line]
    *symbols, _ = bpe_symbols(pairs)
    byte_of = str.maketrans({symbol: chr(byte) for byte, symbol in _byte_symbols().items()})
    ranks = {symbol.translate(byte_of).encode('latin-1'): i for i, symbol in enumerate(symbols)}
  except ValueError as error:
    raise InputError('encoder.json and vocab.bpe are not those of a byte-level BPE: '
                     f'{type(error).__name__} {error}') from None
  expected = {symbol: i for i, symbol in enumerate([*symbols, END_OF_TEXT])}
  if not isinstance(ids, dict):
    raise InputError(f'encoder.json holds a {type(ids).__name__}, not an object of entries and ids')
  if ids != expected or len(ranks) != len(symbols):
    raise InputError(f'encoder.json ({len(ids)} entries) does not fit vocab.bpe ({len(pairs)} '
                     f'merges): ids must be the 256 bytes, the merges, and {END_OF_TEXT} last')
  return ranks


class SentencePiece:
  """A sentencepiece model."""

  name = 'sentencepiece'

  def __init__(self, model):
    """From the contents (bytes) of a `.model` file."""
    import sentencepiece
    self.files = {'sentencepiece.model': model}
    self.digest = digest(model)
    if not model:  # which the library takes for one that comes later
      raise InputError('not a sentencepiece model: it is empty')
    self.coder = native.call('not a sentencepiece model', sentencepiece.SentencePieceProcessor,
                             model_proto=model)
    self.n_vocab = self.coder.vocab_size()
    end = self.coder.eos_id()
    self.end_of_text = end if end >= 0 else None
    self.ends = only(self.end_of_text)
    control = filter(self.coder.is_control, range(self.n_vocab))
    self.special_tokens = {self.coder.id_to_piece(i): i for i in control}
    # Whether a text is encoded as if a space stood before it.
    pieces = native.call('not a sentencepiece model', self.coder.encode, 'a', out_type=str)
    self._adds_space = bool(pieces) and pieces[0].startswith(SPACE)

  def encode(self, text):
    """int32[n] ids of the text, without begin and end marks."""
    return np.array(native.call('the sentencepiece model cannot encode a text', self.coder.encode, text),
                    np.int32)

  def encode_part(self, text, first):
    """int32[n] ids of a part of a document (see `files.cut`).

    Parts give what the whole gives where no entry of the model spans white space, which is what
    models are trained to by default.
    """
    if first or not self._adds_space:
      return self.encode(text)
    ids = self.encode(text.removeprefix(' '))
    # Before anything but a word, the added space is an entry of its own.
    alone = len(ids) and self.coder.id_to_piece(int(ids[0])) == SPACE and text[0] != ' '
    return ids[1:] if alone else ids

  def decode(self, ids):
    """The text of the ids. White space and what the model normalises are not as they were."""
    return native.call('the sentencepiece model cannot decode ids', self.coder.decode,
                       np.asarray(ids).tolist())

  def save(self, folder):
    """Writes the tokenizer's file into the folder, which is made if need be."""
    save_files(folder, files_of(self))


def files_of(tokenizer):
  """{name: bytes} of what `save` writes: its files, and its `ends` if its end of text does not say them."""
  ends = tuple(tokenizer.ends)
  if ends == only(tokenizer.end_of_text):
    return tokenizer.files
  return tokenizer.files | {hf_folder.GENERATION: json.dumps({'eos_token_id': list(ends)}).encode()}


def save_files(folder, files):
  """Writes {name: bytes} into the folder; ValueError if there cannot be one."""
  folder = Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be written to: {error.strerror}') from None
  for name, content in files.items():
    atomic.write(folder / name, content)


TRAINERS = {'bpe': (train_bpe, 1 << 28), 'sentencepiece': (train_sentencepiece, 1 << 26)}


def train(kind, n_vocab, texts, *, progress):
  """A new tokenizer, trained on texts up to the first 268 (bpe) or 67 (sentencepiece) million
  characters, which is what bounds the memory that training takes.

  Args:
    kind: 'bpe' or 'sentencepiece'.
    n_vocab: its number of entries.
    texts: iterable of str.
    progress: show a bar on stderr.
  """
  if kind not in TRAINERS:
    raise InputError(f'kind = {kind!r} is not one of {sorted(TRAINERS)}')
  VOCAB_SIZES.require('n_vocab', n_vocab)
  trainer, limit = TRAINERS[kind]
  with progress_bar.bar(f'reading for a {kind} of {n_vocab:,}', progress) as bar:
    return trainer(_first(texts, limit, bar), n_vocab)


def _first(texts, characters, bar):
  for text in texts:
    if characters <= 0:
      return
    characters -= len(text)
    bar.update(len(text.encode()))
    yield text


def main(arguments):
  from gptjax.data import sources
  parser = command.Parser(prog='python -m gptjax.data.tokenizers')
  parser.add_argument('action', choices=['train'])
  parser.add_argument('--kind', required=True, help='bpe or sentencepiece')
  parser.add_argument('--vocab_size', type=VOCAB_SIZES, required=True, help='entries')
  parser.add_argument('--source', action='append', required=True, help='KIND:WHERE; repeatable')
  parser.add_argument('--out', type=paths.flag, required=True, help='folder for the tokenizer')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='where tfds: finds its data sets')
  flags = parser.parse_args(arguments)
  save_files(flags.out, {})  # A folder that cannot be is named before the training.
  texts = (piece.text for unit in sources.units(flags.source, flags.tfds_dir)
           for piece in sources.sound_pieces(unit, '', flags.tfds_dir))
  made = train(flags.kind, flags.vocab_size, texts, progress=True)
  made.save(flags.out)
  print(f'{flags.out}: {made.name}, {made.n_vocab} entries, digest {made.digest}')


if __name__ == '__main__':
  command.run(main, 'tokenizers')
