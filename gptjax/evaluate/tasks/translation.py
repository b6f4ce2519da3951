"""Translation after a few examples: WMT-14 English and French (GPT-2 paper, section 3.7)."""

import functools

from gptjax.errors import InputError
from gptjax.evaluate.scoring.evaluated_model import Task, TaskResult
from gptjax.evaluate.scoring.generation import encode_prompt, generate_with_journal
from gptjax.evaluate.texts import schema, sources
from gptjax.evaluate.texts.sentences import sentences
from gptjax.text.words import plural

NAMES = {'en': 'English', 'fr': 'French'}
URL = 'https://www.statmt.org/wmt14/test-full.tgz (as plain text)'
SENTENCES = schema.Schema('sentence pairs', {'en': schema.text(), 'fr': schema.text()}, count=3003)
TOKENS = 160  # of a translation; a French word takes two or three

# Few-shot examples; the paper prints none. News-like sentences of different lengths, none from the data set.
EXAMPLE_PAIRS = (
  ('The weather will be fine tomorrow.', 'Il fera beau demain.'),
  ('The two companies signed an agreement on Monday.', 'Les deux entreprises ont signé un accord lundi.'),
  ('How much does a ticket cost?', 'Combien coûte un billet ?'),
  ('She has lived in this small town for more than twenty years.',
   'Elle vit dans cette petite ville depuis plus de vingt ans.'),
  ('According to the minister, the new law will come into force in January.',
   'Selon le ministre, la nouvelle loi entrera en vigueur en janvier.'),
)


def read(source, target, data):
  """Return [(sentence, its translation)] of newstest2014, 3,003 pairs."""
  require_package('sacrebleu')
  paths = [sources.find_file(data, f'newstest2014.{language}') for language in (source, target)]
  if all(paths):
    texts = [sources.read_text(path, data.note).removesuffix('\n').split('\n') for path in paths]
    if len(texts[0]) != len(texts[1]):
      lines = plural(len(texts[0]), 'line')
      raise InputError(f'{paths[0]} has {lines}, {paths[1]} has {len(texts[1])}: they must be translations '
                       'line by line')
    for number, pair in enumerate(zip(*texts, strict=True), 1):
      where = f'{paths[0]}:{number} and {paths[1]}:{number}'
      schema.check_record(SENTENCES, dict(zip((source, target), pair, strict=True)), where)
    schema.check_count(SENTENCES, len(texts[0]), 0, f'{paths[0]}', data.note)
    return data.limited(list(zip(*texts, strict=True)))
  records = sources.read_tfds(data, 'wmt14_translate/fr-en', 'test', SENTENCES)
  if records is None:
    raise sources.NotRun(sources.not_found_message('WMT-14', URL, 'newstest2014.en and .fr',
                                                   tfds='wmt14_translate/fr-en'))
  return [(record[source], record[target]) for record in records]


def require_package(package):
  """Raise NotRun if a package of the extra `eval` is not installed."""
  import importlib.util
  if importlib.util.find_spec(package) is None:
    raise sources.NotRun(f"the package {package} is not installed: pip install 'gptjax[eval]'")


def few_shot_prompt(source):
  """Return the example pairs that precede each sentence."""
  ordered = EXAMPLE_PAIRS if source == 'en' else [(french, english) for english, french in EXAMPLE_PAIRS]
  return ''.join(f'{text} = {translation}\n' for text, translation in ordered)


def evaluate(source, target, evaluated, pairs):
  """Return the TaskResult: BLEU by sacrebleu with its default settings."""
  import sacrebleu
  name = f'wmt14_{source}_{target}'
  prompts = [encode_prompt(evaluated, f'{few_shot_prompt(source)}{sentence} =', TOKENS)
             for sentence, _ in pairs]
  translations = [(sentences(text) or [''])[0]
                  for text, _ in generate_with_journal(evaluated, name, prompts, TOKENS)]
  bleu = sacrebleu.BLEU()
  score = bleu.corpus_score(translations, [[reference for _, reference in pairs]])
  examples = tuple({'text': sentence, 'answer': text, 'references': [reference]}
                   for (sentence, reference), text in zip(pairs, translations))
  protocol = (f'newstest2014, {NAMES[source]} to {NAMES[target]}; greedy after {len(EXAMPLE_PAIRS)} pairs, '
              f'the first sentence of the line, at most {TOKENS} tokens; sacrebleu {bleu.get_signature()}. '
              f'The context:\n{few_shot_prompt(source)}')
  return TaskResult({'bleu': score.score, 'examples': len(translations)}, protocol, examples=examples)


def _task(source, target):
  return Task(f'wmt14_{source}_{target}', f'WMT-14 {NAMES[source]} to {NAMES[target]}',
              functools.partial(read, source, target), functools.partial(evaluate, source, target))


TASKS = _task('en', 'fr'), _task('fr', 'en')
