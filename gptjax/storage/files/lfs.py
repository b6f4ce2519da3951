"""Git LFS pointers: small text files that stand in for large ones in a clone without `git lfs`."""

from gptjax.errors import InputError

HEAD = b'version https://git-lfs.github.com/spec/'


def refuse_pointer(path):
  """Raise InputError if a file is a Git LFS pointer; an absent file is accepted."""
  if path.is_file():
    with open(path, 'rb') as file:
      refuse_content(path, file.read(len(HEAD)))


def refuse_content(path, content):
  """Like `refuse_pointer` for the first bytes of a file."""
  if content.startswith(HEAD):
    raise InputError(f'{path} is a Git LFS pointer, not the file itself: `git lfs pull` in its folder '
                     'fetches the real one')
