"""Small tokenizers in the files of Llama 3, Qwen, SmolLM2 and Llama 2: their components, other entries."""

import json

import tokenizers as library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXT = ("the cat sat on the mat, and 12 dogs don't care. THE naïve café\n\n  has  3 4567 indents:\n    x = "
        "1\n\tDon't you? we've 2019 reasons; the quick brown fox jumps over a lazy dog ") * 30
WORDS_3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
           r'\s*[\r\n]+|\s+(?!\S)|\s+')
WORDS_1 = WORDS_3.replace('{1,3}', '')
N_VOCAB = 340
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def byte_level(pre_tokenizer, special, normalizer=None):
  """A byte-level BPE of N_VOCAB entries, the last of which are special."""
  made = library.Tokenizer(models.BPE())
  made.pre_tokenizer, made.decoder = pre_tokenizer, decoders.ByteLevel()
  if normalizer:
    made.normalizer = normalizer
  made.train_from_iterator([TEXT], trainers.BpeTrainer(
    vocab_size=N_VOCAB - len(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False))
  made.add_special_tokens([library.AddedToken(name, special=True, normalized=False) for name in special])
  assert made.get_vocab_size() == N_VOCAB
  return made


def words(pattern):
  return pre_tokenizers.Sequence([pre_tokenizers.Split(library.Regex(pattern), 'isolated'), BYTES])


def before_each_text(made, name):
  made.post_processor = processors.TemplateProcessing(
    single=f'{name} $A', pair=f'{name} $A {name}:1 $B:1', special_tokens=[(name, made.token_to_id(name))])
  return made


def llama3():
  made = byte_level(words(WORDS_3), ['<|begin_of_text|>', '<|end_of_text|>', '<|eot_id|>'])
  return before_each_text(made, '<|begin_of_text|>'), dict(
    tokenizer_class='PreTrainedTokenizerFast', bos_token='<|begin_of_text|>', eos_token='<|end_of_text|>',
    clean_up_tokenization_spaces=True)


def qwen3():
  made = byte_level(words(WORDS_1), ['<|endoftext|>', '<|im_start|>', '<|im_end|>'], normalizers.NFC())
  made.post_processor = processors.ByteLevel(trim_offsets=False)
  return made, dict(tokenizer_class='Qwen2Tokenizer', bos_token=None, eos_token='<|endoftext|>',
                    pad_token='<|endoftext|>', unk_token=None, add_bos_token=False, add_prefix_space=False,
                    additional_special_tokens=['<|im_start|>', '<|im_end|>'])


def smollm2():
  digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False)])
  return byte_level(digits, ['<|endoftext|>']), dict(
    tokenizer_class='GPT2Tokenizer', add_prefix_space=False, bos_token='<|endoftext|>',
    eos_token='<|endoftext|>', unk_token='<|endoftext|>')


def llama2(metaspace=True):
  """A BPE of sentencepiece; `metaspace`: as transformers 5 writes it, else as transformers 4 did."""
  special = ['<unk>', '<s>', '</s>']
  trained = library.Tokenizer(models.BPE(unk_token='<unk>'))
  trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first')
  trained.train_from_iterator([TEXT], trainers.BpeTrainer(
    vocab_size=N_VOCAB + 20, show_progress=False,
    special_tokens=[*special, *(f'<0x{byte:02X}>' for byte in range(256))]))
  learnt = json.loads(trained.to_str())['model']
  made = library.Tokenizer(models.BPE(learnt['vocab'], [tuple(pair) for pair in learnt['merges']],
                                      fuse_unk=True, byte_fallback=True))
  if metaspace:
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first', split=False)
  else:
    made.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  made.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(),
                                    decoders.Strip(' ', 1, 0)])
  made.add_special_tokens([library.AddedToken(name, special=True, normalized=False) for name in special])
  return before_each_text(made, '<s>'), dict(
    tokenizer_class='LlamaTokenizer', bos_token='<s>', eos_token='</s>', unk_token='<unk>', legacy=False,
    add_bos_token=True, add_eos_token=False)


KINDS = {'llama3': llama3, 'qwen3': qwen3, 'smollm2': smollm2, 'llama2': llama2,
         'llama2 of transformers 4': lambda: llama2(False)}


def write(kind, folder, **settings):
  """Writes the files of one of KINDS, with other fields of tokenizer_config.json, None: without the field.

  Returns:
    The folder, with a config.json of its model type unless it has one.
  """
  folder.mkdir(parents=True, exist_ok=True)
  made, known = KINDS[kind]()
  (folder / 'tokenizer.json').write_text(made.to_str())
  known = {name: value for name, value in {**known, **settings}.items()
           if not (name in settings and value is None)}
  (folder / 'tokenizer_config.json').write_text(json.dumps(known))
  if not (folder / 'config.json').exists():
    (folder / 'config.json').write_text(json.dumps({'model_type': 'qwen3' if kind == 'qwen3' else 'llama'}))
  return folder
