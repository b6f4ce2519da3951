"""From the config as written to the config as run, and what a workdir keeps of it.

  command_line  What the commands that take a config do with their flags.
  extension     Extending a run: `train.steps` (or `train.epochs`) and `eval.limit` may grow when it is
                resumed.
  files         Config files: found, run, and refused in one line where they are not what a config file must
                be.
  memory        Whether a model can fit the devices at all: arithmetic, before anything is built.
  resolve       From the config as written to the config as run: filled in, checked, and kept in the workdir.
  resume        Fields of a run that goes on: what its workdir has stored stands, unless something else is
                asked for.
"""
