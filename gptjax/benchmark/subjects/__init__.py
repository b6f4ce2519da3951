"""What can be measured, one file each.

  attention        Each attention kernel, right and how fast
  check            Whether the step computes what it should on the device at hand
  data             Speed of preparing a corpus, beside the tokenizer alone, and of reading it
  evaluate         Zero-shot scoring beside lm-evaluation-harness, by turns in one run
  finetune         Examples a second of fine-tuning, bucketed and padded to n_ctx
  generate         Speed of generation beside that of transformers, interleaved
  near_duplicates  Which pairs of similar documents `--clean=webtext` finds
  overlap          Speed and memory of building the filter of the overlap study
  profile          Where the time of a training step goes
  recipes          Held-out loss of recipes at equal tokens, with their seeds' spread
  scaling          What a step costs each device as more are added
  start            Seconds from the command to its first step on record
  train            Training speed beside PyTorch's, interleaved in one run
  train_torch      What the benchmark compares with: the same GPT-2 in PyTorch, a plain module and that of
                   transformers.
  variants         What single changes of the config do to the speed of training
"""
