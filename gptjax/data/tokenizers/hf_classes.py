"""The classes of tokenizers in transformers 5: which one a folder names, and what it makes of tokenizer.json.

`PreTrainedTokenizerFast` uses tokenizer.json unchanged. The others take its vocabulary and merges, and build
the normalizer and the pre-tokenizer themselves. For GPT-2 and GPT-1 both must agree. Files of other models
often name a class that was never theirs (SmolLM2: GPT-2's, whose numbers are not split into digits), so there
tokenizer.json counts, which the model was trained with, and a difference is printed.
"""

from gptjax.errors import InputError
from gptjax.storage.files.json_files import shown
from gptjax.storage.files.records import log

JSON, SETTINGS, CONFIG = 'tokenizer.json', 'tokenizer_config.json', 'config.json'
GPT2, GPT1, FAST = 'GPT2Tokenizer', 'OpenAIGPTTokenizer', 'PreTrainedTokenizerFast'
LLAMA, QWEN2 = 'LlamaTokenizer', 'Qwen2Tokenizer'
CLASSES = {name: kind for kind in (GPT2, GPT1, LLAMA, QWEN2) for name in (kind, f'{kind}Fast')}
CLASSES |= dict.fromkeys((FAST, 'PreTrainedTokenizer', 'TokenizersBackend', 'PythonBackend'), FAST)
CLASS_OF_MODEL_TYPE = {'gpt2': GPT2, 'openai-gpt': GPT1, 'qwen3': QWEN2}
OWN_MODEL_TYPES = (None, 'gpt2', 'openai-gpt')  # whose folders name the class that the model was trained with
ROLES = ('bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token')
# Special tokens of the classes if no file sets them.
DEFAULTS = {GPT2: dict.fromkeys(ROLES[:3], '<|endoftext|>'), GPT1: {'unk_token': '<unk>'}, FAST: {},
            LLAMA: {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'},
            QWEN2: dict.fromkeys(('eos_token', 'unk_token', 'pad_token'), '<|endoftext|>')}
# Components that the two classes of the papers' models build.
NORMALIZERS = {GPT2: None, GPT1: 'BertNormalizer'}
SPLITS = {GPT2: 'ByteLevel', GPT1: 'BertPreTokenizer'}
SUFFIXES = {GPT2: '', GPT1: '</w>'}
# How Qwen2Tokenizer splits a text; data of transformers, not a pattern that gptjax runs.
QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
               r'\s*[\r\n]+|\s+(?!\S)|\s+')


def class_of(folder, settings, config, content):
  """Return the class that transformers uses, one of DEFAULTS; None if only the vocabulary determines it.

  Args:
    folder: path, for messages.
    settings, config: content of tokenizer_config.json and config.json, {} without it.
    content: bytes of tokenizer.json, b'' without it.
  """
  path = SETTINGS if settings.get('tokenizer_class') else CONFIG
  name = settings.get('tokenizer_class') or config.get('tokenizer_class')
  if name is None:
    kind = CLASS_OF_MODEL_TYPE.get(str(config.get('model_type'))) or (FAST if content else None)
    path, name = CONFIG, kind
  else:
    kind = CLASSES.get(name) if isinstance(name, str) else None
  if kind is None and name is not None:
    if not content or config:  # else it is the tokenizer folder of a corpus, written by gptjax
      raise InputError(f'{folder / path}: tokenizer_class = {shown(name)} is not supported, only {GPT2}, '
                       f'{GPT1}, {LLAMA}, {QWEN2} and {FAST}: save the tokenizer again as the last, with its '
                       f'{JSON}')
    kind = FAST
  if kind == LLAMA and b'"ByteLevel"' in content:  # transformers looks for the same
    kind = FAST
  if kind in (FAST, LLAMA, QWEN2) and not content:
    raise InputError(f'{folder / path}: tokenizer_class = {shown(name)} needs a {JSON}, which is missing')
  return kind


def settled(folder, kind, whole, settings, config):
  """Return GPT2 or GPT1, if transformers builds exactly that, or FAST: tokenizer.json counts.

  Args:
    folder, settings, config: as for `class_of`.
    kind: from there, not None.
    whole: parsed tokenizer.json, {} without it.

  Raises:
    InputError: a tokenizer.json of GPT-2 or GPT-1 contradicts its class.
  """
  different = _differences(kind, whole, settings) if whole and kind != FAST else []
  if kind in (GPT2, GPT1) and not different:
    return kind
  if different and kind in (GPT2, GPT1) and config.get('model_type') in OWN_MODEL_TYPES:
    name, value, implied = different[0]
    raise InputError(f'{folder / JSON}: {name} = {shown(value)} differs from tokenizer_class {kind} '
                     f'({implied!r}): if the model was trained with it, set tokenizer_class in {SETTINGS} '
                     f'to {FAST}')
  if different:
    names = ' and '.join(dict.fromkeys(name for name, *_ in different))
    log(f'{folder}: the tokenizer is that of {JSON}. In transformers 5, tokenizer_class {kind} has another '
        f'{names}, and gives some texts other ids; {FAST} in {SETTINGS} gives these')
  return FAST


def _differences(kind, whole, settings):
  """Return [(name in tokenizer.json, value, value that the class implies)] of all that differ."""
  model, split = whole['model'], whole.get('pre_tokenizer') or {}
  normalizer = whole.get('normalizer') or {}
  values = {'model.type': (model.get('type', 'BPE'), 'BPE')}
  if kind in (GPT2, GPT1):
    values |= {'normalizer': (normalizer.get('type'), NORMALIZERS[kind]),
               'pre_tokenizer': (split.get('type'), SPLITS[kind]),
               'pre_tokenizer.use_regex': (kind != GPT2 or split.get('use_regex', True), True)}
  elif kind == QWEN2:
    bytes_only = {'type': 'ByteLevel', 'add_prefix_space': bool(settings.get('add_prefix_space')),
                  'use_regex': False}
    words = {'type': 'Split', 'pattern': {'Regex': QWEN2_SPLIT}, 'behavior': 'Isolated', 'invert': False}
    values |= {'normalizer': (normalizer, {'type': 'NFC'}),
               'pre_tokenizer': (_without_offsets(split), {'type': 'Sequence',
                                                           'pretokenizers': [words, bytes_only]})}
  else:
    scheme = 'always' if settings.get('legacy') else 'first'
    words = {'type': 'Metaspace', 'replacement': '\u2581', 'split': False,
             'prepend_scheme': 'never' if settings.get('add_prefix_space') is False else scheme}
    values |= {'normalizer': (normalizer, {}), 'pre_tokenizer': (split, words)}
  values |= {'model.continuing_subword_prefix': (model.get('continuing_subword_prefix') or '', ''),
             'model.end_of_word_suffix': (model.get('end_of_word_suffix') or '', SUFFIXES.get(kind, '')),
             'model.byte_fallback': (model.get('byte_fallback', False), kind == LLAMA),
             'model.ignore_merges': (model.get('ignore_merges', False), False)}
  return [(name, value, implied) for name, (value, implied) in values.items() if value != implied]


def _without_offsets(split):
  """Return a Sequence of pre-tokenizers without `trim_offsets`, which does not affect ids."""
  parts = split.get('pretokenizers')
  if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
    return split
  return split | {'pretokenizers': [{name: value for name, value in part.items() if name != 'trim_offsets'}
                                    for part in parts]}
