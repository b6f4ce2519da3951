"""Text for users: parts of messages, suggestions of names, and escaping of untrusted text.

  markdown     Markdown with untrusted text, which cannot create HTML, links, images or formulas.
  printable    Escapes control and bidirectional characters, which a terminal would interpret.
  redacted     Removes credentials from URLs: passwords, signatures, tokens and keys.
  text_checks  Checks that text is valid Unicode, and makes output streams accept any text.
  words        Parts of messages: plurals, and suggestions for misspelled names.
"""
