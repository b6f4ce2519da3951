"""Generates text: python -m gptjax.generate --from=gpt2 --prompt='Once upon a time'

The text depends on the seed, the prompt, the index of the sample and the options, but not on the other texts
of the batch, except for rounding, which depends on the batch size.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers import generate
  from gptjax.parallel import jax_settings
  startup.begin('generate', 'stopped', stdout_is_result=True)
  early.handle_help(generate.parser, 'generate')
  jax_settings.begin('generate', own_cache=True)

import sys

from gptjax.command import run, streams
from gptjax.command.parsers import generate
from gptjax.generate.generation import read_prompt, sample
from gptjax.kernels import cpu
from gptjax.parallel import jax_settings
from gptjax.text.words import plural


def main(arguments):
  flags = vars(generate.parser().parse_args(arguments))
  cpu.configure_devices()
  jax_settings.check_devices()
  jax_settings.use_cache_of_flag(flags.pop('compilation_cache', None))
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
