"""Reads the description of a tokenizer from a Hugging Face folder, with the semantics of transformers 5.

transformers chooses a class by name (see `hf_classes`). The vocabulary and merges are those of
tokenizer.json, or else of vocab.json and merges.txt. Special and added tokens come from
`added_tokens_decoder` in tokenizer_config.json, or else from special_tokens_map.json, added_tokens.json and
tokenizer.json.
"""

from typing import NamedTuple

from gptjax.data.tokenizers import hf_classes
from gptjax.data.tokenizers.hf_classes import (
  CONFIG,
  DEFAULTS,
  FAST,
  GPT1,
  GPT2,
  JSON,
  LLAMA,
  QWEN2,
  ROLES,
  SETTINGS,
)
from gptjax.errors import InputError
from gptjax.storage.files import access, bounded, json_files, lfs
from gptjax.storage.files.json_files import shown
from gptjax.text import text_checks

VOCAB, MERGES, GENERATION = 'vocab.json', 'merges.txt', 'generation_config.json'
SPECIAL, ADDED = 'special_tokens_map.json', 'added_tokens.json'


class AddedToken(NamedTuple):
  """An added token, with the fields of the `tokenizers` library."""
  content: str
  special: bool
  normalized: bool
  single_word: bool = False
  lstrip: bool = False
  rstrip: bool = False


class TokenizerDescription(NamedTuple):
  """A tokenizer as its files describe it.

  kind: GPT2, GPT1 or FAST.
  content: bytes of tokenizer.json; b'' without it. tokenizer_json: its parsed content; {} without it.
  vocab: {symbol: id}; merges: [(symbol, symbol)]. Both of a BPE; empty for other models.
  prefix_space: whether a space is added before a text (only GPT2).
  settings: the content of tokenizer_config.json.
  roles: {role: name of a special token}, a role being one of ROLES.
  named_roles: the roles that a file sets; the others are defaults of the class.
  added: [AddedToken] that files list with ids, in order of id.
  extra_special: names of special tokens without a role.
  has_eos_id: whether config.json has an eos_token_id.
  """
  kind: str
  content: bytes
  tokenizer_json: dict
  vocab: dict
  merges: list
  prefix_space: bool
  settings: dict
  roles: dict
  named_roles: frozenset
  added: list
  extra_special: list
  has_eos_id: bool


def read_description(folder):
  """Return the TokenizerDescription of a folder; None if it has no files of a tokenizer.

  Raises:
    InputError: a file cannot be read, or uses an unsupported feature; the message has both.
  """
  files = (JSON, VOCAB, MERGES, SETTINGS, SPECIAL, ADDED, CONFIG)
  names = [name for name in files if access.is_file(folder / name)]
  for name in names:
    lfs.refuse_pointer(folder / name)
  if JSON not in names and VOCAB not in names:
    return None
  settings, config = _object(folder / SETTINGS), _object(folder / CONFIG)
  content = _bytes(folder / JSON) if JSON in names else b''
  whole = _object(folder / JSON)
  kind = hf_classes.class_of(folder, settings, config, content)
  if content:
    vocab, merges = _bpe_of(folder / JSON, whole)
  else:
    vocab, merges = _object(folder / VOCAB), _merges(folder / MERGES)
    _require_ids(folder / VOCAB, vocab)
  kind = kind or (GPT1 if '<unk>' in vocab and any(symbol.endswith('</w>') for symbol in vocab) else GPT2)
  _refuse_features(folder, kind, whole, settings)
  named, added, extra = _tokens(folder, settings, whole)
  defaults = dict(DEFAULTS[kind])
  kind = hf_classes.settled(folder, kind, whole, settings, config)
  if kind == FAST and not config:  # a tokenizer.json alone
    defaults['eos_token'] = '<|endoftext|>'
  roles = {role: name for role, name in defaults.items() if settings.get(role, name) is not None} | named
  prefix_space = kind == GPT2 and settings.get('add_prefix_space', False)
  return TokenizerDescription(kind, content, whole, vocab, merges, prefix_space, settings, roles,
                              frozenset(named), added, extra, config.get('eos_token_id') is not None)


