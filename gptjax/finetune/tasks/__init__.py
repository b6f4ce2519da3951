"""The tasks of GPT-1 (sections 4.2 and 4.3), and tasks declared in a config.

  declared     Tasks declared in a config file: `config.finetune.own_tasks`, plain values that `config.json`
               stores.
  examples     Labelled examples: checked texts and labels from TensorFlow Datasets, TSV or JSON lines.
  metrics      The metrics of GPT-1's tasks, as fractions: 1 is perfect (the papers print per cent).
  published    The supervised tasks of GPT-1 (sections 4.2 and 4.3), each a declaration.
  story_cloze  Story Cloze's CSV files and the split of GPT-1's released code.
  text_files   Records of TSV, CSV and JSON lines.
  transforms   Token sequences of an example (section 3.3, Figure 1), with start, delimiter and end tokens.
"""
