"""Compressed files: members, padding, limits of memory, damage; the judges are Python's own modules."""

import bz2
import contextlib
import gzip
import io
import lzma
import random

import fsspec
import hypothesis
import pytest
from hypothesis import strategies as st
from source_files import COMPRESSED, compress, problems, read

from gptjax.data.sources import decompression, file_access
from gptjax.errors import InputError

WORDS = ' '.join(f'{i * i:x}' for i in range(9000)).encode()


def content(path):
  with file_access.open_bytes(str(path)) as file:
    return file.read()


@hypothesis.given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.sampled_from(COMPRESSED),
                  st.integers(1, 50), st.integers(1, 50))
@hypothesis.settings(deadline=None, max_examples=150)
def test_members_follow_each_other_whatever_the_size_of_a_read(tmp_path_factory, parts, suffix, small, large):
  path = tmp_path_factory.mktemp('members') / f'a{suffix}'
  path.write_bytes(b''.join(compress(part, suffix) for part in parts))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(decompression, 'DECOMPRESSED_CHUNK', small)
    patch.setattr(decompression, 'COMPRESSED_CHUNK', large)
    assert content(path) == b''.join(parts)


@pytest.mark.parametrize('suffix, options', [
  ('.bz2', [{'compresslevel': level} for level in (1, 9)]),
  ('.xz', [{'preset': preset} for preset in (0, 9 | lzma.PRESET_EXTREME)] + [
    {'check': check} for check in (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_SHA256)] + [
    {'filters': [{'id': lzma.FILTER_X86}, {'id': lzma.FILTER_LZMA2, 'preset': 6}]}])])
def test_all_levels_and_checks(tmp_path, suffix, options):
  function = bz2.compress if suffix == '.bz2' else lzma.compress
  (tmp_path / f'a{suffix}').write_bytes(b''.join(function(WORDS, **each) for each in options))
  assert content(tmp_path / f'a{suffix}') == WORDS * len(options)


@pytest.mark.parametrize('suffix', ['.gz', '.bz2', '.xz'])
def test_zeros_may_follow_a_member(tmp_path, suffix):
  (tmp_path / f'a{suffix}').write_bytes(compress(b'one', suffix) + bytes(8) + compress(b'two', suffix)
                                       + bytes(4))
  assert content(tmp_path / f'a{suffix}') == b'onetwo'


@pytest.mark.parametrize('suffix', COMPRESSED)
def test_every_cut_is_damage(tmp_path, suffix):
  """Also one in the second member, and a file of no bytes; the text before it is returned."""
  first, second = compress(b'one\n', suffix), compress(b'two\n' * 500, suffix)
  path = tmp_path / f'a{suffix}'
  for size in range(len(first) + len(second)):
    path.write_bytes((first + second)[:size])
    found = b''
    try:
      with file_access.open_bytes(str(path)) as file:
        while data := file.raw.read(100):
          found += data
    except decompression.DamagedFile as error:
      assert str(error).startswith('damaged or cut short: ')
    else:
      assert size == len(first)
    assert (b'one\n' + b'two\n' * 500).startswith(found)


@pytest.mark.parametrize('suffix', COMPRESSED)
def test_what_follows_a_member_and_is_none_is_damage(tmp_path, suffix):
  path = tmp_path / f'a.txt{suffix}'
  path.write_bytes(compress(b'one', suffix) + b'garbage')
  (_, problem), = problems(read(f'text:{path}'))
  assert problem.startswith('damaged or cut short: ')


@pytest.mark.parametrize('suffix', ['.bz2', '.xz', '.gz'])
def test_damage_anywhere_is_damage_or_leaves_the_text_as_it_is(tmp_path, suffix):
  draw, whole, path = random.Random(2), compress(WORDS[:3000], suffix), tmp_path / f'a{suffix}'
  for _ in range(200):
    data = bytearray(whole)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    with contextlib.suppress(decompression.DamagedFile, InputError):
      assert content(path) == WORDS[:3000]


def test_a_dictionary_that_needs_too_much_memory_is_refused_and_not_left_out(tmp_path):
  for size, refused in ((decompression.MAX_WINDOW, False), (decompression.MAX_WINDOW * 2, True)):
    data = lzma.compress(b'{"text": "a"}', filters=[{'id': lzma.FILTER_LZMA2, 'dict_size': size}])
    (tmp_path / 'a.jsonl.xz').write_bytes(data)
    if not refused:
      assert read(f'jsonl:{tmp_path}/a.jsonl.xz')[0].text == 'a'
    else:
      with pytest.raises(InputError, match=r'a\.jsonl\.xz is compressed with a dictionary of more than'):
        read(f'jsonl:{tmp_path}/a.jsonl.xz')


@pytest.mark.parametrize('suffix', ['.bz2', '.xz'])
def test_much_content_in_few_bytes_is_read_in_chunks(tmp_path, suffix):
  (tmp_path / f'a{suffix}').write_bytes(compress(bytes(1 << 24), suffix))
  assert (tmp_path / f'a{suffix}').stat().st_size < 5000
  with file_access.open_bytes(str(tmp_path / f'a{suffix}')) as file:
    sizes = [len(data) for data in iter(lambda: file.raw.read(1 << 20), b'')]
  assert sum(sizes) == 1 << 24 and max(sizes) <= decompression.DECOMPRESSED_CHUNK


@pytest.mark.parametrize('suffix', COMPRESSED)
def test_files_elsewhere(suffix):
  with fsspec.filesystem('memory').open(f'/packed/a{suffix}', 'wb') as file:
    file.write(compress(b'one\n', suffix) * 2)
  assert content(f'memory://packed/a{suffix}') == b'one\n' * 2


def test_the_judges_agree():
  """Python's readers, where they read all members."""
  data = {'.gz': gzip.open, '.bz2': bz2.BZ2File, '.xz': lzma.LZMAFile}
  for suffix, reader in data.items():
    packed = compress(WORDS, suffix) + compress(b'x', suffix)
    kind = decompression.format_of(f'a{suffix}')
    ours = io.BufferedReader(decompression.Decompressed(kind, io.BytesIO(packed), 'a')).read()
    assert ours == reader(io.BytesIO(packed)).read() == WORDS + b'x'
