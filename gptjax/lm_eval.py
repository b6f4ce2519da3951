"""A gptjax model for lm-evaluation-harness (pip install 'gptjax[lm-eval]'), which only this module imports.

    import lm_eval
    from gptjax.lm_eval import HarnessModel
    lm_eval.simple_evaluate(model=HarnessModel('gpt2-xl', batch_size=16), tasks=['lambada_openai'])

or on the command line, with the arguments of the harness:

    python -m gptjax.lm_eval run --model gptjax --model_args source=gpt2-xl --tasks lambada_openai
"""

if __name__ == '__main__':
  from gptjax.command import startup
  from gptjax.parallel import jax_settings
  startup.begin('lm_eval', 'stopped', stdout_is_result=True)
  jax_settings.begin('lm_eval')

import sys

import jax

import gptjax
from gptjax import errors
from gptjax.command import run
from gptjax.data.tokenizers import special, tokenizer_files
from gptjax.errors import InputError
from gptjax.evaluate.scoring import scores as scoring
from gptjax.generate import generation, kv_cache
from gptjax.generate.sampling import SamplingOptions
from gptjax.generate.streaming import GeneratedText
from gptjax.parallel import sharding

try:
  from lm_eval import utils
  from lm_eval.api.model import TemplateLM
  from lm_eval.api.registry import register_model
except ModuleNotFoundError as missing:
  NEEDED = ("gptjax.lm_eval needs lm-evaluation-harness: pip install 'gptjax[lm-eval]' "
            f'(the module {missing.name} is missing)')
  if __name__ == '__main__':
    sys.exit(errors.print_line(InputError(NEEDED), 'lm_eval'))
  raise ModuleNotFoundError(NEEDED, name=missing.name) from None

# The first of these that a task sets counts.
MAX_TOKENS_FIELDS = ('max_gen_toks', 'max_new_tokens', 'max_tokens', 'max_completion_tokens')
MAX_GEN_TOKS = 256  # the harness's default


