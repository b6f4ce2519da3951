"""Generates text: python -m gptjax.generate --from=gpt2 --prompt='Once upon a time'

The text depends on the seed, the prompt, the index of the sample and the options, but not on the other texts
of the batch, except for rounding, which depends on the batch size.
"""

if __name__ == '__main__':
  from gptjax.command import startup
  from gptjax.parallel import jax_settings
  startup.begin('generate', 'stopped', product=True)
  jax_settings.begin('generate', own_cache=True)

import argparse
import inspect
import sys

from gptjax import defaults
from gptjax.command import run, streams
from gptjax.files import hub_names, paths
from gptjax.generate.generation import DOMAINS, read_prompt, sample
from gptjax.kernels import cpu
from gptjax.parallel import jax_settings
from gptjax.text.words import plural


def _parser():
  """Return a parser with the arguments of `sample` as flags; `sample` has their defaults."""
  default = {name: parameter.default for name, parameter in inspect.signature(sample).parameters.items()}
  parser = run.Parser(prog='python -m gptjax.generate', argument_default=argparse.SUPPRESS)
  add = parser.add_argument
  add('--from', dest='source', type=hub_names.flag, required=True,
      help='a workdir, a checkpoint, a folder of released weights, or a name on the Hugging Face Hub')
  add('--prompt', action='append', default=[], help='repeatable; default: the start of a new text')
  add('--prompt_file', type=paths.flag, action='append', default=[],
      help='file with a prompt; repeatable')
  for name, text in (
      ('num_samples', 'texts per prompt'),
      ('max_tokens', 'maximum tokens of a text, without the prompt'),
      ('temperature', '0: always the most likely token'),
      ('top_k', 'sample from this many of the most likely tokens, 0: from all'),
      ('top_p', 'sample from the most likely tokens with this total probability'),
      ('seed', 'random seed'), ('batch_size', 'texts per batch')):
    add(f'--{name}', type=DOMAINS[name], help=text if default[name] is None else f'{text} ({default[name]})')
  add('--stop', action='append', help='string before which a text ends; repeatable')
  add('--special_tokens', action='append', metavar='NAME',
      help='a special token that a prompt may contain, or all; repeatable; default: none')
  add('--on_full', help='when the context is full: stop, or slide: continue from its last half '
      f'({default["on_full"]})')
  add('--compilation_cache', type=paths.flag,
      help="private folder that caches compiled programs between calls; '': no cache")
  return parser


def main(arguments):
  flags = vars(_parser().parse_args(arguments))
  cpu.spare_threads()
  jax_settings.check_devices()
  overrides = {'compilation_cache'} & flags.keys()
  cache = flags.pop('compilation_cache', defaults.fields()['compilation_cache'])
  jax_settings.use_cache(jax_settings.cache_folder(cache, overrides), '--compilation_cache',
                     'switch the cache off by --compilation_cache=')
  prompts = flags['prompt'] = [*flags['prompt'], *map(read_prompt, flags.pop('prompt_file'))]
  n_samples = flags.get('num_samples', 1)
  single, pending, full = len(prompts) <= 1 and n_samples == 1, list(prompts), 0

  def listen(number, piece, finish_reason):
    nonlocal full
    full += finish_reason == 'context'
    if single:
      streams.write_generated(''.join(pending) + piece + '\n' * bool(finish_reason))
      pending.clear()

  texts = sample(**flags, listen=listen)
  for number, text in enumerate(() if single else texts):
    of, nth = divmod(number, n_samples)
    streams.write_generated(f'=== {f"prompt {of + 1}, " if prompts else ""}sample {nth + 1} ===\n'
                            f'{prompts[of] if prompts else ""}{text}\n\n')
  if full:
    print(f'generate: {full} of {plural(len(texts), "text")} ended because the context was full; '
          'use --on_full=slide to continue', file=sys.stderr)


if __name__ == '__main__':
  run.run(main, 'generate')
