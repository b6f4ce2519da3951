"""The flags of gptjax.data.adopt."""

from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths


def parser():
  flags = Parser(prog='python -m gptjax.data.adopt', description=docstring('data/adopt.py'),
                 example='python -m gptjax.data.adopt llmc:fineweb10B --tokenizer=gpt2 '
                 '--out=corpora/fineweb10B')
  add = flags.add_argument
  add('source', metavar='KIND:FILES',
      help='nanogpt, llmc, megatron, olmo, datatrove, npy or raw, and a folder, a file, or a pattern of file '
           'names in a folder')
  add('--tokenizer', required=True,
      help='the tokenizer of the files: gpt2, gpt2:DIR, gpt1:DIR, bpe:DIR, char:DIR, sentencepiece:FILE or a '
           'folder')
  add('--out', type=paths.bucket_flag, required=True,
      help='folder of the corpus, here or in a bucket (gs://, s3://): that of the files, or a new one')
  add('--dtype', choices=('uint16', 'uint32'), default='',
      help='of the ids of olmo and raw; default: uint16 if the tokenizer has at most 65,536 entries')
  add('--validation', metavar='PATTERN',
      help='names of the files of the validation split; default: val.bin (nanogpt), *_val*.bin (llmc), '
           '*val*.npy (npy), else none')
  add('--begin_of_text', metavar='TOKEN', default='',
      help='special token by which each document begins, like <|begin_of_text|> in uint32 shards of llm.c; '
           'documents need no end-of-text token then')
  add('--no_end_of_text', action='store_true',
      help='no token separates documents: a split is one document, or what the index says')
  return flags
