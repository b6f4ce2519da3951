"""Documents from web archives: the text of each HTML page (pip install 'gptjax[webtext]').

  html      Extracts text and title of a page.
  http      Reads a stored HTTP response: its status, type, and decoded body.
  pages     Documents from WARC files, one per page.
  records   Records of WARC files, also from a position in the middle of a file.
"""