def _bpe_of(path, whole):
  """Return (vocabulary, merges) of a tokenizer.json; both empty if its model is not a BPE."""
  model = whole.get('model')
  if not isinstance(model, dict):
    raise InputError(f'{path}: the tokenizer cannot be read: model is {str(model)[:60]!r}, not an '
                     'object')
  if model.get('type', 'BPE') != 'BPE' or not isinstance(model.get('vocab'), dict):
    return {}, []
  _require_ids(path, model['vocab'])
  merges = model.get('merges')
  pairs = [tuple(pair.split(' ')) if isinstance(pair, str) else tuple(pair) if isinstance(pair, list) else ()
           for pair in merges] if isinstance(merges, list) else [()]
  if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs):
    raise InputError(f'{path}: the tokenizer cannot be read: model.merges is not a list of pairs')
  return model['vocab'], pairs


def _merges(path):
  """Return the pairs of a merges.txt, with or without a version line, with any line endings."""
  try:
    lines = _bytes(path).decode().replace('\r\n', '\n').split('\n')
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is not UTF-8 text: {error}') from None
  pairs = [tuple(line.split(' ')) for line in lines if line and not line.startswith('#version')]
  if not all(len(pair) == 2 for pair in pairs):
    raise InputError(f'{path}: a line is not two symbols separated by a space')
  return pairs


def _require_ids(path, vocab):
  if not all(type(i) is int and 0 <= i < 2**24 for i in vocab.values()) or (
      len(set(vocab.values())) != len(vocab)):
    raise InputError(f'{path}: the tokenizer cannot be read: not every symbol has a distinct id')


def _refuse_features(folder, kind, whole, settings):
  """Reject features that versions of transformers read differently, or that contradict tokenizer.json."""
  if settings.get('fast_tokenizer_files'):
    raise InputError(f'{folder / SETTINGS}: fast_tokenizer_files, a file for each version of transformers, '
                     f'is not supported: keep one {JSON} and remove the field')
  prefix = settings.get('add_prefix_space', False)
  if not isinstance(prefix, bool) and not (kind in (LLAMA, QWEN2) and prefix is None):
    raise InputError(f'{folder / SETTINGS}: add_prefix_space = {shown(prefix)} is neither true nor false')
  if not whole:
    return
  model, split, _ = whole['model'], *(_part(folder, whole, name) for name in ('pre_tokenizer', 'normalizer'))
  if model.get('dropout'):
    raise InputError(f'{folder / JSON}: model.dropout = {shown(model["dropout"])} makes ids '
                     'random: set it to null')
  states = split.get('add_prefix_space')
  if kind == FAST and 'add_prefix_space' in settings and states is not None and states != prefix:
    raise InputError(f'{folder / SETTINGS}: add_prefix_space = {prefix} contradicts {JSON}, and versions '
                     'of transformers differ in which counts: make both the same')


def _part(folder, whole, name):
  return _checked(folder / JSON, name, whole.get(name) or {}, dict)


def _tokens(folder, settings, whole):
  """Return ({role: name} from the files, [AddedToken] with ids, [names of special tokens without a role])."""
  roles, added = {role: (SETTINGS, settings[role]) for role in ROLES if settings.get(role) is not None}, {}
  if 'added_tokens_decoder' in settings:
    special = {}
    decoder = _checked(folder / SETTINGS, 'added_tokens_decoder', settings['added_tokens_decoder'], dict)
    for i, token in decoder.items():
      added[_id(folder / SETTINGS, i)] = _token(folder / SETTINGS, token)
  else:
    special = _object(folder / SPECIAL)
    roles |= {role: (SPECIAL, special[role]) for role in ROLES if special.get(role) is not None}
  listed = _checked(folder / JSON, 'added_tokens', whole.get('added_tokens') or [], list)
  listed = [(token, _token(folder / JSON, token)) for token in listed]
  named = {role: _name(folder / path, role, value) for role, (path, value) in roles.items()}
  extra = _extra(folder, special, settings)
  if 'added_tokens_decoder' not in settings:
    for name, i in _object(folder / ADDED).items():
      is_special = name in (*named.values(), *extra)
      added[_id(folder / ADDED, i)] = AddedToken(name, is_special, not is_special)
    added |= {_id(folder / JSON, token.get('id')): made for token, made in listed}
  return named, [added[i] for i in sorted(added)], extra


