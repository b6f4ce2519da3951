"""Loads the tokenizer of a Hugging Face folder: natively for GPT-2 and GPT-1, otherwise by `tokenizers`."""

import json
from pathlib import Path

import numpy as np

from gptjax.data.tokenizers import (
  byte_bpe,
  characters,
  gpt1_text,
  hf_folder,
  native,
  sentence_piece,
  tokenizer_files,
)
from gptjax.data.tokenizers.hf_folder import FAST, GPT1, GPT2, JSON, SETTINGS, VOCAB
from gptjax.errors import InputError
from gptjax.storage.files import bounded, lfs, local

# A field of tokenizer_config.json: an entry that ends a text but is not a special token, unlike eos_token.
END_FIELD = 'end_of_text'


def load_folder(folder, n_rows=None):
  """Return the tokenizer in the folder; None if it has no files of one.

  Ids, special tokens and end are those of `transformers.AutoTokenizer` (except GPT-1's words, see
  `gpt1_text`). GPT-2's and GPT-1's tokenizers, and byte-level BPEs in their layout, have the same digests as
  from OpenAI's files, so they match corpora made with those.

  Args:
    folder: path.
    n_rows: rows of the model's embedding; special tokens beyond them, which no text contains, are omitted.

  Raises:
    ValueError: the files are not a valid tokenizer, or use an unsupported feature.
  """
  folder = Path(folder)
  try:
    return _load(folder, n_rows)
  except InputError as error:
    raise InputError(str(error) if str(folder) in str(error) else f'{folder}: {error}') from None


def _load(folder, n_rows):
  description = hf_folder.read_description(folder)
  models = local.matching(folder, '*.model')
  for path in models:
    lfs.refuse_pointer(path)
  if description is None and len(models) != 1:
    return None
  # A tokenizer.json of another model counts; the file beside it may be one that sentencepiece cannot read.
  unigram = description is None or description.tokenizer_json.get('model', {}).get('type') == 'Unigram'
  tokenizer = sentence_piece.SentencePiece(bounded.read(models[0])) if unigram and len(models) == 1 else None
  if description and (tokenizer is None or not _is_sentencepiece(description.tokenizer_json, tokenizer)):
    tokenizer = _native_tokenizer(description, n_rows) or _library_tokenizer(folder, description, n_rows)
  tokenizer.eos_ids = hf_folder.eos_ids(folder, tokenizer.n_vocab, tokenizer.end_of_text)
  roles = description.roles if description else {}
  tokenizer.start_of_text = hf_folder.start_of_text(folder, tokenizer, roles)
  return tokenizer


def _is_sentencepiece(tokenizer_json, tokenizer):
  """Whether tokenizer.json is the one that gptjax writes for a sentencepiece model."""
  model, cleaned = tokenizer_json.get('model', {}), tokenizer_json.get('normalizer') or {}
  if not (isinstance(model, dict) and isinstance(cleaned, dict)):
    return False
  parts = cleaned.get('normalizers') or []
  vocab = model.get('vocab')
  if model.get('type') != 'Unigram' or tokenizer_json.get('pre_tokenizer') or not (
      isinstance(parts, list) and all(isinstance(part, dict) for part in parts)
      and isinstance(vocab, list) and all(isinstance(entry, list) for entry in vocab)) or any(
      part.get('type') not in ('Prepend', 'Replace') for part in parts):
    return False
  pieces = [[tokenizer.coder.id_to_piece(i)] for i in range(tokenizer.n_vocab)]
  return [entry[:1] for entry in vocab] == pieces


def _native_tokenizer(description, n_rows):
  """Return GPT-1's tokenizer, a byte-level BPE in GPT-2's layout, or a character-level one; else None.

  Only if the files are exactly such a tokenizer.
  """
  vocab = dict(sorted(description.vocab.items(), key=lambda entry: entry[1]))
  kind = description.kind if description.kind != FAST else _equivalent_class(description.tokenizer_json)
  names = {token.content for token in _added(description, vocab.__contains__, len(vocab), n_rows)}
  if description.kind == FAST and (tokenizer := characters.from_library(description.tokenizer_json)):
    added = {token.content for token in _added(description, tokenizer.entries.__contains__,
                                               tokenizer.n_vocab, n_rows)}
    end, ends = description.roles.get('eos_token'), set(tokenizer.special_tokens)
    return tokenizer if added == ends == {end} - {None} else None
  if kind == GPT1 and vocab.get('<unk>') == 0 and names <= {'<unk>'}:
    return gpt1_text.GPT1(_gpt1_encoder(vocab), _merges_file(description.merges))
  end, in_order = description.roles.get('eos_token'), list(vocab.values()) == list(range(len(vocab)))
  if (kind == GPT2 and not description.prefix_space and end == byte_bpe.END_OF_TEXT and names == {end}
      and in_order and list(vocab) == byte_bpe.bpe_symbols(description.merges)):
    return byte_bpe.ByteBPE(_encoder(vocab), _merges_file(description.merges))
  return None


