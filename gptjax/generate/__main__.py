"""Text from a model: python -m gptjax.generate --from=gpt2 --prompt='Once upon a time'

What is written for a prompt depends on the seed, the prompt, the number of the sample and the options, and
not on what else is in the batch; but for rounding, which differs with the size of a batch.
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
from gptjax.files import paths
from gptjax.generate.generation import DOMAINS, read_prompt, sample
from gptjax.kernels import cpu
from gptjax.parallel import jax_settings
from gptjax.text.words import plural


def _parser():
  """Flags that are the arguments of `sample`, whose defaults stand there."""
  given = {name: parameter.default for name, parameter in inspect.signature(sample).parameters.items()}
  parser = run.Parser(prog='python -m gptjax.generate', argument_default=argparse.SUPPRESS)
  add = parser.add_argument
  add('--from', dest='source', type=paths.flag, required=True,
      help='a workdir, a checkpoint, or a folder of released weights')
  add('--prompt', action='append', default=[], help='repeatable; none: a text from its very beginning')
  add('--prompt_file', type=paths.flag, action='append', default=[],
      help='a file that is a prompt; repeatable')
  for name, text in (
      ('num_samples', 'texts a prompt'),
      ('max_tokens', 'tokens a text may have, the prompt not counted'),
      ('temperature', '0: always the likeliest token'),
      ('top_k', 'draw from so many of the likeliest tokens, 0: from all'),
      ('top_p', 'draw from the likeliest tokens that have this probability together'),
      ('seed', 'of the draws'), ('batch_size', 'texts at a time')):
    add(f'--{name}', type=DOMAINS[name], help=text if given[name] is None else f'{text} ({given[name]})')
  add('--stop', action='append', help='a text ends before this; repeatable')
  add('--special_tokens', action='append', metavar='NAME',
      help='a special token that a prompt may contain, or all; repeatable; none: text is text')
  add('--on_full', help='when the context is full: stop, or slide: its last half is read again and the text '
      f'goes on ({given["on_full"]})')
  add('--compilation_cache', type=paths.flag,
      help="where compiled programs are kept between calls, a folder of yours alone; '': nowhere")
  return parser


def main(arguments):
  flags = vars(_parser().parse_args(arguments))
  cpu.spare_threads()
  jax_settings.check_devices()
  given = {'compilation_cache'} & flags.keys()
  cache = flags.pop('compilation_cache', defaults.fields()['compilation_cache'])
  jax_settings.use_cache(jax_settings.cache_folder(cache, given), '--compilation_cache',
                     'switch the cache off by --compilation_cache=')
  prompts = flags['prompt'] = [*flags['prompt'], *map(read_prompt, flags.pop('prompt_file'))]
  each = flags.get('num_samples', 1)
  alone, shown, full = len(prompts) <= 1 and each == 1, list(prompts), 0

  def listen(number, piece, ended):
    nonlocal full
    full += ended == 'context'
    if alone:
      streams.write_generated(''.join(shown) + piece + '\n' * bool(ended))
      shown.clear()

  found = sample(**flags, listen=listen)
  for number, text in enumerate(() if alone else found):
    of, nth = divmod(number, each)
    streams.write_generated(f'=== {f"prompt {of + 1}, " if prompts else ""}sample {nth + 1} ===\n'
                            f'{prompts[of] if prompts else ""}{text}\n\n')
  if full:
    print(f'generate: {full} of {plural(len(found), "text")} ended where the context was full; '
          '--on_full=slide goes on', file=sys.stderr)


if __name__ == '__main__':
  run.run(main, 'generate')
