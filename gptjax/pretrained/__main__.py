"""Exports weights for transformers: python -m gptjax.pretrained export --from=runs/mine --to=mine-hf"""

from gptjax.command import run
from gptjax.command.parsers.export import parser
from gptjax.parallel import jax_settings
from gptjax.text.words import plural


def main(arguments):
  flags = parser().parse_args(arguments)
  jax_settings.check_devices()
  import gptjax
  model, tokenizer = gptjax.load(flags.source)
  gptjax.save_pretrained(model, tokenizer, flags.to)
  print(f'{flags.to}: {plural(model.n_layer, "layer")} of width {model.n_embd}, '
        f'{f"tokenizer of {tokenizer.n_vocab:,} entries" if tokenizer else "no tokenizer"}')


if __name__ == '__main__':
  run.run(main, 'export')
