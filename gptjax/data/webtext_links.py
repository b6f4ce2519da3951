"""Writes the links of WebText: the URLs in dumps of Reddit submissions that received at least 3 karma.

    python -m gptjax.data.webtext_links --source='dumps/RS_*.zst' --out=urls

A link is kept if a submission of before 2018 has it that got at least 3 karma (GPT-2, section 2.1), if it
leads to a web page outside of Reddit, and if neither its subreddit nor its domain is blocked.
OUT/urls-*.txt has each URL once, in canonical form, one per line; OUT/links-*.jsonl has the same links with
their largest karma, the time and the subreddit of the first submission, and the number of submissions;
OUT/keys-*.bin is what `prepare --urls` reads fastest. Nothing is downloaded.

The command can be killed and started again. Its stages, `select` and `merge`, can also be run one by one,
each by any number of tasks on any machines that share the folder or the bucket; the files are the same, byte
for byte.

    for stage in select merge; do
      srun --ntasks=100 sh -c "python -m gptjax.data.webtext_links ... --stage=$stage --tasks=100 \\
        --task=\\$SLURM_PROCID"
    done
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.webtext_links import parser
  startup.begin('webtext-links', 'stopped; run the same command again to continue')
  early.handle_help(parser, 'webtext-links')

import hashlib

from gptjax.command import run
from gptjax.command.parsers.webtext_links import BEFORE, MIN_KARMA, parser
from gptjax.data import engines
from gptjax.data.clean import webtext
from gptjax.data.links import link_files, submissions
from gptjax.data.sources import documents, file_access
from gptjax.data.sources.unit import Unit
from gptjax.data.stages import folder, parts
from gptjax.errors import InputError
from gptjax.storage.files import paths
from gptjax.text.words import plural

PIPELINE = folder.Pipeline(link_files.stages, link_files.manifest, ('urls-', 'links-', 'keys-'))


def write_links(source, out, *, min_karma=MIN_KARMA, before=BEFORE, blocked_subreddits='', blocked_domains='',
                skip_over_18=False, keep_media=False, on_error='stop', workers=1, progress=True,
                stage=engines.ALL, task=0, tasks=1, run_stage=None):
  """Write the links of dumps to the folder `out`, go on writing them, or return if they are complete.

  Args:
    source: list of dumps: files or globs of JSON lines, see `links.submissions`.
    out: folder of the lists, here or in a bucket.
    min_karma: least score of a submission.
    before: 'YYYY-MM-DD': submissions from this day on (UTC) are left out.
    blocked_subreddits: file with one name per line; '': none.
    blocked_domains: file with one domain per line, as for `prepare`; '': none.
    skip_over_18: leave out submissions that are marked as not suitable for minors.
    keep_media: keep links to images, video, music and other files (see `links.media`).
    on_error: 'stop' or 'skip': what to do with a file that is damaged or cut short. Lines that are no
      submissions are counted in any case.
    workers, progress, stage, task, tasks, run_stage: as for `prepare`.

  Returns:
    The manifest, a dict; None if the lists are not complete after this stage.

  Raises:
    InputError: a missing or damaged file; a folder that holds something else; a stage before this one is not
      complete.
  """
  subreddits = frozenset(map(submissions.subreddit_name, webtext.read_lines(blocked_subreddits)))
  domains = webtext.read_domains(blocked_domains)
  rules = submissions.Rules(min_karma, submissions.seconds(before), subreddits, domains, not skip_over_18,
                            keep_media)
  units = [Unit('jsonl', path, size) for pattern in source for path, size in _files(pattern)]
  settings = {
    'sources': documents.recorded_sources(source, units), 'inputs': documents.units_digest(units),
    'min_karma': min_karma, 'before': before, 'skip_over_18': skip_over_18, 'keep_media': keep_media,
    'blocked_subreddits': _digest(subreddits), 'blocked_domains': _digest(domains)}
  reading = parts.ReadOptions(units, '', '', on_error == 'stop')
  job = folder.Job(reading, paths.parsed(out), settings, rules, PIPELINE, progress, parts.borders(units), {})
  return folder.fill(job, stage, task, tasks, workers, run_stage)


def _files(pattern):
  files = file_access.find_files(paths.expanded(pattern, ()))
  if not files:
    raise InputError(f'--source={pattern}: no file has this name')
  return files


def _digest(names):
  """Return the digest of a set of names; None if it is empty."""
  return hashlib.sha256(repr(sorted(names)).encode()).hexdigest()[:16] if names else None


def summary(manifest):
  """Return the counts of a manifest, one per line."""
  lines = [f'{count:>14,}  {reason}' for reason, count in sorted(manifest['left_out'].items())]
  return '\n'.join([
    f'{manifest["submissions"]:>14,}  lines of dumps, of which are left out', *lines,
    f'{manifest["kept"]:>14,}  submissions with a link that is kept',
    f'{manifest["links"]:>14,}  URLs, each once, in {plural(len(manifest["files"]) // 3, "file")} '
    'urls-*.txt'])


def main(arguments):
  own, engine_flags = engines.split_flags(arguments)
  flags = vars(parser().parse_args(own))
  flags['run_stage'] = engines.choose(flags.pop('engine'), flags['stage'], engine_flags)
  manifest = write_links(**flags)
  if manifest:
    print(summary(manifest))
  elif flags['stage'] != engines.STATUS:
    print(engines.share_line(flags['stage'], flags['task'], flags['tasks']))


if __name__ == '__main__':
  run.run(main, 'webtext-links')
