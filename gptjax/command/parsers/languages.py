"""The flags of gptjax.data.languages."""

from gptjax.command.parsers import docstring, stage_flags
from gptjax.command.run import Parser
from gptjax.storage.files import paths


def parser():
  flags = Parser(prog='python -m gptjax.data.languages', description=docstring('data/languages.py'),
                 example='python -m gptjax.data.languages --source=corpus:corpora/web --workers=8')
  add = flags.add_argument
  add('--source', action='append', required=True, help='KIND:WHERE, as for `gptjax prepare`; repeatable')
  add('--out', type=paths.bucket_flag, default='',
      help='folder of the counts, here or in a bucket (gs://, s3://); default: they are only printed')
  add('--urls', action='append', default=[], metavar='GLOB',
      help='the keys-*.bin of webtext-links, or text files with one URL per line: of web archives (warc:) '
           'only these pages are read; repeatable')
  add('--tfds_dir', type=paths.bucket_flag, default='', help='folder of the data sets of tfds:')
  add('--on_error', default='stop', choices=('stop', 'skip'),
      help='what to do with a document that cannot be used')
  add('--document_separator', default='',
      help=r'text between documents in a file of text: or tar: (\n and \t are understood)')
  add('--workers', type=stage_flags.WORKERS, default=1, help='number of processes (default 1)')
  stage_flags.add(flags, ('scan',))
  return flags
