"""Converts a tokenizer to the files that `transformers.AutoTokenizer` loads."""

import json

from gptjax.data.tokenizers import byte_bpe, characters, hf_folder, sentence_piece
from gptjax.data.tokenizers.gpt1_text import END_OF_WORD
from gptjax.errors import InputError

SENTENCEPIECE = 'sentencepiece.model'
UNIGRAM, USER_DEFINED = 1, 4  # of sentencepiece: a type of model and a type of entry


def transformers_files(tokenizer, n_ctx):
  """Return {file name: bytes}.

  `transformers` gives the same ids with two exceptions. It encodes the name of a special token in a text,
  such as `<|endoftext|>`, as the token; gptjax does not by default. It also splits and normalizes GPT-1's
  words differently (BERT's rules, without accents and line breaks), as the released Hugging Face tokenizer
  does: the vocabulary is the same, and so are the ids of plain sentences without contractions. A
  character-level tokenizer refuses unknown characters in both.

  Args:
    tokenizer: any tokenizer of gptjax.
    n_ctx: maximum sequence length of the model in tokens.

  Raises:
    ValueError: a kind of sentencepiece model that the files cannot represent.
  """
  if tokenizer.name in ('gpt2', 'bpe'):
    encoder, merges = tokenizer.files['encoder.json'], tokenizer.files['vocab.bpe']
    end = byte_bpe.END_OF_TEXT
    settings = dict(tokenizer_class='GPT2Tokenizer', add_prefix_space=False, errors='replace', bos_token=end,
                    eos_token=end, unk_token=end)
    converted = _byte_level(encoder, merges, end)
    originals = {hf_folder.VOCAB: encoder, hf_folder.MERGES: merges}
  elif tokenizer.name == 'gpt1':
    encoder, merges = tokenizer.files.values()
    settings = dict(tokenizer_class='OpenAIGPTTokenizer', unk_token='<unk>')
    converted = _gpt1(encoder, merges)
    originals = {hf_folder.VOCAB: encoder, hf_folder.MERGES: merges}
  elif tokenizer.name == 'sentencepiece':
    model = tokenizer.files['sentencepiece.model']
    converted, names = _unigram(model)
    settings = dict(tokenizer_class='PreTrainedTokenizerFast', **names)
    originals = {SENTENCEPIECE: model}
  elif tokenizer.name == 'char':
    end = next(iter(tokenizer.special_tokens), None)
    settings = dict(tokenizer_class='PreTrainedTokenizerFast', bos_token=end, eos_token=end)
    converted, originals = _character_level(tokenizer.entries, end), dict(tokenizer.files)
  else:
    return dict(tokenizer.files)
  settings |= dict(model_max_length=n_ctx, clean_up_tokenization_spaces=False)
  return originals | {hf_folder.JSON: converted.to_str(pretty=False).encode(),
                      hf_folder.SETTINGS: (json.dumps(settings, indent=2, sort_keys=True) + '\n').encode()}


def _parsed(encoder, merges):
  pairs = [tuple(line.split(' ')) for line in merges.decode().split('\n')[1:] if line]
  return json.loads(encoder), pairs


def _byte_level(encoder, merges, end):
  import tokenizers as library
  converted = library.Tokenizer(library.models.BPE(*_parsed(encoder, merges)))
  converted.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
  converted.decoder = library.decoders.ByteLevel()
  converted.add_special_tokens([library.AddedToken(end, normalized=False, special=True)])
  return converted


def _character_level(entries, end):
  import tokenizers as library
  # Without the entry that it names, `tokenizers` raises an error for unknown characters.
  converted = library.Tokenizer(library.models.WordLevel(
    {entry: i for i, entry in enumerate(entries)}, unk_token=characters.NO_UNKNOWN))
  converted.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(characters.PATTERN), 'isolated')
  converted.decoder = library.decoders.Fuse()
  if end is not None:
    converted.add_special_tokens([library.AddedToken(end, normalized=False, special=True)])
  return converted


def _gpt1(encoder, merges):
  import tokenizers as library
  converted = library.Tokenizer(library.models.BPE(*_parsed(encoder, merges), unk_token='<unk>',
                                              end_of_word_suffix=END_OF_WORD))
  converted.normalizer = library.normalizers.BertNormalizer(lowercase=True)
  converted.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
  converted.decoder = library.decoders.BPEDecoder(suffix=END_OF_WORD)
  converted.add_special_tokens([library.AddedToken('<unk>', normalized=False, special=True)])
  return converted


def _unigram(content):
  """Return (tokenizer, {role: special token}) of a sentencepiece model without normalization."""
  import tokenizers as library
  from sentencepiece import sentencepiece_model_pb2
  from tokenizers import decoders, normalizers
  model = sentencepiece_model_pb2.ModelProto.FromString(content)
  trained, cleaned = model.trainer_spec, model.normalizer_spec
  for name, holds in (
      ('model_type is not unigram', trained.model_type == UNIGRAM),
      ('normalization_rule_name is not identity', not cleaned.precompiled_charsmap),
      ('remove_extra_whitespaces is on', not cleaned.remove_extra_whitespaces),
      ('treat_whitespace_as_suffix is on', not trained.treat_whitespace_as_suffix),
      ('user_defined_symbols are set', all(piece.type != USER_DEFINED for piece in model.pieces))):
    if not holds:
      raise InputError(f'this sentencepiece model cannot be written as {hf_folder.JSON} ({name}): save '
                       'the model without its tokenizer, None')
  converted = library.Tokenizer(library.models.Unigram(
    [(piece.piece, piece.score) for piece in model.pieces], trained.unk_id, trained.byte_fallback))
  prefix = [normalizers.Prepend(sentence_piece.SPACE)] if cleaned.add_dummy_prefix else []
  converted.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(' ', sentence_piece.SPACE)])
  strip = [decoders.Strip(' ', 1, 0)] if cleaned.add_dummy_prefix else []
  converted.decoder = decoders.Sequence([decoders.Replace(sentence_piece.SPACE, ' '), decoders.ByteFallback(),
                                    decoders.Fuse(), *strip])
  roles = {'unk_token': trained.unk_id, 'bos_token': trained.bos_id, 'eos_token': trained.eos_id}
  names = {role: model.pieces[i].piece for role, i in roles.items() if i >= 0}
  converted.add_special_tokens([library.AddedToken(name, normalized=False, special=True)
                           for name in names.values()])
  return converted, names
