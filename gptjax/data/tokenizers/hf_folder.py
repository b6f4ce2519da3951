"""What the files of a Hugging Face folder say about its tokenizer, as transformers 5 reads them.

transformers chooses a class by name. `GPT2Tokenizer` and `OpenAIGPTTokenizer` take the vocabulary and the
merges, of tokenizer.json or else of vocab.json and merges.txt, and build the rest themselves;
`PreTrainedTokenizerFast` takes tokenizer.json as it is. Special and added tokens come from
`added_tokens_decoder` in tokenizer_config.json or, without it, from special_tokens_map.json,
added_tokens.json and tokenizer.json.
"""

from typing import NamedTuple

from gptjax.errors import InputError
from gptjax.files import bounded, json_files, lfs
from gptjax.files.json_files import shown
from gptjax.text import text_checks

JSON, VOCAB, MERGES, SETTINGS = 'tokenizer.json', 'vocab.json', 'merges.txt', 'tokenizer_config.json'
SPECIAL, ADDED = 'special_tokens_map.json', 'added_tokens.json'
CONFIG, GENERATION = 'config.json', 'generation_config.json'
GPT2, GPT1, FAST = 'GPT2Tokenizer', 'OpenAIGPTTokenizer', 'PreTrainedTokenizerFast'
CLASSES = {GPT2: GPT2, f'{GPT2}Fast': GPT2, GPT1: GPT1, f'{GPT1}Fast': GPT1, FAST: FAST,
           'PreTrainedTokenizer': FAST, 'TokenizersBackend': FAST, 'PythonBackend': FAST}
CLASS_OF_MODEL_TYPE = {'gpt2': GPT2, 'openai-gpt': GPT1}
ROLES = ('bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token')
# What the two classes that build a tokenizer put into it.
NORMALIZERS = {GPT2: None, GPT1: 'BertNormalizer'}
SPLITS = {GPT2: 'ByteLevel', GPT1: 'BertPreTokenizer'}
SUFFIXES = {GPT2: '', GPT1: '</w>'}
# What the classes of transformers take where no file names a token.
DEFAULTS = {GPT2: dict.fromkeys(ROLES[:3], '<|endoftext|>'), GPT1: {'unk_token': '<unk>'}, FAST: {}}


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

  kind: GPT2, GPT1 or AS_IS.
  content: bytes of tokenizer.json; b'' without it. tokenizer_json: the same, parsed; {} without it.
  vocab: {symbol: id}; merges: [(symbol, symbol)]. Both of a BPE; empty for other models.
  prefix_space: whether a text is encoded as if a space stood before it (GPT2 alone).
  settings: what tokenizer_config.json holds.
  roles: {role: name of a special token}, a role being one of ROLES.
  named_roles: the roles that a file names; the others are defaults of the class.
  added: [Token] that files list with ids, in the order of these.
  extra_special: names of special tokens that have no role.
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
  """The Description of the tokenizer in a folder; None if there are no files of one.

  Raises:
    InputError: a file that cannot be read, or a feature that is not supported: names both.
  """
  files = (JSON, VOCAB, MERGES, SETTINGS, SPECIAL, ADDED, CONFIG)
  names = [name for name in files if (folder / name).exists()]
  for name in names:
    lfs.refuse_pointer(folder / name)
  if JSON not in names and VOCAB not in names:
    return None
  settings, config = _object(folder / SETTINGS), _object(folder / CONFIG)
  content = _bytes(folder / JSON) if JSON in names else b''
  whole = _object(folder / JSON)
  kind = _kind(folder, settings, config, bool(content))
  if content:
    vocab, merges = _bpe_of(folder / JSON, whole)
  else:
    vocab, merges = _object(folder / VOCAB), _merges(folder / MERGES)
    _require_ids(folder / VOCAB, vocab)
  kind = kind or (GPT1 if '<unk>' in vocab and any(symbol.endswith('</w>') for symbol in vocab) else GPT2)
  _refuse_features(folder, kind, whole, settings)
  named, added, extra = _tokens(folder, settings, whole)
  defaults = dict(DEFAULTS[kind])
  if kind == FAST and not config:  # a tokenizer.json alone
    defaults['eos_token'] = '<|endoftext|>'
  roles = {role: name for role, name in defaults.items() if settings.get(role, name) is not None} | named
  prefix_space = kind == GPT2 and settings.get('add_prefix_space', False)
  return TokenizerDescription(kind, content, whole, vocab, merges, prefix_space, settings, roles,
                              frozenset(named), added, extra, config.get('eos_token_id') is not None)


def _kind(folder, settings, config, fast):
  """The class that transformers takes; None: to be told by the vocabulary, where no file says it."""
  path = SETTINGS if settings.get('tokenizer_class') else CONFIG
  name = settings.get('tokenizer_class') or config.get('tokenizer_class')
  if name is None:
    return CLASS_OF_MODEL_TYPE.get(str(config.get('model_type'))) or (FAST if fast else None)
  kind = CLASSES.get(name) if isinstance(name, str) else None
  if kind is None and not (fast and not config):  # a folder of a corpus, which is what gptjax made of it
    raise InputError(f'{folder / path}: tokenizer_class = {shown(name)} is not supported, only {GPT2}, '
                     f'{GPT1} and {FAST}: save the tokenizer again as the last, with its {JSON}')
  kind = kind or FAST
  if kind == FAST and not fast:
    raise InputError(f'{folder / path}: tokenizer_class = {shown(name)} needs a {JSON}, and there is none')
  return kind