def _added(description, has, size, n_rows):
  """Return [AddedToken] that are added to a vocabulary, in the order and thus with the ids of transformers.

  Special tokens beyond the rows of the model are omitted. So are defaults of a class that are not in the
  vocabulary, unless they determine the id of another token, or are the only end of a text.

  Args:
    description: hf_folder.TokenizerDescription.
    has: function of a name: whether the vocabulary has it.
    size: number of entries of the vocabulary.
    n_rows: rows of the model, or None.
  """
  roles = [description.roles[role] for role in hf_folder.ROLES if role in description.roles]
  listed = [token.content for token in description.added]
  tokens = [token._replace(special=token.special or token.content in roles) for token in description.added]
  special = dict.fromkeys([*roles, *description.extra_special])
  tokens += [hf_folder.AddedToken(name, True, False) for name in special if name not in listed]
  named = [description.roles[role] for role in description.named_roles]
  needed = {*listed, *description.extra_special, *named}
  if not description.has_eos_id:
    needed.add(description.roles.get('eos_token'))
  kept, missing = [], 0
  for token in tokens:
    new = not has(token.content)
    if not (new and token.special and n_rows is not None and size + missing >= n_rows):
      kept.append(token)
      missing += new
  while kept and not has(kept[-1].content) and kept[-1].content not in needed:
    kept.pop()
  return kept


def _equivalent_class(tokenizer_json):
  """Return the class of transformers that is equivalent to a tokenizer.json, or None."""
  split, normalizer, model = (tokenizer_json.get(part) or {}
                              for part in ('pre_tokenizer', 'normalizer', 'model'))
  if model.get('type', 'BPE') != 'BPE' or any(
      model.get(part) for part in ('continuing_subword_prefix', 'byte_fallback', 'ignore_merges', 'dropout')):
    return None
  if (split.get('type') == 'ByteLevel' and not normalizer and not split.get('add_prefix_space')
      and split.get('use_regex', True) and not model.get('end_of_word_suffix')):
    return GPT2
  kinds = split.get('type'), normalizer.get('type'), model.get('end_of_word_suffix')
  return GPT1 if kinds == ('BertPreTokenizer', 'BertNormalizer', gpt1_text.END_OF_WORD) else None


def _splits_like_gpt2(tokenizer_json):
  """Whether a tokenizer.json splits a text as GPT-2 does, and joins nothing across a split."""
  return _equivalent_class(tokenizer_json) == GPT2 and all(
    token.get('special') for token in tokenizer_json.get('added_tokens') or [])


def _library_tokenizer(folder, description, n_rows):
  """Return the LibraryTokenizer of the folder, with the ids of transformers."""
  import tokenizers as library
  coder, is_unchanged = _coder(folder, description)
  existing = {token.content: token.special for token in coder.get_added_tokens_decoder().values()}
  has = lambda name: coder.token_to_id(name) is not None
  for token in _added(description, has, coder.get_vocab_size(), n_rows):
    if existing.get(token.content) != token.special:
      is_unchanged = False
      coder.add_tokens([library.AddedToken(
        token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
        normalized=token.normalized, special=token.special)])
  settings = {name: value for name, value in description.settings.items()
              if name not in ('add_prefix_space', 'added_tokens_decoder', 'auto_map', *hf_folder.ROLES)}
  roles = {role: name for role, name in description.roles.items() if has(name)}
  if 'eos_token' not in roles:
    stated = hf_folder.declared_ids(folder, hf_folder.CONFIG)
    if stated and (name := coder.id_to_token(stated[0])) is not None:
      settings[END_FIELD] = name
  # Write an absent end explicitly: a default would replace it.
  settings |= {'tokenizer_class': FAST, 'eos_token': None, **roles}
  return LibraryTokenizer(description.content if is_unchanged else coder.to_str().encode(),
                          (json.dumps(settings, indent=2, sort_keys=True) + '\n').encode())


