"""Exports and imports weights.

    python -m gptjax.pretrained export --from=runs/mine --to=mine-hf
    python -m gptjax.pretrained import ckpt.pt imported --tokenizer=gpt2
"""

import sys

from gptjax.command import run
from gptjax.command.parsers import pretrained as parsers
from gptjax.parallel import jax_settings
from gptjax.text.words import plural


def main(arguments):
  action = parsers.action(arguments)
  flags = parsers.parser(action).parse_args(arguments)
  jax_settings.check_devices()
  if action == parsers.IMPORT:
    from gptjax.pretrained import importing
    model, tokenizer = importing.import_weights(flags.source, flags.out, flags.tokenizer,
                                                flags.activation_function)
    print(_summary(flags.out, model, tokenizer))
    if tokenizer is None:
      print(f'{flags.out} has no tokenizer: it can be trained, but not sampled or evaluated; '
            "--tokenizer=gpt2 adds GPT-2's, which nanoGPT and llm.c use unless told otherwise",
            file=sys.stderr)
    return
  import gptjax
  model, tokenizer = gptjax.load(flags.source)
  gptjax.save_pretrained(model, tokenizer, flags.to)
  print(_summary(flags.to, model, tokenizer))


def _summary(folder, model, tokenizer):
  return (f'{folder}: {plural(model.n_layer, "layer")} of width {model.n_embd}, '
          f'{f"tokenizer of {tokenizer.n_vocab:,} entries" if tokenizer else "no tokenizer"}')


if __name__ == '__main__':
  run.run(main, parsers.action(sys.argv[1:]))