def _bpe_of(path, whole):
  """(vocabulary, merges) of a tokenizer.json; both empty if its model is no BPE."""
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
  """The pairs of a merges.txt, with or without a line of its version, with any ends of lines."""
  try:
    lines = _bytes(path).decode().replace('\r\n', '\n').split('\n')
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is not UTF-8 text: {error}') from None
  pairs = [tuple(line.split(' ')) for line in lines if line and not line.startswith('#version')]
  if not all(len(pair) == 2 for pair in pairs):
    raise InputError(f'{path}: a line is not two symbols with a space between')
  return pairs


def _require_ids(path, vocab):
  if not all(type(i) is int and 0 <= i < 2**24 for i in vocab.values()) or (
      len(set(vocab.values())) != len(vocab)):
    raise InputError(f'{path}: the tokenizer cannot be read: not every symbol has an id of its own')


def _refuse_features(folder, kind, whole, settings):
  """Refuses what versions of transformers read differently, or otherwise than tokenizer.json says."""
  if settings.get('fast_tokenizer_files'):
    raise InputError(f'{folder / SETTINGS}: fast_tokenizer_files, a file for each version of transformers, '
                     f'is not supported: keep one {JSON} and remove the field')
  prefix = settings.get('add_prefix_space', False)
  if not isinstance(prefix, bool):
    raise InputError(f'{folder / SETTINGS}: add_prefix_space = {shown(prefix)} is neither true nor false')
  if not whole:
    return
  model, split = whole['model'], _part(folder, whole, 'pre_tokenizer')
  normalizer = _part(folder, whole, 'normalizer')
  if model.get('dropout'):
    raise InputError(f'{folder / JSON}: model.dropout = {shown(model["dropout"])} makes ids a matter of '
                     'chance: set it to null')
  if kind == FAST:
    states = split.get('add_prefix_space')
    if 'add_prefix_space' in settings and states is not None and states != prefix:
      raise InputError(f'{folder / SETTINGS}: add_prefix_space = {prefix} contradicts {JSON}, and versions '
                       'of transformers differ in which counts: make both the same')
    return
  expected = {'model.type': (model.get('type', 'BPE'), 'BPE'),
              'normalizer': (normalizer.get('type'), NORMALIZERS[kind]),
              'pre_tokenizer': (split.get('type'), SPLITS[kind]),
              'pre_tokenizer.use_regex': (kind != GPT2 or split.get('use_regex', True), True),
              'model.continuing_subword_prefix': (model.get('continuing_subword_prefix') or '', ''),
              'model.end_of_word_suffix': (model.get('end_of_word_suffix') or '', SUFFIXES[kind]),
              'model.byte_fallback': (model.get('byte_fallback', False), False),
              'model.ignore_merges': (model.get('ignore_merges', False), False)}
  for name, (value, theirs) in expected.items():
    if value != theirs:
      raise InputError(f'{folder / JSON}: {name} = {shown(value)} is not what tokenizer_class {kind} does '
                       f'({theirs!r}): if the model was trained with it, set tokenizer_class in {SETTINGS} '
                       f'to {FAST}')


def _part(folder, whole, name):
  return _checked(folder / JSON, name, whole.get(name) or {}, dict)


def _tokens(folder, settings, whole):
  """({role: name} that files name, [Token] that have ids, [names of special tokens without a role])."""
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
  """Names of special tokens that have no role."""
  for path, values in ((SPECIAL, special), (SETTINGS, settings)):
    for field in ('extra_special_tokens', 'additional_special_tokens'):
      if several := values.get(field):
        several = list(several.values()) if isinstance(several, dict) else several
        return [_name(folder / path, field, one) for one in _checked(folder / path, field, several, list)]
  return []


def _name(path, role, value):
  """The name of a special token that a file spells as a string or as an object."""
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
  """The object in a JSON file; {} where it does not exist."""
  if not path.exists():
    return {}
  try:
    value = json_files.parse(_bytes(path))
  except ValueError as error:
    raise InputError(f'{path}: the tokenizer cannot be read, it is not JSON: {error}') from None
  text_checks.require_valid_json(value, str(path))
  return _checked(path, 'the content', value, dict)


def eos_ids(folder, n_vocab, end_of_text):
  """Ids at which generation ends, as in transformers: those of generation_config.json, else of config.json.

  Args:
    folder: of the model.
    n_vocab: entries of the tokenizer; an id beyond them names padding, which is never drawn.
    end_of_text: what ends a text where neither file names an id, or None.

  Returns:
    tuple of int.
  """
  for name in (GENERATION, CONFIG):
    found = declared_eos_ids(folder, name)
    if usable := tuple(i for i in found if i < n_vocab):
      return usable
  return () if end_of_text is None else (end_of_text,)


def declared_eos_ids(folder, name):
  """The ids that `eos_token_id` of a file holds, one or a list (InputError if it holds something else)."""
  path = folder / name
  value = _object(path).get('eos_token_id')
  found = value if isinstance(value, list) else [] if value is None else [value]
  if not all(type(i) is int and i >= 0 for i in found):
    raise InputError(f'{path}: eos_token_id = {str(value)[:60]!r} is neither an id nor a list of ids')
  return found
