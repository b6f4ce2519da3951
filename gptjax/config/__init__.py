"""Config files and flags, and the resolved config that is stored in a workdir.

  command_line  The flags of commands that take a config.
  extension     Extending a run: `train.steps` (or `train.epochs`) and `eval.limit` may grow when it is
                resumed.
  field_names   Messages about names that are no fields: the nearest field, or what an option of nanoGPT is
                here.
  files         Config files: find and run them, with errors of one line.
  job_flags     The flags of `gptjax.main` in addition to --config: workdir, processes, predictions; and its
                help.
  memory        A lower bound of the memory of a run, checked before anything is compiled.
  resolve       Resolve a config: fill in derived fields, check it, and store it in the workdir.
  resume        Config fields of a resumed run: stored values are restored unless fields are set explicitly.
"""
