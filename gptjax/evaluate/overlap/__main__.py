"""The overlap of test sets with a training corpus (GPT-2, section 4): the 8-grams that they have in common.

    python -m gptjax.evaluate.overlap --train=corpora/webtext --workdir=runs/gpt2 \\
        --test=wikitext2=text:wiki.test.tokens --own=wikitext2=text:wiki.train.tokens

prints the share of each test set's 8-grams that are also in its own training split and in the training
corpus, and writes WORKDIR/overlap.json; the counts of each document are in WORKDIR/overlap/NAME.jsonl. A
source is KIND:WHERE as for `gptjax prepare`, or the folder of a corpus (its split train; for --test its
split validation).

--method=bloom, the default, is that of the paper: it builds a Bloom filter of the training text, in which any
test set can be looked up later, and measures its rate of false positives. A filter in WORKDIR/overlap, or in
--filters, is reused; an incomplete one is resumed. Filters of parts of a corpus that were built elsewhere,
with the same --capacity and --rate, are merged: --filter=A --filter=B. --method=exact
needs no filter: the 8-grams of the test sets are in memory, and the training text is read past them. It has
no false positives but those of 64-bit keys, of which none is expected, and the training text is read again
for other test sets.

A killed study goes on after the parts of the training text that are complete. Its stages can also be run one
by one, each by any number of tasks on machines that share the folder or, with --method=exact, the bucket: all
tasks of a stage, then those of the next (`fill` only with --method=bloom).

    for stage in read fill report; do
      srun --ntasks=100 sh -c "python -m gptjax.evaluate.overlap ... --stage=$stage --tasks=100 \\
        --task=\\$SLURM_PROCID"
    done

If WORKDIR is that of an evaluation, the examples of its tasks are looked up too, and their scores are shown
grouped by their overlap with the training corpus. --samples looks up samples of `gptjax samples contexts` and
the real continuations of their contexts, for the paper's Figure 5. GPT-1's tokenizer is lossy: if the
training corpus is stored as its tokens, each test text is encoded and decoded with it before the lookup.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.overlap import parser
  from gptjax.parallel import jax_settings
  startup.begin('overlap', 'stopped; run the same command again to continue')
  early.handle_help(parser, 'overlap')
  jax_settings.begin('overlap')

from gptjax.command import run
from gptjax.command.parsers.overlap import parser
from gptjax.evaluate.overlap.study import run_study


def main(arguments):
  flags = parser().parse_args(arguments)
  flags.separator = flags.separator.replace('\\n', '\n').replace('\\t', '\t')
  run_study(flags)


if __name__ == '__main__':
  run.run(main, 'overlap')
