"""Reads a submission of a dump, and says whether its link is one of WebText's.

A dump has a JSON object per line, as Reddit's interface returns a submission (Baumgartner et al. 2020, The
Pushshift Reddit Dataset). The fields that are read:

    url            what it links to; characters may be escaped as in HTML (`&amp;`); a path of Reddit itself
                   for some cross-posts; missing or `[deleted]` for some submissions that were deleted
    is_self        whether it is a text, not a link; older dumps only have `domain`: `self.SUBREDDIT`
    score          the karma when the dump was made: an integer, in some dumps a string; may be missing
    created_utc    seconds since 1970: an integer, a string or a float
    subreddit      the name, missing for advertisements
    over_18        whether it is marked as not suitable for minors
"""

import calendar
import datetime
import re
from typing import NamedTuple

from gptjax.data.clean import webtext
from gptjax.data.links import media, urls
from gptjax.errors import InputError
from gptjax.storage.files import bounded

REDDIT = frozenset(('reddit.com', 'redd.it', 'reddituploads.com', 'redditmedia.com', 'redditstatic.com',
                    'reddit.app.link'))
# Why a line of a dump has no link, in the order in which this is decided.
DAMAGED, SELF, NO_URL = 'not a submission', 'text, not a link', 'no URL of a page'
TO_REDDIT = 'link to Reddit'
NO_DATE, TOO_LATE, NO_KARMA, LOW_KARMA = 'no date', 'after the date', 'no karma', 'low karma'
SUBREDDIT, OVER_18 = 'blocked subreddit', 'over 18'
DOMAIN, MEDIA = 'blocked domain', 'images, video, music or other files'
_NAME = re.compile(r'[A-Za-z0-9_:-]{1,64}')
_DOMAIN_OF_TEXT = 'self.'


class Rules(NamedTuple):
  """Which links are kept.

  min_karma: least score of a submission.
  before: seconds since 1970; later submissions are left out.
  subreddits: frozenset of blocked names in lower case.
  domains: frozenset of blocked domains, see `webtext.is_within`.
  over_18: whether submissions with this mark are kept.
  media: whether links to media are kept.
  """
  min_karma: int
  before: int
  subreddits: frozenset
  domains: frozenset
  over_18: bool
  media: bool


class Link(NamedTuple):
  """A link of one submission or, in `link_files`, of several."""
  url: str          # canonical
  karma: int        # the largest of the submissions
  created: int      # seconds since 1970, of the first submission
  subreddit: str    # of the first submission; '' if it has no valid name
  submissions: int = 1


def seconds(date):
  """Return the seconds from 1970 to the beginning of a day, YYYY-MM-DD, in UTC; InputError if it is none."""
  try:
    return calendar.timegm(datetime.date.fromisoformat(date).timetuple())
  except ValueError:
    raise InputError(f'--before={date} must be a date, YYYY-MM-DD') from None


def subreddit_name(text):
  """Return the name of a subreddit in lower case: `r/NAME`, `/r/NAME/` or `NAME`."""
  return text.strip().strip('/').lower().removeprefix('r/')


def read(line, rules):
  """Return (Link, '') of a line of a dump, or (None, why it has none).

  Args:
    line: bytes.
    rules: Rules.
  """
  try:
    row = bounded.parse(line)
  except ValueError:
    return None, DAMAGED
  if not isinstance(row, dict):
    return None, DAMAGED
  written = row.get('url')
  if row.get('is_self') is True or _text(row, 'domain').startswith(_DOMAIN_OF_TEXT):
    return None, SELF
  if isinstance(written, str) and written.startswith(('/r/', '/user/', '/u/')):
    return None, TO_REDDIT
  url = urls.canonical(_unescaped(written)) if isinstance(written, str) else ''
  if not url:
    return None, NO_URL
  host = urls.host_of(url)
  if webtext.is_within(host, REDDIT):
    return None, TO_REDDIT
  created, karma = number(row.get('created_utc')), number(row.get('score'))
  subreddit = _text(row, 'subreddit')
  subreddit = subreddit if _NAME.fullmatch(subreddit) else ''
  refused = (
    (created is None, NO_DATE), (created is not None and created >= rules.before, TOO_LATE),
    (karma is None, NO_KARMA), (karma is not None and karma < rules.min_karma, LOW_KARMA),
    (subreddit.lower() in rules.subreddits, SUBREDDIT),
    (not rules.over_18 and row.get('over_18') is True, OVER_18),
    (webtext.is_within(host, rules.domains), DOMAIN))
  reason = next((reason for is_so, reason in refused if is_so), '')
  if not reason and not rules.media and media.is_media(url):
    reason = MEDIA
  return (None, reason) if reason else (Link(url, karma, created, subreddit), '')


def number(value):
  """Return an integer, from a number or its text; None if it is none."""
  if isinstance(value, bool) or not isinstance(value, int | float | str):
    return None
  try:
    return int(value) if isinstance(value, int) else int(float(value))
  except (ValueError, OverflowError):  # of text, of infinity, of NaN
    return None


def _text(row, name):
  value = row.get(name)
  return value if isinstance(value, str) else ''


def _unescaped(url):
  """Return a URL with the characters that Reddit escapes as HTML."""
  return url.replace('&lt;', '<').replace('&gt;', '>').replace('&amp;', '&')
