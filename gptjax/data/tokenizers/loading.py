"""Opens the tokenizer that a text like `bpe:DIR` names.

A tokenizer has `name`, `n_vocab`, `end_of_text` (an id or None: documents of a corpus end with it),
`start_of_text` (an id or None: texts for a model begin with it; `end_of_text`, unless the model has another),
`text_prefix` (tuple of ids that transformers puts before each text, also before one that is continued),
`eos_ids` (generation stops at them), `special_tokens` ({name: id}) and `digest` (SHA-256 of its files) and
the methods `encode(text)`, `encode_part(text, first)`, `decode(ids)` and `save(folder)`. No part of a text is
a special token: `<|endoftext|>` in a document is thirteen characters, unless
`gptjax.data.tokenizers.special` encodes it as one.
"""

from pathlib import Path

from gptjax.data.tokenizers import hf_folder
from gptjax.data.tokenizers.byte_bpe import ByteBPE
from gptjax.data.tokenizers.characters import FILE as CHARACTERS
from gptjax.data.tokenizers.characters import Characters
from gptjax.data.tokenizers.sentence_piece import SentencePiece
from gptjax.data.tokenizers.tokenizer_files import read_file
from gptjax.errors import InputError
from gptjax.storage.files import access, bounded, cache, paths

KINDS = ('gpt2', 'bpe', 'char', 'gpt1', 'sentencepiece')  # of `KIND:PATH`
# The published files, https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/
GPT2_URL = 'https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/'
GPT2_SHA256 = {
  'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783',
  'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5'}


def load(spec):
  """Return the tokenizer of `spec`.

  Args:
    spec: `gpt2` (tiktoken's own cache), `gpt2:DIR`, `bpe:DIR` (a trained byte-level BPE), `char:DIR`
      (a trained character-level tokenizer), `gpt1:DIR`, `sentencepiece:FILE.model`, or a folder that holds
      the files of one of them. DIR and FILE may be in a bucket.

  Raises:
    ValueError: unknown kind; files are missing, damaged, or of another kind.
  """
  spec = paths.expanded(spec, KINDS)
  if paths.URL.match(spec):
    return _load_folder(_here(spec))
  kind, _, named = spec.partition(':')
  where = _here(named, kind == 'sentencepiece') if kind in KINDS and paths.URL.match(named) else named
  if spec == 'gpt2':
    return ByteBPE(*map(_from_tiktoken_cache, ('encoder.json', 'vocab.bpe')))
  if kind in ('gpt2', 'bpe') and where:
    tokenizer = ByteBPE.read(where)
    if kind == 'gpt2' and tokenizer.name != 'gpt2':
      raise InputError(f'{named} does not hold the published encoder.json and vocab.bpe of GPT-2 '
                       f'(SHA-256 {tokenizer.digest[:12]}): a BPE of your own is bpe:{named}')
    return tokenizer
  if kind == 'char' and where:
    return Characters.read(where)
  if kind == 'gpt1' and where:
    return _gpt1(where)
  if kind == 'sentencepiece' and where:
    return SentencePiece(read_file(Path(where)))
  if spec and access.is_folder(Path(spec)):
    return _load_folder(Path(spec))
  raise InputError(f'tokenizer {spec!r} is none of gpt2, gpt2:DIR, bpe:DIR, char:DIR, gpt1:DIR, '
                   'sentencepiece:FILE.model, or a folder that exists; train-bpe:N and train-char train one '
                   'while a corpus is prepared')


def _here(text, is_file=False):
  """Return the Path of a copy of a file, or of the small files of a folder, in a bucket."""
  url = paths.location(text, 'tokenizer')
  if is_file:
    return cache.local_file(url)
  return cache.folder(url, lambda name, entry: entry.size <= bounded.MAX_FILE_BYTES)


def _load_folder(folder):
  """Return the tokenizer in the folder; the file names determine its kind."""
  is_gpt1 = access.is_file(folder / 'encoder_bpe_40000.json')
  if is_gpt1 or access.is_file(folder / 'encoder.json'):
    tokenizer = _gpt1(folder) if is_gpt1 else ByteBPE.read(folder)
    tokenizer.eos_ids = hf_folder.eos_ids(folder, tokenizer.n_vocab, tokenizer.end_of_text)
    return tokenizer
  if access.is_file(folder / CHARACTERS):
    tokenizer = Characters.read(folder)
    tokenizer.eos_ids = hf_folder.eos_ids(folder, tokenizer.n_vocab, tokenizer.end_of_text)
    return tokenizer
  from gptjax.data.tokenizers import hf_tokenizer
  tokenizer = hf_tokenizer.load_folder(folder)
  if tokenizer is None:
    raise InputError(f'{folder} has no tokenizer: looked for encoder.json and vocab.bpe, tokenizer.json, '
                     'vocab.json and merges.txt, encoder_bpe_40000.json, characters.json, '
                     'and one FILE.model')
  return tokenizer


def _gpt1(folder):
  from gptjax.data.tokenizers import gpt1_text
  return gpt1_text.GPT1(*(read_file(Path(folder) / name) for name in gpt1_text.FILES))


def _from_tiktoken_cache(name):
  """Return one of GPT-2's published files from tiktoken's cache folder, or let tiktoken download it."""
  import requests
  import tiktoken.load
  try:
    return tiktoken.load.read_file_cached(GPT2_URL + name, GPT2_SHA256[name])
  except (OSError, requests.RequestException) as error:
    raise InputError(f'GPT-2\'s {name} is not in tiktoken\'s cache (TIKTOKEN_CACHE_DIR) and cannot '
                     f'be downloaded ({type(error).__name__}): give a folder that has it, '
                     'gpt2:DIR') from None
