"""The flags of gptjax.evaluate.samples."""

from gptjax.command.flag_types import SEED, integer
from gptjax.command.parsers import docstring
from gptjax.command.run import Parser
from gptjax.storage.files import paths

NUMBERS = {'contexts': 5, 'several': 6, 'best-of': 10, 'recital': 5}


def parser():
  flags = Parser(prog='python -m gptjax.evaluate.samples',
                 description=docstring('evaluate/samples/__main__.py'),
                 example='python -m gptjax.evaluate.samples best-of --workdir=runs/gpt2_small')
  add = flags.add_argument
  add('kind', choices=tuple(NUMBERS), help='what to write, see above')
  add('--workdir', type=paths.bucket_flag, action='append', required=True,
      help='of a run, any job; repeatable')
  add('--contexts', type=paths.bucket_flag,
      help='corpus of the contexts, prepared with the tokenizer of the models')
  add('--split', choices=('train', 'validation'), help='of the corpus (validation)')
  add('--number', type=integer(1, 1_000_000),
      help='contexts: of contexts (5); several: of completions (6); best-of: of samples (10); recital: of '
      'samples of each text by top-k, and as many from all tokens (5)')
  add('--context_tokens', type=integer(1),
      help='of a context (768; several: 384; fewer if the context of a model is too short)')
  add('--tokens', type=integer(1),
      help='maximum tokens of a sample (256; several: 128)')
  add('--prompt', help="of best-of (that of the paper's Table 13)")
  add('--choose', type=integer(1),
      help='best-of: number of the sample to mark in the report; nothing is generated')
  add('--text', type=paths.bucket_flag, action='append',
      help='recital: file with a text; repeatable (the Gettysburg Address and other public-domain texts)')
  add('--prompt_words', type=integer(1), help='recital: words of a text that the model is given (39)')
  add('--top_k', type=integer(0), default=40,
      help='sample from this many of the most likely tokens, 0: from all (40)')
  add('--seed', type=integer(0, SEED), default=0, help='of the samples and the choice of contexts (0)')
  add('--batch_size', type=integer(1, 1_000_000), default=16, help='texts per batch; affects memory (16)')
  add('--compilation_cache', type=paths.flag, default=None,
      help="private folder that caches compiled programs between calls; '': no cache")
  return flags
