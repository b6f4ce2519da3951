"""Trains a tokenizer and saves it in a folder.

    python -m gptjax.data.tokenizers train --kind=bpe --vocab_size=8192 --source=text:FILE --out=DIR
    python -m gptjax.data.tokenizers train --kind=char --source=text:FILE --out=DIR
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.tokenizer import parser
  startup.begin('tokenizers', 'stopped')
  early.handle_help(parser, 'tokenizers')

from gptjax.command import run
from gptjax.command.parsers.tokenizer import parser
from gptjax.data.tokenizers.tokenizer_files import save_files
from gptjax.data.tokenizers.training import TRAINERS, train
from gptjax.errors import InputError


def main(arguments):
  from gptjax.data.sources import documents
  flags = parser().parse_args(arguments)
  if flags.vocab_size is None and getattr(TRAINERS.get(flags.kind), 'sized', False):
    raise InputError(f'--vocab_size is missing: --kind={flags.kind} needs the number of entries')
  save_files(flags.out, {})  # fails before the training if the folder cannot be created
  texts = (piece.text for unit in documents.units(flags.source, flags.tfds_dir)
           for piece in documents.usable_pieces(unit, '', flags.tfds_dir))
  tokenizer = train(flags.kind, flags.vocab_size, texts, progress=True)
  tokenizer.save(flags.out)
  print(f'{flags.out}: {tokenizer.name}, {tokenizer.n_vocab} entries, digest {tokenizer.digest}')


if __name__ == '__main__':
  run.run(main, 'tokenizers')
