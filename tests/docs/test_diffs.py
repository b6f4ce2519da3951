"""The changes of code that pages show apply to it: the lines that a diff has and removes are there, once."""

import markdown_pages as pages
import pytest

CODE = [path.read_text() for path in [*sorted((pages.ROOT / 'gptjax').rglob('*.py')),
                                      pages.ROOT / 'tests' / 'variants.py',
                                      pages.ROOT / 'tests' / 'torch_models.py']]
DIFFS = [pytest.param(block.body, id=f'{pages.name_of(path)}:{block.line}') for path in pages.paths()
         for block in pages.blocks(path.read_text()) if block.language == 'diff']


@pytest.mark.parametrize('diff', DIFFS)
def test_a_diff_of_a_page_applies_at_one_place(diff):
  lines = diff.splitlines(keepends=True)
  old = ''.join(line[1:] or '\n' for line in lines if not line.startswith('+'))
  assert old and sum(text.count('\n' + old) for text in CODE) == 1


def test_there_are_diffs():
  assert len(DIFFS) > 5
