"""The tokenizer of a Hugging Face folder: as one of ours where its files are those, else by `tokenizers`."""

import json
from pathlib import Path

import numpy as np

from gptjax.data import gpt1_text, tokenizers
from gptjax.errors import InputError

JSON, VOCAB, MERGES, SETTINGS = 'tokenizer.json', 'vocab.json', 'merges.txt', 'tokenizer_config.json'


def load_folder(folder):
  """The tokenizer whose files lie in the folder; None if there are none.

  GPT-2's and GPT-1's, and byte-level BPEs in their layout, have the digests that they have as OpenAI's
  files, so that a corpus made with those fits.

  Raises:
    ValueError: the files are not those of a tokenizer.
  """
  folder = Path(folder)
  found = _bpe_files(folder)
  if found:
    vocab, merges = found
    if '<unk>' in vocab and any(symbol.endswith(gpt1_text.END) for symbol in vocab):
      return gpt1_text.GPT1(_gpt1_encoder(vocab), _merges_file(merges))
    if list(vocab) == tokenizers.bpe_symbols(merges):
      return tokenizers.ByteBPE(_encoder(vocab), _merges_file(merges))
  models = sorted(folder.glob('*.model'))
  if len(models) == 1:
    return tokenizers.SentencePiece(models[0].read_bytes())
  if (folder / JSON).exists():
    return Library((folder / JSON).read_bytes(), _read(folder / SETTINGS))
  if found:
    raise InputError(f'{folder}: {VOCAB} and {MERGES} are neither GPT-1\'s nor a byte-level BPE in the '
                     f'layout of GPT-2, and there is no {JSON}')
  return None


def _bpe_files(folder):
  """({symbol: id} in the order of ids, [(a, b)]) of a BPE that is plainly GPT-1's or byte-level, or None."""
  try:
    if (folder / JSON).exists():
      whole = json.loads((folder / JSON).read_text(encoding='utf-8'))
      if not _plain(whole):
        return None
      vocab, merges = whole['model']['vocab'], whole['model']['merges']
      merges = [tuple(pair.split(' ') if isinstance(pair, str) else pair) for pair in merges]
    elif (folder / VOCAB).exists() and not (folder / 'added_tokens.json').exists():
      vocab = json.loads((folder / VOCAB).read_text(encoding='utf-8'))
      lines = (folder / MERGES).read_text(encoding='utf-8').split('\n')
      merges = [tuple(line.split(' ')) for line in lines[lines[0].startswith('#version'):] if line]
    else:
      return None
    return dict(sorted(vocab.items(), key=lambda entry: entry[1])), merges
  except OSError as error:
    raise InputError(f'tokenizer file {error.filename}: {error.strerror}') from None
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise InputError(f'{folder}: the tokenizer cannot be read ({type(error).__name__}: {error})') from None


def _plain(whole):
  """Whether a tokenizer.json does what one of ours does: BPE after GPT-2's split, or OpenAI-GPT's."""
  model, split = whole['model'], whole.get('pre_tokenizer') or {}
  added = {token['content'] for token in whole.get('added_tokens', [])}
  if model.get('type') != 'BPE':
    return False
  if split.get('type') == 'ByteLevel':
    return (not split.get('add_prefix_space') and split.get('use_regex', True)
            and whole.get('normalizer') is None and added <= {tokenizers.END_OF_TEXT})
  return split.get('type') == 'BertPreTokenizer' and added <= {'<unk>'}


def _encoder(vocab):
  return json.dumps(vocab).encode()


def _gpt1_encoder(vocab):
  """As in the published file: id 0, which is <unk>, comes last."""
  first, *others = vocab.items()
  return _encoder(dict([*others, first]))


def _merges_file(merges):
  return '\n'.join(['#version: 0.2', *(' '.join(pair) for pair in merges), '']).encode()


def _read(path):
  return path.read_bytes() if path.exists() else b'{}'


class Library:
  """Any tokenizer that the `tokenizers` library reads from a tokenizer.json."""

  name = 'tokenizers'

  def __init__(self, content, settings):
    """From the contents (bytes) of `tokenizer.json` and `tokenizer_config.json`."""
    import tokenizers as library
    self.files = {JSON: content, SETTINGS: settings}
    self.digest = tokenizers.digest(content)
    try:
      self.coder = library.Tokenizer.from_str(content.decode())
      end = json.loads(settings).get('eos_token') or tokenizers.END_OF_TEXT
    except Exception as error:  # of no narrower class, in the library
      raise InputError(f'{JSON} or {SETTINGS} cannot be read: {error}') from None
    self.coder.encode_special_tokens = True  # nothing in a text is a special token
    self.coder.no_truncation()
    self.coder.no_padding()
    self.n_vocab = self.coder.get_vocab_size()
    self.end_of_text = self.coder.token_to_id(end['content'] if isinstance(end, dict) else end)

  def encode(self, text):
    """int32[n] ids of the text, without begin and end marks."""
    return np.array(self.coder.encode(text, add_special_tokens=False).ids, np.int32)

  def encode_part(self, text, first):
    """int32[n] ids of a document; what splits it is unknown, so that it cannot come in parts."""
    if not first:
      raise InputError(f'a document is longer than a million characters, which a {JSON} of its own kind '
                       'cannot encode in parts: cut it')
    return self.encode(text)

  def decode(self, ids):
    """The text of the ids."""
    return self.coder.decode(np.asarray(ids).tolist(), skip_special_tokens=False)

  def save(self, folder):
    """Writes the tokenizer's files into the folder, which is made if need be."""
    tokenizers.save_files(folder, self.files)
