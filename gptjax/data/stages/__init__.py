"""The stages of `prepare`. Each consists of independent tasks, which may run on any machines, in any order.

    judge      for each part of the sources: test sets, filters, and keys for finding
               duplicates                                               (with --clean or --exclude)
    mark       for each range of keys: pairs of a document and an earlier one            (with --clean,
               unless its filters of duplicates are disabled)
    tokenizer  one task: the tokenizer, trained if requested, and what is held out
    encode     for each part: the tokens of the documents that are kept
    join       for each file of the corpus: its content; the last task writes the manifest

A task reads whole results of the stages before and writes whole files into `OUT/work`, whose content depends
on the sources and the settings alone. So a task can be killed and repeated, also by two processes at once,
and the corpus is byte for byte the same, however the work is divided. `run` has the list of the stages.

The machinery also serves commands that fill another folder than a corpus: `webtext_links` and `languages`.

  beam         Runs the tasks of a stage on Apache Beam.
  excluded     The test sets of `prepare --exclude`: their n-grams.
  encode_part  The stage `encode`.
  folder       A folder, other than a corpus, that stages fill: links, or counts of languages.
  job          What all tasks of a corpus need to know.
  join         The stage `join`.
  judge        The stage `judge`.
  lists        The lists of a recipe, in the work folder.
  mark         The stage `mark`.
  match        Finds the n-grams of test sets in the documents of a part, for the stage `judge`.
  parts        Divides the sources into parts, which are read independently of each other.
  run          Runs stages: all, on any engine, or some tasks of one.
  segment_keys The keys of a segment of documents, with which `mark` finds duplicates.
  tokenizer    The stage `tokenizer`.
  verdicts     Which documents are removed, from the results of `judge` and `mark`.
  work         The folder `OUT/work`: records and arrays.
"""
