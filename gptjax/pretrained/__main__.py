"""Exports and imports weights.

    python -m gptjax.pretrained export --from=runs/mine --to=mine-hf
    python -m gptjax.pretrained import ckpt.pt imported --tokenizer=gpt2
"""

import sys

from gptjax.command import run
from gptjax.command.parsers import pretrained as parsers
from gptjax.parallel import jax_settings
from gptjax.text.words import plural

GPT2_ENTRIES = 50_257


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
      print(f'{flags.out} has no tokenizer, so it can be trained, but not sampled or evaluated: to add one, '
            f'remove the folder and import again with {_likely_tokenizer(model.n_vocab)}', file=sys.stderr)
    return
  import gptjax
  model, tokenizer = gptjax.load(flags.source)
  gptjax.save_pretrained(model, tokenizer, flags.to)
  print(_summary(flags.to, model, tokenizer))


def _summary(folder, model, tokenizer):
  return (f'{folder}: {plural(model.n_layer, "layer")} of width {model.n_embd}, '
          f'{f"tokenizer of {tokenizer.n_vocab:,} entries" if tokenizer else "no tokenizer"}')


def _likely_tokenizer(n_vocab):
  """The flag with the tokenizer that a model of nanoGPT or llm.c with so many entries has."""
  if n_vocab >= GPT2_ENTRIES:
    return "--tokenizer=gpt2, if it is GPT-2's"
  return ('--tokenizer=char:DIR, if its entries are the characters of a text (`python -m '
          'gptjax.data.tokenizers train --kind=char --source=text:input.txt --out=DIR`; a meta.pkl is not '
          'read)')


if __name__ == '__main__':
  run.run(main, parsers.action(sys.argv[1:]))
