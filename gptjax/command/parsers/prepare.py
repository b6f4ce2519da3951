"""The flags of gptjax.data.prepare."""

from gptjax.command.flag_types import integer, real
from gptjax.command.parsers import docstring, stage_flags
from gptjax.command.run import Parser
from gptjax.storage.files import paths

SHARD_TOKENS = 100_000_000  # 200 MB of uint16
FRACTION = 0.005
FRACTIONS, SHARD_SIZES = real(0, 1, open_right=True), integer(1, 2**40)
NGRAM_WORDS, EXCLUDE_WORDS = integer(1, 1000), 8  # as in GPT-2's overlap study
SEQ_LENS, SEQ_LEN = integer(1), 1024  # GPT-2's context
STAGES = 'judge', 'mark', 'tokenizer', 'encode', 'join'
NEAR_PRESETS = ('standard', 'strict', 'precise', 'fineweb')  # names of `near_presets.PRESETS`
NEAR_FLAGS = ('near', 'near_bands', 'near_rows', 'near_threshold')  # arguments of `near_presets.resolve`


def parser():
  flags = Parser(prog='python -m gptjax.data.prepare', description=docstring('data/prepare.py'),
                 example="python -m gptjax.data.prepare --source='jsonl:books/*.jsonl.gz:text' "
                 '--tokenizer=gpt2 --out=corpora/books --workers=8')
  add = flags.add_argument
  add('--source', action='append', required=True,
      help='text:GLOB, tar:GLOB, warc:GLOB, jsonl:GLOB[:FIELD], parquet:GLOB[:FIELD], arrow:GLOB[:FIELD], '
           'arrow:FOLDER[:SPLIT][:FIELD], tfds:NAME[:SPLIT][:FIELD], corpus:FOLDER[:SPLIT] or python:, where '
           'files may be .gz, .zst, .bz2 or .xz, and URLs (gs://, s3://, hf://); repeatable')
  add('--tokenizer', required=True,
      help='gpt2, gpt2:DIR, gpt1:DIR, bpe:DIR, char:DIR, sentencepiece:FILE, train-bpe:N or train-char')
  add('--out', type=paths.bucket_flag, required=True,
      help='folder of the corpus, here or in a bucket (gs://, s3://); it takes twice the size of the corpus '
           'until the end')
  add('--validation_fraction', type=FRACTIONS, default=FRACTION,
      help=f'share of the documents that is held out (default {FRACTION}; GPT-2: 0.05 of WebText)')
  add('--seq_len', type=SEQ_LENS, default=SEQ_LEN,
      help=f'tokens of an evaluation window: less text is not held out (default {SEQ_LEN})')
  add('--clean', default='', help="'' (default) or webtext")
  add('--clean_without', default='', help='filters to disable: NAME,NAME')
  add('--blocked_domains', type=paths.bucket_flag, default='', help='file with one domain per line')
  add('--wikipedia_titles', type=paths.bucket_flag, default='', help='file with one title per line')
  add('--near', choices=NEAR_PRESETS,
      help='which near duplicates --clean=webtext removes: a preset of the numbers below; default standard: '
      '20 bands of 6 entries, threshold 0.75, which removes 93 %% of the pairs that are 80 %% similar')
  add('--near_bands', type=integer(1),
      help='bands of a signature: documents are compared if one band is equal; default: of the preset')
  add('--near_rows', type=integer(1), help='entries of a signature per band; default: of the preset')
  add('--near_threshold', type=real(0, 1),
      help='least share of equal entries of near duplicates; default: of the preset')
  add('--exclude', action='append', default=[], metavar='TEST_SET',
      help='leave out documents that share n-grams with this test set: KIND:WHERE as for --source, a file '
           'or a folder; repeatable')
  add('--exclude_words', type=NGRAM_WORDS, default=EXCLUDE_WORDS,
      help=f'words of such an n-gram (default {EXCLUDE_WORDS})')
  add('--exclude_spans', action='store_true',
      help='leave out only the shared words: the stretches of text between them become documents')
  add('--urls', action='append', default=[], metavar='GLOB',
      help='the keys-*.bin of webtext-links, or text files with one URL per line: of web archives (warc:) '
           'only these pages are read; repeatable')
  add('--workers', type=stage_flags.WORKERS, default=1, help='number of processes (default 1)')
  add('--tfds_dir', type=paths.bucket_flag, default='', help='folder of the data sets of tfds:')
  add('--tfds_download', action='store_true',
      help='prepare missing data sets of tfds:, which may download them')
  add('--on_error', default='stop', help='stop (default) or skip')
  add('--document_separator', default='',
      help=r'text between documents in a file of text: or tar: (\n and \t are understood)')
  add('--shard_tokens', type=SHARD_SIZES, default=SHARD_TOKENS,
      help=f'tokens per shard (default {SHARD_TOKENS:,})')
  add('--special_tokens', action='append', default=[], metavar='NAME',
      help='a special token that a text may contain, or all; repeatable; default: none')
  stage_flags.add(flags, STAGES)
  return flags