def _extra(folder, special, settings):
  """Return the names of special tokens without a role."""
  for path, values in ((SPECIAL, special), (SETTINGS, settings)):
    for field in ('extra_special_tokens', 'additional_special_tokens'):
      if tokens := values.get(field):
        tokens = list(tokens.values()) if isinstance(tokens, dict) else tokens
        return [_name(folder / path, field, token) for token in _checked(folder / path, field, tokens, list)]
  return []


def _name(path, role, value):
  """Return the name of a special token that a file has as a string or an object."""
  name = value.get('content') if isinstance(value, dict) else value
  if not isinstance(name, str) or not name:
    raise InputError(f'{path}: {role} = {str(value)[:60]!r} is not the name of a token')
  return name


def _token(path, value):
  if not isinstance(value, dict):
    raise InputError(f'{path}: the added token {str(value)[:60]!r} is not an object')
  flags = {field: value.get(field, False) for field in ('special', 'single_word', 'lstrip', 'rstrip')}
  flags['normalized'] = value.get('normalized', not flags['special'])
  for field, flag in flags.items():
    if not isinstance(flag, bool):
      raise InputError(f'{path}: an added token has {field} = {str(flag)[:60]!r}: it must be true or false')
  return AddedToken(_name(path, 'content', value), **flags)


def _id(path, value):
  try:
    return int(value)
  except (TypeError, ValueError):
    raise InputError(f'{path}: {str(value)[:60]!r} is not the id of an added token') from None


def _checked(path, field, value, kind):
  if not isinstance(value, kind):
    raise InputError(f'{path}: {field} is a {type(value).__name__}, not a {kind.__name__}')
  return value


def _bytes(path):
  try:
    return bounded.read(path)
  except OSError as error:
    raise InputError(f'tokenizer file {path}: {error.strerror}') from None


def _object(path):
  """Return the object in a JSON file; {} if the file does not exist."""
  if not access.is_file(path):
    return {}
  try:
    value = json_files.parse(_bytes(path))
  except ValueError as error:
    raise InputError(f'{path}: the tokenizer cannot be read, it is not JSON: {error}') from None
  text_checks.require_valid_json(value, str(path))
  return _checked(path, 'the content', value, dict)


def eos_ids(folder, n_vocab, end_of_text):
  """Return the ids at which generation stops: of generation_config.json, else config.json.

  Args:
    folder: folder of the model.
    n_vocab: entries of the tokenizer; larger ids are padding, which is never sampled.
    end_of_text: the end-of-text id, used if neither file has an id, or None.

  Returns:
    tuple of int.
  """
  for name in (GENERATION, CONFIG):
    found = declared_ids(folder, name)
    if usable := tuple(i for i in found if i < n_vocab):
      return usable
  return () if end_of_text is None else (end_of_text,)


def start_of_text(folder, tokenizer, roles):
  """Return the id of the token by which the texts of a model begin, or None.

  It is the bos_token_id of generation_config.json, else of config.json, else the bos_token of the tokenizer,
  else what tokenizer.json puts before each text, if that is a special token: the default of a config is an id
  of another vocabulary. Without one, and for a tokenizer without a model, texts follow the end of another.

  Args:
    folder: folder of the model, or of a tokenizer.
    tokenizer: the tokenizer of the folder.
    roles: {role: name of a special token}.
  """
  special = tokenizer.special_tokens
  stated = [i for name in (GENERATION, CONFIG) for i in declared_ids(folder, name, 'bos_token_id')]
  if access.is_file(folder / CONFIG):
    stated += [special.get(roles.get('bos_token')), *tokenizer.text_prefix[:1]]
  return next((i for i in stated if i in special.values()), tokenizer.end_of_text)


def declared_ids(folder, name, field='eos_token_id'):
  """Return the ids in a field of a JSON file, which is an id or a list; InputError for other values."""
  path = folder / name
  value = _object(path).get(field)
  found = value if isinstance(value, list) else [] if value is None else [value]
  if not all(type(i) is int and i >= 0 for i in found):
    raise InputError(f'{path}: {field} = {str(value)[:60]!r} is neither an id nor a list of ids')
  return found