def _coder(folder, description):
  """Return (the tokenizer that transformers builds, whether it equals tokenizer.json)."""
  import tokenizers as library
  fault = f'{folder}: {JSON if description.content else VOCAB} cannot be read'
  if _is_equivalent(description):
    return native.call(fault, library.Tokenizer.from_str, description.content.decode()), True
  ends, unknown = ('</w>', '<unk>') if description.kind == GPT1 else ('', None)
  tokenizer = native.call(fault, lambda: library.Tokenizer(library.models.BPE(
    description.vocab, description.merges, unk_token=unknown, continuing_subword_prefix='',
    end_of_word_suffix=ends)))
  if description.kind == GPT1:
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = library.decoders.BPEDecoder(suffix=ends)
  else:
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=description.prefix_space)
    tokenizer.decoder = library.decoders.ByteLevel()
  return tokenizer, False


def _is_equivalent(description):
  """Whether tokenizer.json is equivalent to the tokenizer that the class of transformers builds from it."""
  if description.kind == FAST:
    return True
  if not description.content or description.prefix_space or (
      _equivalent_class(description.tokenizer_json) != description.kind):
    return False
  added = {token['content'] for token in description.tokenizer_json.get('added_tokens') or []}
  return added <= {token.content for token in description.added} | set(description.roles.values()) and (
    description.kind == GPT1 or description.tokenizer_json['model'].get('unk_token') is None)


def _encoder(vocab):
  return json.dumps(vocab).encode()


def _gpt1_encoder(vocab):
  """Return the encoder as in the published file: id 0, which is <unk>, is last."""
  first, *others = vocab.items()
  return _encoder(dict([*others, first]))


def _merges_file(merges):
  return '\n'.join(['#version: 0.2', *(' '.join(pair) for pair in merges), '']).encode()


class LibraryTokenizer:
  """Any tokenizer that the `tokenizers` library reads from a tokenizer.json."""

  name = 'tokenizers'

  def __init__(self, content, settings):
    """Create from the contents (bytes) of `tokenizer.json` and `tokenizer_config.json`."""
    import tokenizers as library
    self.files = {JSON: content, SETTINGS: settings}
    self.digest = tokenizer_files.digest(content)
    self.coder = native.call(f'{JSON} cannot be read', lambda: library.Tokenizer.from_str(content.decode()))
    named = json.loads(settings)
    end = named.get('eos_token') or named.get(END_FIELD)
    self.coder.encode_special_tokens = True  # no part of a text is a special token
    self.splits_like_gpt2 = _splits_like_gpt2(json.loads(content))
    self.coder.no_truncation()
    self.coder.no_padding()
    self.n_vocab = 1 + max(self.coder.get_vocab().values(), default=-1)
    self.end_of_text = self.coder.token_to_id(end) if isinstance(end, str) else None
    self.start_of_text = self.end_of_text
    self.eos_ids = tokenizer_files.default_eos_ids(self.end_of_text)
    self.text_prefix = self._text_prefix()
    self.special_tokens = {token.content: i for i, token in self.coder.get_added_tokens_decoder().items()
                           if token.special}

  def _text_prefix(self):
    """Return the ids that tokenizer.json puts before a text; `add_bos_token` in other files has no effect."""
    whole, plain = (native.call(f'{JSON} cannot encode a text', self.coder.encode, 'a',
                                add_special_tokens=special).ids for special in (True, False))
    starts = [at for at in range(len(whole)) if plain and whole[at:at + len(plain)] == plain]
    return tuple(whole[:starts[0]]) if starts else ()

  def encode(self, text):
    """Return int32[n] ids of the text, without start and end tokens."""
    tokenizer = native.call(f'{JSON} cannot encode a text', self.coder.encode, text, add_special_tokens=False)
    return np.array(tokenizer.ids, np.int32)

  def encode_part(self, text, first):
    """Return int32[n] ids of a part of a document; rejected if it is unknown how the tokenizer splits it."""
    if not first and not self.splits_like_gpt2:
      raise InputError(f'a document of more than a million characters, which this kind of {JSON} cannot '
                       'encode in parts: split it into shorter ones; `python -m gptjax.data.prepare` has '
                       '--document_separator')
    return self.encode(text)

  def decode(self, ids):
    """Return the text of the ids."""
    return native.call(f'{JSON} cannot decode ids', self.coder.decode, np.asarray(ids).tolist(),
                       skip_special_tokens=False)

  def save(self, folder):
    """Write the tokenizer's files into the folder, which is created if needed."""
    tokenizer_files.save_files(folder, tokenizer_files.saved_files(self))
