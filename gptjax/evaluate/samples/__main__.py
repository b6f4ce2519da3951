"""Writes samples as in the appendix of the GPT-2 paper, by top-k 40; `gptjax report` shows them.

    python -m gptjax.evaluate.samples contexts --workdir=runs/small --workdir=runs/xl \\
        --contexts=corpora/webtext

The kinds of samples:

    contexts  Tables 7 to 11: 768 tokens from the beginnings of random held-out documents of a corpus, each
              continued by 256 tokens by every model
    several   Table 12: several completions, of 128 tokens, of one context of 384 tokens
    best-of   Table 13: ten samples for one prompt, with their log probabilities, of which one is marked:
              that which --choose gives, else the one with the highest log probability per token
    recital   section 8.2: how far a model recites known texts after their first words, greedily, by top-k and
              from all tokens

A workdir is that of any run: the weights are its newest checkpoint, or those that it evaluates. Each model's
samples are in WORKDIR/samples/KIND.jsonl. A command that was stopped continues with the samples that are
missing, and a larger --number adds some.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.samples import parser
  from gptjax.parallel import jax_settings
  startup.begin('samples', 'stopped; run the same command again to continue')
  early.handle_help(parser, 'samples')
  jax_settings.begin('samples', own_cache=True)

from typing import Any, NamedTuple

from flax import nnx

import gptjax
from gptjax.command import run
from gptjax.command.parsers.samples import NUMBERS, parser
from gptjax.data.tokenizers import tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.run import weights_digest
from gptjax.evaluate.samples import contexts, public_texts, recital, store
from gptjax.evaluate.samples.continuations import Decoding, Prompt, write
from gptjax.evaluate.scoring.scores import matmul_precision
from gptjax.generate import generation, kv_cache
from gptjax.kernels import cpu
from gptjax.parallel import jax_settings, sharding
from gptjax.pretrained import open_source
from gptjax.storage import ownership
from gptjax.storage.files import access, paths, run_config
from gptjax.text.words import plural

OF_KINDS = {'contexts': (store.CONTEXTS, store.SEVERAL), 'split': (store.CONTEXTS, store.SEVERAL),
            'context_tokens': (store.CONTEXTS, store.SEVERAL),
            'tokens': (store.CONTEXTS, store.SEVERAL, store.BEST_OF), 'choose': (store.BEST_OF,),
            'prompt': (store.BEST_OF,), 'text': (store.RECITAL,), 'prompt_words': (store.RECITAL,)}


class Source(NamedTuple):
  """A model that writes samples: its workdir, where its weights are, and what it takes."""
  workdir: Any
  weights: str
  n_ctx: int
  tokenizer: Any


def main(arguments):
  flags = parser().parse_args(arguments)
  _check_flags(flags)
  if flags.choose is not None:
    for workdir in flags.workdir:
      path = store.path_of(paths.location(workdir), store.BEST_OF)
      store.choose(path, flags.choose)
      print(f'{path}: sample {flags.choose} is marked')
    return
  _use_devices(flags)
  sources, number = list(map(_source, flags.workdir)), flags.number or NUMBERS[flags.kind]
  if flags.kind == store.RECITAL:
    make_prompts, decodings = _recital(flags), recital.decodings(number, flags.top_k)
  elif flags.kind == store.BEST_OF:
    make_prompts, decodings = _best_of(flags), [Decoding(number, 1.0, flags.top_k)]
  else:
    several = flags.kind == store.SEVERAL
    make_prompts = _contexts(flags, sources, 1 if several else number)
    decodings = [Decoding(number if several else 1, 1.0, flags.top_k)]
  for source in sources:
    _write(source, flags, make_prompts, decodings)


def _check_flags(flags):
  """Raise InputError for flags that are not of this kind, or missing."""
  for name, kinds in OF_KINDS.items():
    if getattr(flags, name) is not None and flags.kind not in kinds:
      raise InputError(f'--{name} is not of {flags.kind}, but of {" and ".join(kinds)}: remove it')
  if flags.kind in OF_KINDS['contexts'] and not flags.contexts:
    raise InputError(f'{flags.kind} needs --contexts=FOLDER, a corpus of `gptjax prepare`: for instance '
                     'that of the training, the field data.corpus of WORKDIR/config.json')


def _use_devices(flags):
  cpu.configure_devices()
  jax_settings.check_devices()
  jax_settings.use_cache_of_flag(flags.compilation_cache)


def _source(workdir):
  """Return the Source of a workdir (raises InputError if it is not one, or has no tokenizer)."""
  workdir = paths.location(workdir)
  if not access.is_file(workdir / 'config.json'):
    raise InputError(f'{workdir} is not a workdir: it has no config.json of a run')
  weights = str(workdir)
  if not access.is_folder(workdir / 'checkpoints'):
    weights = run_config.read(workdir / 'config.json')[0]['init_from']
  source = open_source(weights)
  if source.tokenizer is None:
    raise InputError(tokenizer_files.missing_message(weights))
  return Source(workdir, weights, source.fields['n_ctx'], source.tokenizer)


def _contexts(flags, sources, number):
  """Return a function of (model, tokenizer) that gives the Prompts of the contexts, the same for each."""
  n_ctx = min(source.n_ctx for source in sources)
  papers = contexts.PAPER_SEVERAL if flags.kind == store.SEVERAL else contexts.PAPER
  lengths = contexts.fitted(papers, n_ctx)
  lengths = contexts.Lengths(flags.context_tokens or lengths.context, flags.tokens or lengths.completion)
  if sum(lengths) > n_ctx:
    raise InputError(f'{lengths.context:,} tokens of context and {lengths.completion:,} of completion do not '
                     f'fit into {n_ctx:,}, the shortest context of the models: set --context_tokens and '
                     '--tokens')
  if lengths != papers:
    print(f'contexts of {plural(lengths.context, "token")}, completions of {lengths.completion:,} (the '
          f'paper: {papers.context} and {papers.completion})')
  corpus, found = contexts.read(flags.contexts, flags.split or 'validation', number, lengths, flags.seed)
  for source in sources:
    if source.tokenizer.digest != corpus.tokenizer['digest']:
      raise InputError(f'{flags.contexts} was prepared with the tokenizer {corpus.tokenizer["name"]}, '
                       f'{source.workdir} has another one: give a corpus of its tokens')
  return lambda model, tokenizer: [
    Prompt(one.title, tokenizer.decode(one.ids), one.ids, _continuation(tokenizer, one), lengths.completion)
    for one in found]


def _continuation(tokenizer, context):
  """Return the text that follows a context in its document, decoded together with it."""
  whole = tokenizer.decode([*context.ids, *context.continuation])
  return whole[len(tokenizer.decode(context.ids)):]


def _best_of(flags):
  prompt = flags.prompt or public_texts.UNICORNS
  title = 'given prompt' if flags.prompt else "the paper's prompt of Table 13"
  def prompts(model, tokenizer):
    ids, = generation.encode_prompts([prompt], tokenizer, model.n_ctx)
    return [Prompt(title, prompt, ids, '', min(flags.tokens or contexts.PAPER.completion,
                                               model.n_ctx + 1 - len(ids)))]
  return prompts


def _recital(flags):
  texts = {path: generation.read_prompt(path) for path in flags.text or ()} or public_texts.KNOWN
  return lambda model, tokenizer: recital.prompts(texts, flags.prompt_words or recital.PROMPT_WORDS, model,
                                                  tokenizer)


def _write(source, flags, make_prompts, decodings):
  sharding.ensure_mesh()
  model, tokenizer = gptjax.load(source.weights)
  weights = weights_digest(nnx.split(model)[1])[:16]
  prompts, model = make_prompts(model, tokenizer), kv_cache.prepare_for_decoding(model)
  path = store.path_of(source.workdir, flags.kind)
  with ownership.own_folder(path.parent), matmul_precision(model.dtype):
    samples = write(path, model, tokenizer, weights, prompts, decodings, flags.seed, flags.batch_size)
  print(f'{path}: {plural(len(samples), "sample")}')
  if flags.kind == store.RECITAL:
    for sample in samples:
      if not sample.temperature:
        found = recital.recited(sample.reference, sample.text)
        print(f'  {sample.title}: {found.exact:,} of {plural(found.words, "word")} recited greedily')


if __name__ == '__main__':
  run.run(main, 'samples')
