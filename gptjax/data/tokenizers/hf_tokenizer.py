"""The tokenizer of a Hugging Face folder: as one of ours where its files are those, else by `tokenizers`."""

import json
from pathlib import Path

import numpy as np

from gptjax.data.tokenizers import byte_bpe, gpt1_text, hf_folder, native, sentence_piece, tokenizer_files
from gptjax.data.tokenizers.hf_folder import FAST, GPT1, GPT2, JSON, SETTINGS, VOCAB
from gptjax.errors import InputError
from gptjax.files import bounded, lfs

# In tokenizer_config.json, an entry that ends a text and is no special token, as an eos_token would be.
END_FIELD = 'end_of_text'


def load_folder(folder, n_rows=None):
  """The tokenizer whose files lie in the folder; None if there are none.

  Ids, special tokens and end are those of `transformers.AutoTokenizer` (but GPT-1's words, see `gpt1_text`).
  GPT-2's and GPT-1's, and byte-level BPEs in their layout, have the digests that they have as OpenAI's
  files, so that a corpus made with those fits.

  Args:
    folder: path.
    n_rows: rows of the model's embedding; special tokens beyond them, which no text contains, are left out.

  Raises:
    ValueError: the files are not those of a tokenizer, or have a feature that is not supported.
  """
  folder = Path(folder)
  try:
    return _load(folder, n_rows)
  except InputError as error:
    raise InputError(str(error) if str(folder) in str(error) else f'{folder}: {error}') from None


def _load(folder, n_rows):
  found = hf_folder.read_description(folder)
  models = sorted(folder.glob('*.model'))
  for path in models:
    lfs.refuse_pointer(path)
  if found is None and len(models) != 1:
    return None
  made = sentence_piece.SentencePiece(bounded.read(models[0])) if len(models) == 1 else None
  if found and (made is None or not _of_pieces(found.tokenizer_json, made)):
    made = _plain(found, n_rows) or _by_library(folder, found, n_rows)
  made.eos_ids = hf_folder.eos_ids(folder, made.n_vocab, made.end_of_text)
  return made


def _of_pieces(whole, made):
  """Whether a tokenizer.json is the one that gptjax writes for a sentencepiece model."""
  model, cleaned = whole.get('model', {}), whole.get('normalizer') or {}
  if not (isinstance(model, dict) and isinstance(cleaned, dict)):
    return False
  parts = cleaned.get('normalizers') or []
  vocab = model.get('vocab')
  if model.get('type') != 'Unigram' or whole.get('pre_tokenizer') or not (
      isinstance(parts, list) and all(isinstance(part, dict) for part in parts)
      and isinstance(vocab, list) and all(isinstance(entry, list) for entry in vocab)) or any(
      part.get('type') not in ('Prepend', 'Replace') for part in parts):
    return False
  return [entry[:1] for entry in vocab] == [[made.coder.id_to_piece(i)] for i in range(made.n_vocab)]


def _plain(found, n_rows):
  """GPT-1's tokenizer or a byte-level BPE in GPT-2's layout, if it is exactly one; or None."""
  vocab = dict(sorted(found.vocab.items(), key=lambda entry: entry[1]))
  kind = found.kind if found.kind != FAST else _standard(found.tokenizer_json)
  names = {token.content for token in _added(found, vocab.__contains__, len(vocab), n_rows)}
  if kind == GPT1 and vocab.get('<unk>') == 0 and names <= {'<unk>'}:
    return gpt1_text.GPT1(_gpt1_encoder(vocab), _merges_file(found.merges))
  end, in_order = found.roles.get('eos_token'), list(vocab.values()) == list(range(len(vocab)))
  if (kind == GPT2 and not found.prefix_space and end == byte_bpe.END_OF_TEXT and names == {end}
      and in_order and list(vocab) == byte_bpe.bpe_symbols(found.merges)):
    return byte_bpe.ByteBPE(_encoder(vocab), _merges_file(found.merges))
  return None


def _added(found, has, size, n_rows):
  """[Token] that are added to a vocabulary, in the order and thus with the ids of transformers.

  Special tokens beyond the rows of the model are left out, and defaults of a class that the vocabulary does
  not have, unless they decide the id of another token, or how a text ends where nothing else does.

  Args:
    found: hf_folder.Description.
    has: function of a name: whether the vocabulary has it.
    size: entries of the vocabulary.
    n_rows: rows of the model, or None.
  """
  roles = [found.roles[role] for role in hf_folder.ROLES if role in found.roles]
  listed = [token.content for token in found.added]
  tokens = [token._replace(special=token.special or token.content in roles) for token in found.added]
  tokens += [hf_folder.AddedToken(name, True, False) for name in dict.fromkeys([*roles, *found.extra_special])
             if name not in listed]
  needed = {*listed, *found.extra_special, *(found.roles[role] for role in found.named_roles)}
  if not found.has_eos_id:
    needed.add(found.roles.get('eos_token'))
  kept, missing = [], 0
  for token in tokens:
    new = not has(token.content)
    if not (new and token.special and n_rows is not None and size + missing >= n_rows):
      kept.append(token)
      missing += new
  while kept and not has(kept[-1].content) and kept[-1].content not in needed:
    kept.pop()
  return kept


