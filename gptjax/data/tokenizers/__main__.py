"""Trains a tokenizer and saves it in a folder.

    python -m gptjax.data.tokenizers train --kind=bpe --vocab_size=8192 --source=text:FILE --out=DIR
    python -m gptjax.data.tokenizers train --kind=char --source=text:FILE --out=DIR
"""

if __name__ == '__main__':
  from gptjax.command import startup
  startup.begin('tokenizers', 'stopped')

from gptjax.command import run
from gptjax.data.tokenizers.tokenizer_files import save_files
from gptjax.data.tokenizers.training import TRAINERS, VOCAB_SIZES, train
from gptjax.errors import InputError
from gptjax.files import paths


def main(arguments):
  from gptjax.data.sources import documents
  parser = run.Parser(prog='python -m gptjax.data.tokenizers')
  parser.add_argument('action', choices=['train'])
  parser.add_argument('--kind', required=True, help='bpe, char or sentencepiece')
  parser.add_argument('--vocab_size', type=VOCAB_SIZES,
                      help='number of entries; not of char, whose entries are the characters of the text')
  parser.add_argument('--source', action='append', required=True, help='KIND:WHERE; repeatable')
  parser.add_argument('--out', type=paths.flag, required=True, help='folder for the tokenizer')
  parser.add_argument('--tfds_dir', type=paths.flag, default='', help='folder of the data sets of tfds:')
  flags = parser.parse_args(arguments)
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
