"""The tasks of GPT-1 (sections 4.2 and 4.3), and those that a config declares.

  declared    Tasks that a config file declares: `config.finetune.own_tasks`, plain values that
              `config.json` keeps.
  examples    Labelled examples: from TensorFlow Datasets, TSV or JSON lines to texts and labels, all of
              them checked.
  metrics     The metrics of GPT-1's tasks, as fractions: 1 is perfect (the papers print per cent).
  published   The supervised tasks of GPT-1 (sections 4.2 and 4.3), each a declaration.
  transforms  From an example to token sequences (section 3.3, Figure 1), with start, delimiter and end
              tokens.
"""
