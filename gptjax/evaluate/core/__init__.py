"""CORE, the mean of 22 centred accuracies that measures "GPT-2 capability" (DCLM), and similar tasks.

  bundle          The published data of CORE: the bundle with its settings, or a folder of its JSON lines.
  counterfactual  The control of a score: each item with the readable part of another one.
  evaluation      Evaluation of a task: few-shot prompts, scores, accuracy, and the counterfactual control.
  multiple_choice  HellaSwag as llm.c and lm-evaluation-harness score it; ARC, PIQA, BoolQ and BLiMP without
                  examples.
  prompts         Few-shot prompts, and the draw of the examples in them.
  summary         The CORE figure: the mean of the centred accuracies, if all tasks were run.
  tasks           The 22 tasks of CORE: type, file, few-shot examples, delimiter and baseline of each.
  types           The three types of tasks: what is scored of the prompts, and when an answer is correct.
"""
