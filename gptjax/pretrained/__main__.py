"""Exports weights for transformers: python -m gptjax.pretrained export --from=runs/mine --to=mine-hf"""

from gptjax.command import run
from gptjax.files import hub_names, paths
from gptjax.parallel import jax_settings
from gptjax.text.words import plural


def main(arguments):
  parser = run.Parser(prog='python -m gptjax.pretrained')
  parser.add_argument('action', choices=['export'])
  parser.add_argument('--from', dest='source', type=hub_names.flag, required=True,
                      help='a workdir, a checkpoint, a Hugging Face folder, a name on the Hugging Face Hub, '
                           'or OpenAI\'s files')
  parser.add_argument('--to', type=paths.flag, required=True, help='folder to write for transformers')
  flags = parser.parse_args(arguments)
  jax_settings.check_devices()
  import gptjax
  model, tokenizer = gptjax.load(flags.source)
  gptjax.save_pretrained(model, tokenizer, flags.to)
  print(f'{flags.to}: {plural(model.n_layer, "layer")} of width {model.n_embd}, '
        f'{f"tokenizer {tokenizer.name}" if tokenizer else "no tokenizer"}')


if __name__ == '__main__':
  run.run(main, 'pretrained')