def _standard(whole):
  """The class of transformers that does what a tokenizer.json says, or None."""
  split, normalizer, model = (whole.get(part) or {} for part in ('pre_tokenizer', 'normalizer', 'model'))
  if model.get('type', 'BPE') != 'BPE' or any(
      model.get(part) for part in ('continuing_subword_prefix', 'byte_fallback', 'ignore_merges', 'dropout')):
    return None
  if (split.get('type') == 'ByteLevel' and not normalizer and not split.get('add_prefix_space')
      and split.get('use_regex', True) and not model.get('end_of_word_suffix')):
    return GPT2
  kinds = split.get('type'), normalizer.get('type'), model.get('end_of_word_suffix')
  return GPT1 if kinds == ('BertPreTokenizer', 'BertNormalizer', gpt1_text.END_OF_WORD) else None


def _by_library(folder, found, n_rows):
  """A Library that gives the ids of transformers."""
  import tokenizers as library
  coder, as_is = _coder(folder, found)
  there = {token.content: token.special for token in coder.get_added_tokens_decoder().values()}
  has = lambda name: coder.token_to_id(name) is not None
  for token in _added(found, has, coder.get_vocab_size(), n_rows):
    if there.get(token.content) != token.special:
      as_is = False
      coder.add_tokens([library.AddedToken(
        token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
        normalized=token.normalized, special=token.special)])
  settings = {name: value for name, value in found.settings.items()
              if name not in ('add_prefix_space', 'added_tokens_decoder', *hf_folder.ROLES)}
  roles = {role: name for role, name in found.roles.items() if has(name)}
  if 'eos_token' not in roles:
    stated = hf_folder.declared_eos_ids(folder, hf_folder.CONFIG)
    if stated and (name := coder.id_to_token(stated[0])) is not None:
      settings[END_FIELD] = name
  # Where there is no end, that is said: a default would be read in its place.
  settings |= {'tokenizer_class': FAST, 'eos_token': None, **roles}
  return LibraryTokenizer(found.content if as_is else coder.to_str().encode(),
                          (json.dumps(settings, indent=2, sort_keys=True) + '\n').encode())


def _coder(folder, found):
  """(what transformers builds with the `tokenizers` library, whether tokenizer.json is just that)."""
  import tokenizers as library
  fault = f'{folder}: {JSON if found.content else VOCAB} cannot be read'
  if _does_the_same(found):
    return native.call(fault, library.Tokenizer.from_str, found.content.decode()), True
  ends, unknown = ('</w>', '<unk>') if found.kind == GPT1 else ('', None)
  made = native.call(fault, lambda: library.Tokenizer(library.models.BPE(
    found.vocab, found.merges, unk_token=unknown, continuing_subword_prefix='', end_of_word_suffix=ends)))
  if found.kind == GPT1:
    made.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    made.decoder = library.decoders.BPEDecoder(suffix=ends)
  else:
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=found.prefix_space)
    made.decoder = library.decoders.ByteLevel()
  return made, False


def _does_the_same(found):
  """Whether the tokenizer.json, as it is, does what the class of transformers builds of it."""
  if found.kind == FAST:
    return True
  if not found.content or _standard(found.tokenizer_json) != found.kind or found.prefix_space:
    return False
  theirs = {token['content'] for token in found.tokenizer_json.get('added_tokens') or []}
  return theirs <= {token.content for token in found.added} | set(found.roles.values()) and (
    found.kind == GPT1 or found.tokenizer_json['model'].get('unk_token') is None)


def _encoder(vocab):
  return json.dumps(vocab).encode()


def _gpt1_encoder(vocab):
  """As in the published file: id 0, which is <unk>, comes last."""
  first, *others = vocab.items()
  return _encoder(dict([*others, first]))


def _merges_file(merges):
  return '\n'.join(['#version: 0.2', *(' '.join(pair) for pair in merges), '']).encode()


class LibraryTokenizer:
  """Any tokenizer that the `tokenizers` library reads from a tokenizer.json."""

  name = 'tokenizers'

  def __init__(self, content, settings):
    """From the contents (bytes) of `tokenizer.json` and `tokenizer_config.json`."""
    import tokenizers as library
    self.files = {JSON: content, SETTINGS: settings}
    self.digest = tokenizer_files.digest(content)
    self.coder = native.call(f'{JSON} cannot be read', lambda: library.Tokenizer.from_str(content.decode()))
    named = json.loads(settings)
    end = named.get('eos_token') or named.get(END_FIELD)
    self.coder.encode_special_tokens = True  # nothing in a text is a special token
    self.coder.no_truncation()
    self.coder.no_padding()
    self.n_vocab = 1 + max(self.coder.get_vocab().values(), default=-1)
    self.end_of_text = self.coder.token_to_id(end) if isinstance(end, str) else None
    self.eos_ids = tokenizer_files.default_eos_ids(self.end_of_text)
    self.special_tokens = {token.content: i for i, token in self.coder.get_added_tokens_decoder().items()
                           if token.special}

  def encode(self, text):
    """int32[n] ids of the text, without begin and end marks."""
    made = native.call(f'{JSON} cannot encode a text', self.coder.encode, text, add_special_tokens=False)
    return np.array(made.ids, np.int32)

  def encode_part(self, text, first):
    """int32[n] ids of a document; what splits it is unknown, so that it cannot come in parts."""
    if not first:
      raise InputError(f'a document of more than a million characters, which a {JSON} of its own kind cannot '
                       'encode in parts: cut it')
    return self.encode(text)

  def decode(self, ids):
    """The text of the ids."""
    return native.call(f'{JSON} cannot decode ids', self.coder.decode, np.asarray(ids).tolist(),
                       skip_special_tokens=False)

  def save(self, folder):
    """Writes the tokenizer's files into the folder, which is made if need be."""
    tokenizer_files.save_files(folder, tokenizer_files.saved_files(self))
