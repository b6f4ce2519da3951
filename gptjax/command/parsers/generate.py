"""The flags of gptjax.generate: the arguments of `sample`, with the same defaults and domains."""

import argparse

from gptjax.command.flag_types import SEED, integer, real
from gptjax.command.run import Parser
from gptjax.storage.files import hub_names, paths

DOMAINS = {'num_samples': integer(1, 1_000_000), 'max_tokens': integer(1), 'seed': integer(0, SEED),
           'temperature': real(1e-6, 1e6, also={0: 'greedy'}), 'top_k': integer(0), 'top_p': real(1e-6, 1),
           'batch_size': integer(1, 1_000_000)}
# Flags of nanoGPT's sample.py and of other commands.
OTHER_NAMES = {'--start': '--prompt', '--out_dir': '--from', '--max_new_tokens': '--max_tokens',
               '--workdir': '--from', '--init_from': '--from'}
# As in the signature of `sample`, for the help; flags that are not given are left to `sample`.
DEFAULTS = {'num_samples': 1, 'max_tokens': 256, 'temperature': 1.0, 'seed': 0, 'on_full': 'stop',
            'batch_size': 16}


def parser():
  """Return the parser; the flags that are not given are not in its result."""
  flags = Parser(prog='python -m gptjax.generate', argument_default=argparse.SUPPRESS,
                 other_names=OTHER_NAMES,
                 description='Generates text with a model: released weights, a run or a checkpoint.',
                 example="python -m gptjax.generate --from=runs/quickstart --prompt='The function returns' "
                 '--max_tokens=64')
  add = flags.add_argument
  add('--from', dest='source', type=hub_names.flag, required=True,
      help='a workdir, a checkpoint, a folder of released weights, or a name on the Hugging Face Hub')
  add('--prompt', action='append', default=[], help='repeatable; default: the start of a new text')
  add('--prompt_file', type=paths.bucket_flag, action='append', default=[],
      help='file with a prompt; repeatable')
  for name, text in (
      ('num_samples', 'texts per prompt'),
      ('max_tokens', 'maximum tokens of a text, without the prompt'),
      ('temperature', '0: always the most likely token'),
      ('top_k', 'sample from this many of the most likely tokens, 0: from all'),
      ('top_p', 'sample from the most likely tokens with this total probability'),
      ('seed', 'random seed'), ('batch_size', 'texts per batch')):
    shown = f' ({DEFAULTS[name]})' if name in DEFAULTS else ''
    add(f'--{name}', type=DOMAINS[name], help=text + shown)
  add('--stop', action='append', help='string before which a text ends; repeatable')
  add('--special_tokens', action='append', metavar='NAME',
      help='a special token that a prompt may contain, or all; repeatable; default: none')
  add('--on_full', help='when the context is full: stop, or slide: continue from its last half '
      f'({DEFAULTS["on_full"]})')
  add('--weight_dtype', help='int8: round matrices to int8, faster for few texts on a CPU; default: the '
      'compute dtype of the model')
  add('--compilation_cache', type=paths.flag,
      help="private folder that caches compiled programs between calls; '': no cache")
  return flags
