"""Git LFS pointers: small text files that stand in for large ones in a clone without `git lfs`."""

from gptjax.errors import InputError

HEAD = b'version https://git-lfs.github.com/spec/'


def refuse_pointer(path):
  """Raise InputError if a file is a Git LFS pointer; an absent file is accepted."""
  if not path.is_file():
    return
  with open(path, 'rb') as file:
    if file.read(len(HEAD)) == HEAD:
      raise InputError(f'{path} is a Git LFS pointer, not the file itself: `git lfs pull` in its folder '
                       'fetches the real one')
