"""The pronoun in sentences of the Definite Pronoun Resolution set, and what replaces it."""

from types import SimpleNamespace

import numpy as np
import pytest

from gptjax.evaluate.tasks import gpt1, pronouns
from gptjax.evaluate.texts import sources
from gptjax.finetune import zero_shot

# Where "_" is in the second: the pronoun that is meant.
SENTENCES = [
  ('He thanked the pilot because he had kept calm, and he smiled.', 'he', ('the man', 'the pilot'),
   'He thanked the pilot because _ had kept calm, and he smiled.'),
  ('The girls lent the boys their tent because their own was torn.', 'their', ('The girls', 'the boys'),
   "The girls lent the boys their tent because _'s own was torn."),
  ('The dog barked at the fox because it was in its garden and it was afraid.', 'it', ('The dog', 'the fox'),
   'The dog barked at the fox because _ was in its garden and it was afraid.'),
  ('Anna and Mary left her house, so her dog barked.', 'her', ('Anna', 'Mary'),
   "Anna and Mary left her house, so _'s dog barked."),
  ('Anna phoned Mary because Jim had told her to.', 'her', ('Anna', 'Mary'),
   'Anna phoned Mary because Jim had told _ to.'),
  ('When the cat saw the mouse, it ran.', 'it', ('the cat', 'the mouse'),
   'When the cat saw the mouse, _ ran.'),
  ('Bees land on flowers for they have pollen.', 'They', ('Bees', 'flowers'),
   'Bees land on flowers for _ have pollen.'),
  ('Jim shouted at the boys; they ran, because they were late.', 'they', ('Jim', 'the boys'),
   'Jim shouted at the boys; _ ran, because they were late.'),
  ('Jim called Bob for he was late and he hates that.', 'he', ('Jim', 'Bob'),
   'Jim called Bob for _ was late and he hates that.'),
  ('Jim met Bob as he left, but he said nothing.', 'he', ('Jim', 'Bob'),
   'Jim met Bob as _ left, but he said nothing.'),
  ('Anna paid Mary for her work because her boss had asked.', 'her', ('Anna', 'Mary'),
   "Anna paid Mary for her work because _'s boss had asked."),
  ('It fell.', 'It', ('The vase', 'a cup'), '_ fell.')]


@pytest.mark.parametrize('sentence, pronoun, candidates, masked', SENTENCES)
def test_the_pronoun_of_the_clause_after_the_conjunction(sentence, pronoun, candidates, masked):
  span = pronouns.find_pronoun(sentence, pronoun, candidates)
  before, words, after = pronouns.substitute_candidates(sentence, span, candidates)
  for candidate, word in zip(candidates, words, strict=True):
    inside = candidate[0].lower() + candidate[1:] if candidate.startswith('The ') else candidate
    wanted = inside if before else candidate[0].upper() + candidate[1:]
    assert before + word + after == masked.replace('_', wanted)


def test_a_sentence_without_its_pronoun_has_no_span():
  for pronoun in ('they', 'er', ''):
    assert pronouns.find_pronoun('The other one is here.', pronoun, ('a', 'b')) is None


RECORDS = {'definite_pronoun_resolution': [
  dict(sentence=sentence, pronoun=pronoun, candidates=list(candidates), label=1)
  for sentence, pronoun, candidates, _ in SENTENCES] + [
  dict(sentence='Nobody is here.', pronoun='they', candidates=['a', 'b'], label=0)]}


def scorer(monkeypatch):
  """Replaces the model: tokens are characters, less likely the later in the alphabet."""
  monkeypatch.setattr(gpt1, '_tfds', lambda data, name, split: RECORDS[name])
  encode = lambda text: np.array([ord(c) % 256 for c in text], np.int32)
  score = lambda sequences: [-np.asarray(ids[1:], float) for ids in sequences]
  monkeypatch.setattr(gpt1, 'heuristic_inputs', lambda evaluated: (score, encode, (0,)))


def test_sentences_without_the_pronoun_are_skipped_and_counted(monkeypatch):
  scorer(monkeypatch)
  found = gpt1.evaluate_dprd(None, gpt1.read_dprd(None))
  assert found.metrics['examples'] == len(SENTENCES) and found.metrics['left_out'] == 1
  monkeypatch.setattr(gpt1, '_tfds', lambda *arguments: RECORDS['definite_pronoun_resolution'][-1:])
  with pytest.raises(sources.NotRun, match='no sentence with its pronoun'):
    gpt1.evaluate_dprd(None, gpt1.read_dprd(None))


def test_figure_2_runs_the_tasks(monkeypatch):
  """The study's figures equal those of the tasks on the same examples."""
  scorer(monkeypatch)
  texts = ['a bee', 'zoo zz', 'cab', 'xyz', 'ace', 'zyx']
  sentences = [dict(sentence=text, label=int(text < 'd')) for text in texts]
  monkeypatch.setattr(gpt1, '_tfds', lambda data, name, split: sets[name])
  sets = RECORDS | {'glue/cola': sentences, 'glue/sst2': sentences, 'race/middle': [], 'race/high': [
    dict(article='Long ago.', questions=['Who?'], options=[['b', '', 'z', 'y']], answers=['A'])]}
  config = SimpleNamespace(eval=SimpleNamespace(data_dir='', batch_size=2, limit=5),
                           data=SimpleNamespace(tfds_dir=''), finetune=SimpleNamespace(limit=0))
  monkeypatch.setattr(zero_shot.gptjax, 'load', lambda folder: (None, None))
  tested = SimpleNamespace(model=SimpleNamespace(n_ctx=99))
  monkeypatch.setattr(zero_shot, 'make_evaluated_model', lambda *arguments, **options: tested)
  suites = zero_shot.read_suites(config)
  found = zero_shot.evaluate_checkpoint('folder', suites, config)
  assert set(found) == {'acceptability', 'sentiment', 'question answering', 'winograd'}
  for task in gpt1.TASKS:
    metrics = task.evaluate(tested, task.read(sources.DataOptions('', '', 0))).metrics
    name = zero_shot.HEURISTICS[task.name]
    assert found[name] == metrics.get('matthews', metrics.get('accuracy'))
    assert found[name] <= 1
  assert found['question answering'] == 1, 'an empty answer is never the likeliest'
