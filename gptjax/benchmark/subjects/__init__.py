"""The subjects of the benchmark, one module each.

  attention        Accuracy and speed of each attention kernel
  check            Accuracy of the training step on this device
  clean            CPU time of `--clean=webtext` per MB of text, compared with another version
  core             CORE compared with transformers, one example at a time, interleaved
  data             Speed of preparing and of reading a corpus, compared with the tokenizer
  evaluate         Zero-shot scoring compared with lm-evaluation-harness, interleaved in one run
  finetune         Fine-tuning speed with bucketed batches and with padding to n_ctx
  generate         Speed of generation compared with transformers, interleaved
  near_duplicates  Recall of `--clean=webtext` for pairs of similar documents
  overlap          Speed and memory of building the filter of the overlap study
  profile          Time per component of a training step
  recipes          The modern recipe compared with GPT-2 and AdamW, by loss
  scaling          Weak scaling: the cost of a step per device as devices are added
  start            Seconds from the command to its first logged step
  train            Training speed compared with PyTorch, interleaved in one run
  variants         Training speed under single changes of the config
"""
