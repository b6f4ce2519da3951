"""Text for people: messages, names that were meant, and text of others made safe to show.

  markdown     Markdown in which text of others is only text: no HTML, link, picture or formula comes out of
               it.
  printable    Text that a terminal shows as it is: characters that would act on the terminal are escaped.
  redacted     URLs without what gives access: user names with passwords, signatures, tokens and keys.
  text_checks  Text that cannot be encoded is refused where it is read, and text that is printed never ends
               a command.
  words        Small parts of messages: numbers with their nouns, and the name that somebody may have meant.
"""
