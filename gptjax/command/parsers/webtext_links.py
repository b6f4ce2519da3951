"""The flags of gptjax.data.webtext_links."""

from gptjax.command.flag_types import integer
from gptjax.command.parsers import docstring, stage_flags
from gptjax.command.run import Parser
from gptjax.storage.files import paths

MIN_KARMA, BEFORE = 3, '2018-01-01'  # GPT-2, section 2.1
STAGES = 'select', 'merge'


def parser():
  flags = Parser(prog='python -m gptjax.data.webtext_links', description=docstring('data/webtext_links.py'),
                 example="python -m gptjax.data.webtext_links --source='dumps/RS_*.zst' --out=urls "
                 '--workers=8')
  add = flags.add_argument
  add('--source', action='append', required=True, metavar='GLOB',
      help='dumps of submissions: files of JSON lines, plain, .zst (also of --long=31), .bz2, .xz or .gz, '
           'and URLs (gs://, s3://, hf://); repeatable')
  add('--out', type=paths.bucket_flag, required=True,
      help='folder of the lists, here or in a bucket (gs://, s3://)')
  add('--min_karma', type=integer(-2**31, 2**31), default=MIN_KARMA,
      help=f'least karma of a submission (default {MIN_KARMA})')
  add('--before', default=BEFORE, metavar='YYYY-MM-DD',
      help=f'submissions from this day on, in UTC, are left out (default {BEFORE})')
  add('--blocked_subreddits', type=paths.bucket_flag, default='', help='file with one subreddit per line')
  add('--blocked_domains', type=paths.bucket_flag, default='', help='file with one domain per line')
  add('--skip_over_18', action='store_true',
      help='leave out submissions that are marked as not suitable for minors')
  add('--keep_media', action='store_true',
      help='keep links to images, video, music, archives and programs, which have no text')
  add('--on_error', default='stop', choices=('stop', 'skip'),
      help='what to do with a dump that is damaged or cut short')
  add('--workers', type=stage_flags.WORKERS, default=1, help='number of processes (default 1)')
  stage_flags.add(flags, STAGES)
  return flags
