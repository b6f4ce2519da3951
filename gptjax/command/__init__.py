"""Code that all commands share: start-up, flags, streams, progress bars, signals.

  background  Work in a thread of its own, for which the process does not wait when it ends.
  bars        Progress bars: tqdm's on a terminal, elsewhere a line every 30 seconds.
  colors      Colours on terminals, by termcolor: headings of help, warnings, the marks of `gptjax doctor`.
  early       Help, the version, and calls without arguments, handled before any large import.
  figures     Matplotlib figures, drawn by its Agg backend whatever the environment selects.
  flag_types  Types of numeric flags, each with a domain.
  parsers     The flags of each command, in modules that import nothing large.
  run         The main function of commands: flags, and errors of one line.
  shutdown    Signals that stop a process: SIGTERM, Ctrl-C (SIGINT), SIGHUP and SIGUSR1.
  spelling    How the user called the command: `gptjax generate` or `python -m gptjax.generate`.
  startup     The first calls of every command, before any large import.
  streams     Standard output and standard error of a command; errors there do not end a run.
"""