@register_model('gptjax')
class HarnessModel(TemplateLM):
  """The model interface of lm-evaluation-harness.

  Contexts are truncated on the left, and documents are divided into windows, as in the harness's Hugging Face
  model. A Llama's start-of-text token precedes every context, and twice every whole document, as there. No
  part of a text is a special token, except those in `special_tokens`. The harness's model encodes all of
  them: `special_tokens=all` reproduces its scores for documents with a literal `<|endoftext|>`.

  Args:
    source: path as for `gptjax.load`, or the (model, tokenizer) that it returns.
    pretrained: the same, under the harness's name for it.
    batch_size: sequences of full length per batch; batches of shorter sequences are larger.
    seed: seed of tasks that sample.
    special_tokens: names of special tokens that a text may contain, separated by commas, or `all`.
    device, max_batch_size: arguments of the harness that are ignored.

  Raises:
    ValueError: there is no tokenizer, or an error of `gptjax.load`.
  """

  def __init__(self, source=None, batch_size=16, seed=0, special_tokens='', device=None,
               max_batch_size=None, *, pretrained=None):
    super().__init__()
    del device, max_batch_size
    if (source is None) == (pretrained is None):
      raise InputError('give the model either as source= or as pretrained=: a path as for gptjax.load')
    source = pretrained if source is None else source
    model, self._tokenizer = source if isinstance(source, tuple) else gptjax.load(source)
    if self._tokenizer is None:
      raise InputError(tokenizer_files.missing_message('the folder of the weights'))
    self._names = special.resolve_names(self._tokenizer, [name for name in special_tokens.split(',') if name])
    self._mesh = sharding.ensure_mesh()
    self._model = scoring.prepare_model(model)
    self.batch_size = generation.DOMAINS['batch_size'].parse('batch_size', str(batch_size))
    self._seed = generation.DOMAINS['seed'].parse('seed', str(seed))

  @property
  def max_length(self):
    return self._model.n_ctx

  @property
  def max_gen_toks(self):
    return MAX_GEN_TOKS

  @property
  def tokenizer_name(self):
    return f'{self._tokenizer.name}-{self._tokenizer.digest[:12]}'

  @property
  def eot_token_id(self):
    return self._tokenizer.end_of_text

  @property
  def prefix_token_id(self):
    if self._tokenizer.start_of_text is None:
      raise InputError(f'the tokenizer {self._tokenizer.name} has no start-of-text token, which is needed to '
                       'score a text without a context')
    return self._tokenizer.start_of_text

  def tok_encode(self, string, add_special_tokens=None, **kwargs):
    del kwargs
    ids = special.encode(self._tokenizer, self._names, string)
    return (ids if add_special_tokens is False else special.after_prefix(self._tokenizer, ids)).tolist()

  def _loglikelihood_tokens(self, requests, disable_tqdm=False, **kwargs):
    """Return [(log probability in nats, whether greedy)] of [(strings, context tokens, tokens to score)]."""
    del kwargs
    scoring_requests = [self._scoring_request(*request) for request in requests]
    with jax.set_mesh(self._mesh):
      scores = scoring.score_requests(self._model, scoring_requests, self.batch_size, name='loglikelihood',
                                      show_progress=not disable_tqdm)
    results = [(score.log_prob, score.is_greedy) for score in scores]
    for (strings, *_), result in zip(requests, results):
      if strings is not None:
        self.cache_hook.add_partial('loglikelihood', strings, result)
    return results

  def _scoring_request(self, strings, before, target):
    n_ctx = self._model.n_ctx
    if not 1 <= len(target) <= n_ctx:
      context, continuation = strings or ('', '')
      raise InputError(f'the continuation {continuation[:60]!r} of the request {context[-60:]!r} has '
                       f'{len(target)} tokens: it cannot be scored in a context of {n_ctx}; remove the '
                       'document from the task')
    ids = [*before, *target][-n_ctx - 1:]
    return scoring.Request(ids, len(ids) - len(target))

  def loglikelihood_rolling(self, requests, disable_tqdm=False):
    """Return [log probability in nats of a whole document]; each token is scored once."""
    strings = [request.args[0] for request in requests]
    windows = [(i, None, *utils.make_disjoint_window(window)) for i, string in enumerate(strings)
               for window in utils.get_rolling_token_windows(
                 self.tok_encode(string), self.prefix_token_id, self.max_length, 1)]
    totals = [0.0] * len(strings)
    scored = self._loglikelihood_tokens([window[1:] for window in windows], disable_tqdm=disable_tqdm)
    for (i, *_), (value, _) in zip(windows, scored, strict=True):
      totals[i] += value
    for string, total in zip(strings, totals):
      self.cache_hook.add_partial('loglikelihood_rolling', (string,), total)
    return totals

  def generate_until(self, requests, disable_tqdm=False):
    """Return [generated text after a context, up to a stop string of the task]."""
    del disable_tqdm  # the progress bar is only shown on a terminal
    groups = {}
    for i, request in enumerate(requests):
      groups.setdefault(repr(sorted(request.args[1].items())), []).append(i)
    with jax.set_mesh(self._mesh):
      model = kv_cache.prepare_for_decoding(self._model)
    results = [None] * len(requests)
    for rows in groups.values():
      stop, max_tokens, choice = self._options(dict(requests[rows[0]].args[1]))
      prompts = [self.tok_encode(requests[row].args[0]) or [self.prefix_token_id] for row in rows]
      texts = [GeneratedText(self._tokenizer, prompt[max_tokens - self.max_length:], 0, max_tokens, stop)
               for prompt in prompts]
      with jax.set_mesh(self._mesh):
        generation.generate_texts(model, self._tokenizer, texts, choice, self._seed, 'stop', self.batch_size,
                                  None)
      for row, text in zip(rows, texts):
        results[row] = text.text
        self.cache_hook.add_partial('generate_until', requests[row].args, text.text)
    return results

  def _options(self, options):
    """Return (stop strings, maximum tokens, SamplingOptions) for the generation_kwargs of a task."""
    until = options.pop('until', None) or []
    limits = [value for value in (options.pop(name, None) for name in MAX_TOKENS_FIELDS) if value is not None]
    max_tokens = MAX_GEN_TOKS
    if limits:
      max_tokens = generation.DOMAINS['max_tokens'].parse('max_gen_toks of a task', str(limits[0]))
    temperature, top_k, top_p = (options.pop(name, None) for name in ('temperature', 'top_k', 'top_p'))
    do_sample = options.pop('do_sample', bool(temperature))
    temperature = (1.0 if temperature is None else generation.DOMAINS['temperature'].parse(
      'temperature of a task', str(temperature))) if do_sample else 0.0
    if options:
      raise InputError(f'generation_kwargs {", ".join(sorted(options))} of a task are not supported')
    if not max_tokens < self.max_length:
      raise InputError(f'max_gen_toks = {max_tokens} leaves no room for a prompt in a context of '
                       f'{self.max_length}: request fewer')
    stop = [string for string in ([until] if isinstance(until, str) else until) if string]
    generation.check_options([], 1, max_tokens, temperature, top_k, top_p, self._seed, stop, 'stop',
                             self.batch_size)
    n_vocab = min(self._model.n_vocab, self._tokenizer.n_vocab)
    return stop, max_tokens, SamplingOptions(temperature or None, top_k or None,
                                             None if top_p == 1 else top_p, n_vocab)


if __name__ == '__main__':
  from lm_eval.__main__ import cli_evaluate
  def evaluate(_):
    jax_settings.check_devices()
    return cli_evaluate()
  run.run(evaluate, 'lm_eval')
