"""The documentation site: pip install -e '.[docs]' && sphinx-build -W docs docs/_build

The theme is that of the Flax and Optax sites. The build downloads nothing; the reference of fields, commands
and functions is made from the code.
"""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / '_extensions')]
os.environ['JAX_PLATFORMS'] = 'cpu'  # autodoc imports the modules; none of them starts a device
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import gptjax  # noqa: E402

project = 'gptjax'
author = 'the gptjax authors'
copyright = author
version = release = gptjax.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.viewcode', 'docstrings', 'sphinx.ext.napoleon',
              'sphinx_copybutton', 'generated_pages']
exclude_patterns = ['_build', 'benchmarks']
default_role = 'code'
smartquotes = False  # they would turn the dashes of flags into others
pygments_style = 'default'

myst_enable_extensions = ['colon_fence', 'deflist', 'dollarmath']
myst_heading_anchors = 4

autodoc_mock_imports = ['lm_eval']  # of an extra
autodoc_member_order = 'bysource'
autodoc_preserve_defaults = True
autodoc_typehints = 'none'
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # docstrings state dtypes and shapes

copybutton_prompt_text = r'\$ |>>> |\.\.\. '
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = '\\'
copybutton_here_doc_delimiter = 'EOF'

toc_object_entries_show_parents = 'hide'

html_theme = 'sphinx_book_theme'
html_title = 'gptjax'
html_copy_source = False
html_static_path = ['_static']
html_css_files = ['narrow.css']
html_theme_options = {'show_toc_level': 2, 'use_download_button': False, 'home_page_in_toc': False,
                      'navbar_persistent': []}  # the sidebar has the search
