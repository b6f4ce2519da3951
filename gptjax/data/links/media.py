"""Sites and endings of names whose pages have no text: images, video, music, archives, programs.

The paper does not mention them, but a text extractor finds nothing there, so a crawler need not fetch them.
`--keep_media` keeps them.
"""

from gptjax.data.clean import webtext
from gptjax.data.links import urls

SITES = frozenset((
  # images
  'imgur.com', 'minus.com', 'photobucket.com', 'tinypic.com', 'imageshack.us', 'postimg.org', 'postimg.cc',
  'prntscr.com', 'gyazo.com', 'puu.sh', 'flickr.com', 'flic.kr', 'instagram.com', 'giphy.com', 'gfycat.com',
  'redgifs.com', 'pbs.twimg.com', 'i.4cdn.org', 'qkme.me', 'quickmeme.com', 'memegenerator.net',
  'livememe.com', 'sli.mg', 'ibb.co', 'makeameme.org', 'imgflip.com', 'pinterest.com', 'pinimg.com',
  # video and music
  'youtube.com', 'youtu.be', 'vimeo.com', 'dailymotion.com', 'liveleak.com', 'streamable.com', 'vid.me',
  'vine.co', 'twitch.tv', 'oddshot.tv', 'plays.tv', 'gifs.com', 'gifyoutube.com', 'soundcloud.com',
  'spotify.com', 'bandcamp.com', 'mixcloud.com', 'worldstarhiphop.com'))
ENDINGS = (
  '.jpg', '.jpeg', '.jpe', '.png', '.gif', '.gifv', '.webp', '.bmp', '.svg', '.tif', '.tiff', '.ico',
  '.mp4', '.webm', '.avi', '.mov', '.mkv', '.wmv', '.flv', '.m4v', '.mp3', '.ogg', '.wav', '.flac', '.m4a',
  '.swf', '.pdf', '.zip', '.rar', '.7z', '.gz', '.tar', '.bz2', '.exe', '.apk', '.dmg', '.iso', '.torrent')


def is_media(url):
  """Return whether a canonical URL leads to a file or a site without text."""
  return urls.path_of(url).lower().endswith(ENDINGS) or webtext.is_within(urls.host_of(url), SITES)
