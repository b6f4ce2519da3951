"""What all commands share: start-up, flags, streams, progress bars, signals.

  bars        Progress bars: on a terminal those of tqdm, elsewhere a line from time to time.
  figures     Figures of Matplotlib, drawn by its Agg whatever backend the environment or a notebook has
              chosen.
  flag_types  Types of numeric flags: each command states beside a flag which numbers it takes.
  run         What the commands of this package have in common: flags, and errors in one line.
  shutdown    Signals that stop a process: SIGTERM, Ctrl-C (SIGINT), SIGHUP and SIGUSR1.
  startup     What every command does first, before it imports anything large: what surrounds it must not
              end it.
  streams     Standard output and standard error of a command, which only tell of a run.
"""
