"""Samples as in the paper's appendix: real contexts, the same texts however often the command is stopped."""

import json
import random

import hypothesis
import numpy as np
import pytest
from conftest import mesh_of, slow_except
from hypothesis import strategies as st
from torch_models import torch, transformers, twin

import gptjax
from gptjax import defaults
from gptjax.data.corpus import reader
from gptjax.data.prepare import prepare
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.evaluate.samples import __main__ as command
from gptjax.evaluate.samples import contexts, public_texts, recital, store
from gptjax.generate import generation
from gptjax.report import page
from gptjax.storage.files import records

WORDS = ['tree', 'walks', 'under', 'a', 'the', 'blue', 'stone', 'never', 'sings', 'of', 'rain', 'naïve']


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  """Documents of 60 to 119 words, half of them held out."""
  folder, rng = tmp_path_factory.mktemp('corpus'), random.Random(1)
  for i in range(60):
    (folder / f'{i:02}.txt').write_text(' '.join(rng.choices(WORDS, k=60 + i)))
  prepare([f'text:{folder}/*.txt'], 'train-bpe:290', str(folder / 'made'), validation_fraction=0.5, clean='',
          workers=1, tfds_dir='', on_error='stop', seq_len=24)
  return folder / 'made'


def write_workdir(folder, corpus, seed, n_ctx):
  """A workdir of an evaluation of a random GPT-2 with the tokenizer of the corpus."""
  tokenizer = loading.load(str(corpus / 'tokenizer'))
  made = twin('gpt2', n_layer=1 + seed, n_positions=n_ctx, vocab_size=tokenizer.n_vocab)
  made.save_pretrained(folder / 'weights')
  with mesh_of():
    model, _ = gptjax.load(folder / 'weights')
    gptjax.save_pretrained(model, tokenizer, folder / 'made')
  config = defaults.get_config()
  config.job, config.init_from = 'evaluate', str(folder / 'made')
  config.model.update(dict(n_layer=1 + seed, n_embd=model.n_embd, n_head=4, n_ctx=n_ctx,
                           n_vocab=tokenizer.n_vocab))
  run = folder / f'model-{seed}'
  run.mkdir()
  (run / 'config.json').write_text(records.text({
    'config': config.to_dict(), 'corpus_digest': '', 'versions': {'gptjax': '0'}, 'devices': ['cpu', 1]}))
  return run


@pytest.fixture
def workdirs(corpus, tmp_path):
  """A small model with a context of 64 tokens, and a larger one with 96."""
  return [write_workdir(tmp_path / f'{seed}', corpus, seed, n_ctx) for seed, n_ctx in ((0, 64), (1, 96))]


def run(*arguments):
  with mesh_of():
    command.main(list(map(str, arguments)))


def stored(workdir, kind):
  return store.read(store.path_of(workdir, kind))


def loaded(workdir):
  return gptjax.load(workdir.parent / 'made')


@pytest.mark.parametrize('n_ctx, expected', [
  (1024, (768, 256)), (4096, (768, 256)), (64, (48, 16)), (3, (2, 1)), (2, (1, 1))])
def test_lengths_are_the_papers_or_fit_the_context_in_the_same_proportion(n_ctx, expected):
  assert contexts.fitted(contexts.PAPER, n_ctx) == expected


def test_contexts_begin_documents_and_more_of_them_only_add_some(corpus):
  held_out = reader.open_corpus(corpus, 'validation', verify=True)
  tokenizer = loading.load(str(corpus / 'tokenizer'))
  ends = np.append(held_out.document_starts[1:], held_out.n_tokens)
  bounds = zip(held_out.document_starts.tolist(), ends.tolist(), strict=True)
  documents = [held_out.tokens(*pair) for pair in bounds]
  lengths = contexts.Lengths(90, 30)
  long_enough = [ids for ids in documents if len(ids) - 1 >= 120]
  assert 5 < len(long_enough) < len(documents), 'some documents are too short'
  _, found = contexts.read(corpus, 'validation', 5, lengths, 0)
  for one in found:
    assert (len(one.ids), len(one.continuation)) == lengths and tokenizer.end_of_text not in one.continuation
    number = int(one.title.split()[1])
    assert documents[number][:120].tolist() == [*one.ids, *one.continuation]
  titles = [one.title for one in found]
  assert len(set(titles)) == 5
  assert [one.title for one in contexts.read(corpus, 'validation', 3, lengths, 0)[1]] == titles[:3]
  assert [one.title for one in contexts.read(corpus, 'validation', 5, lengths, 1)[1]] != titles
  says = rf'{len(long_enough)} of {len(documents)} documents .* 120 tokens or more \(the longest has \d+\)'
  with pytest.raises(InputError, match=says):
    contexts.read(corpus, 'validation', len(long_enough) + 1, lengths, 0)


def test_documents_that_begin_alike_give_one_context(corpus, tmp_path):
  rng = random.Random(2)
  beginnings = [' '.join(rng.choices(WORDS, k=60)) for _ in range(4)]
  texts = [f'{beginnings[i % 4]} {" ".join(rng.choices(WORDS, k=40))}' for i in range(24)]
  (tmp_path / 'a.jsonl').write_text(''.join(json.dumps({'text': text}) + '\n' for text in texts))
  prepare([f'jsonl:{tmp_path}/a.jsonl'], str(corpus / 'tokenizer'), str(tmp_path / 'made'), clean='',
          workers=1, validation_fraction=0, tfds_dir='', on_error='stop', seq_len=24)
  _, found = contexts.read(tmp_path / 'made', 'train', 4, contexts.Lengths(40, 10), 0)
  assert len({tuple(one.ids) for one in found}) == 4
  with pytest.raises(InputError, match=r'24 of 24 documents .* and 5 that begin differently are needed'):
    contexts.read(tmp_path / 'made', 'train', 5, contexts.Lengths(40, 10), 0)


@pytest.mark.ci
def test_both_models_complete_the_same_contexts(workdirs, corpus, capsys):
  run('contexts', *(f'--workdir={workdir}' for workdir in workdirs), f'--contexts={corpus}', '--number=3')
  assert 'contexts of 48 tokens, completions of 16 (the paper: 768 and 256)' in capsys.readouterr().out
  found = [stored(workdir, 'contexts').samples for workdir in workdirs]
  assert [one.group for one in found[0]] == [one.group for one in found[1]]
  for workdir, samples in zip(workdirs, found, strict=True):
    assert len(samples) == 3
    with mesh_of():
      model, tokenizer = loaded(workdir)
      for one in samples:
        assert one.top_k == 40 and one.prompt_tokens == 48 and one.max_tokens == 16
        again, = generation.sample((model, tokenizer), prompt=one.prompt, max_tokens=16, top_k=40, seed=0)
        assert one.text == again, 'as `gptjax generate` continues the text'
        score_of = gptjax.score(model, tokenizer, one.prompt + one.text)[0].log_probs
        if len(score_of) == one.prompt_tokens + one.tokens:  # the same tokens
          assert one.log_prob == pytest.approx(score_of[one.prompt_tokens:].sum(), rel=1e-3)


@pytest.fixture
def generated(monkeypatch):
  """A list to which each text is added that a model writes, a `GeneratedText`."""
  found, original = [], generation.generate_texts
  def generate_texts(model, tokenizer, texts, *rest, **more):
    original(model, tokenizer, texts, *rest, **more)
    found.extend(texts)
  monkeypatch.setattr(generation, 'generate_texts', generate_texts)
  return found


def test_log_probabilities_are_those_of_transformers(workdirs, generated):
  run('best-of', f'--workdir={workdirs[1]}', '--prompt=the blue stone', '--number=4', '--tokens=20')
  judge = transformers.GPT2LMHeadModel.from_pretrained(workdirs[1].parent / 'made').eval()
  for one, text in zip(stored(workdirs[1], 'best-of').samples, generated, strict=True):
    with torch.no_grad():
      rows = torch.log_softmax(judge(torch.tensor([text.ids])).logits[0].double(), -1).numpy()
    expected = [rows[i - 1, text.ids[i]] for i in range(one.prompt_tokens, len(text.ids))]
    assert one.tokens == len(expected) > 0 and one.log_prob == pytest.approx(sum(expected), rel=1e-4)
    assert one.mean_log_prob == pytest.approx(np.mean(expected), rel=1e-4)


@pytest.mark.ci
@pytest.mark.parametrize('kept', slow_except([0, 0.4, 0.9], 0.4))
def test_a_stopped_command_goes_on_where_it_was(workdirs, corpus, kept, generated):
  """The file ends in the middle of a line, as after a kill: what is there is kept, the rest is the same."""
  flags = 'several', f'--workdir={workdirs[0]}', f'--contexts={corpus}', '--batch_size=2'
  run(*flags)
  path = store.path_of(workdirs[0], 'several')
  whole, samples = path.read_bytes(), stored(workdirs[0], 'several').samples
  assert len(samples) == 6 and len({one.text for one in samples}) > 1
  path.write_bytes(whole[:int(kept * len(whole))])
  there = len(store.read(path, log=lambda line: None).samples)
  generated.clear()
  run(*flags)
  require_same(stored(workdirs[0], 'several').samples, samples)
  assert len(generated) == 6 - there
  run(*flags, '--number=8')
  require_same(stored(workdirs[0], 'several').samples[:6], samples)
  assert len(generated) == 8 - there
  run(*flags)
  require_same(stored(workdirs[0], 'several').samples, samples)
  assert len(generated) == 8 - there


def require_same(found, wanted):
  """The samples are equal; a batch may have had another number of texts, which changes the rounding."""
  without = lambda samples: [one._replace(log_prob=0) for one in samples]
  assert without(found) == without(wanted)
  assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in wanted], rel=1e-5)


def test_texts_do_not_depend_on_the_batch(workdirs, corpus):
  texts = []
  for size in (1, 4):
    store.path_of(workdirs[0], 'contexts').unlink(missing_ok=True)
    run('contexts', f'--workdir={workdirs[0]}', f'--contexts={corpus}', '--number=4', f'--batch_size={size}')
    texts.append([one.text for one in stored(workdirs[0], 'contexts').samples])
  assert texts[0] == texts[1]


@pytest.mark.ci
def test_samples_of_other_weights_are_not_those_of_a_model(workdirs, corpus):
  flags = 'best-of', f'--workdir={workdirs[0]}', '--prompt=the', '--number=2', '--tokens=8'
  run(*flags)
  first = stored(workdirs[0], 'best-of').samples
  config = json.loads((workdirs[0] / 'config.json').read_text())
  config['config']['init_from'] = str(workdirs[1].parent / 'made')
  (workdirs[0] / 'config.json').write_text(records.text(config))
  run(*flags)
  other = stored(workdirs[0], 'best-of').samples
  assert {one.weights for one in other}.isdisjoint({one.weights for one in first}) and len(other) == 2


def test_the_chosen_sample_is_marked_else_the_most_probable_per_token(workdirs, capsys):
  flags = 'best-of', f'--workdir={workdirs[0]}', '--prompt=the blue', '--tokens=8'
  run(*flags)
  found = stored(workdirs[0], 'best-of')
  assert [one.number for one in found.samples] == list(range(1, 11)) and found.chosen == {}
  best = max(found.samples, key=lambda one: one.log_prob / one.tokens if one.tokens else -np.inf)
  assert f'Sample {best.number} is marked, which has the highest' in report(workdirs[:1])
  other = best.number % 10 + 1
  run(*flags[:2], f'--choose={other}')
  assert capsys.readouterr().out.endswith(f'best-of.jsonl: sample {other} is marked\n')
  text = report(workdirs[:1])
  assert f'Sample {other} is marked, which was chosen by hand' in text and text.count('chosen |') == 1
  assert stored(workdirs[0], 'best-of').samples == found.samples
  run(*flags)  # the same samples again keep the choice
  assert f'Sample {other} is marked' in report(workdirs[:1])
  with pytest.raises(InputError, match=r'--choose=11: .* has the samples 1 to 10$'):
    run(*flags[:2], '--choose=11')
  with pytest.raises(InputError, match='has no samples yet'):
    run('best-of', f'--workdir={workdirs[1]}', '--choose=1')


def report(workdirs):
  """report.md of these workdirs."""
  return page.write(workdirs, workdirs[0].parent / 'report')[1].read_text()


@pytest.mark.ci
def test_the_report_shows_the_smallest_beside_the_largest_model(workdirs, corpus):
  run('contexts', *(f'--workdir={workdir}' for workdir in workdirs), f'--contexts={corpus}', '--number=7')
  text, shown = report(workdirs), lambda one: one.replace('\r', '\n')  # as `read_text` reads line ends
  html = (workdirs[0].parent / 'report' / 'report.html').read_text()
  small, large = (stored(workdir, 'contexts').samples for workdir in workdirs)
  assert html.count('<div class="columns">') == 5, 'the paper shows five contexts'
  for a, b in zip(small[:5], large[:5], strict=True):
    assert text.index(shown(a.text)) < text.index(shown(b.text))
    assert a.prompt[-10:] in text and a.reference in text
  assert '48 tokens of held-out text as context (the paper: 768)' in text and 'first 5 of 7 random' in text
  for workdir in workdirs:
    (workdir.parent / 'made' / 'model.safetensors').unlink()
  assert report(workdirs) == text, 'a report needs no model'


def simple_recited(real, written):
  """By the definition: the longest common beginning."""
  return max(n for n in range(len(real) + 1) if real[:n] == written[:n])


@hypothesis.given(st.lists(st.sampled_from(['a', 'B.', 'b', '--', 'C,']), max_size=8),
                  st.lists(st.sampled_from(['a', 'B.', 'b', '--', 'C,']), max_size=8))
def test_recited_words_are_those_before_the_first_that_differs(real, written):
  found = recital.recited(' '.join(real), '  '.join(written))
  plain = lambda words: [word.lower().strip('.,-') for word in words if word != '--']
  assert found == (simple_recited(real, written), simple_recited(plain(real), plain(written)), len(real))


def test_the_built_in_texts_are_known_ones():
  """The prompt of the Gettysburg Address is a sentence and a half, as in the paper."""
  words = public_texts.GETTYSBURG.replace(' -- ', ' ').split()
  assert len(words) == 271 and ' '.join(words[:recital.PROMPT_WORDS]).endswith('in a great civil war,')
  assert all(len(text.split()) > 100 and text.isascii() for text in public_texts.KNOWN.values())


@pytest.mark.ci
def test_recital(workdirs, tmp_path, capsys):
  text = ' '.join(random.Random(3).choices(WORDS, k=40))
  (tmp_path / 'known.txt').write_text(text + '\n')
  run('recital', f'--workdir={workdirs[1]}', f'--text={tmp_path}/known.txt', '--prompt_words=5', '--number=2')
  assert 'of 35 words recited greedily' in capsys.readouterr().out
  samples = stored(workdirs[1], 'recital').samples
  assert [(one.temperature, one.top_k, one.number) for one in samples] == [
    (0, 0, 1), (1, 40, 1), (1, 40, 2), (1, 0, 1), (1, 0, 2)]
  for one in samples:
    assert one.prompt == ' '.join(text.split()[:5]) and one.prompt + one.reference == text
  with mesh_of():
    greedy, = generation.sample(loaded(workdirs[1]), prompt=samples[0].prompt, temperature=0,
                                max_tokens=samples[0].max_tokens)
  assert samples[0].text == greedy
  shown = report(workdirs[1:])
  assert '100 to 200 tokens' in shown and 'from all tokens, seed 0' in shown and text[40:80] in shown


def test_a_text_that_the_model_knows_is_recited_to_its_end(workdirs):
  """A sample whose text is the reference has all its words."""
  for title, text in public_texts.KNOWN.items():
    prompt, rest = text[:60], text[60:]
    found = recital.recited(rest, rest + ' and more')
    assert found.exact == found.words == len(rest.split()) and prompt, title


@pytest.mark.parametrize('flags, says', [
  (['contexts'], 'contexts needs --contexts=FOLDER'),
  (['best-of', '--contexts=x'], '--contexts is not of best-of, but of contexts and several: remove it'),
  (['recital', '--tokens=3'], '--tokens is not of recital'),
  (['contexts', '--contexts=CORPUS', '--context_tokens=60', '--tokens=5'], '60 tokens .* and 5 of .* 64'),
  (['contexts', '--contexts=CORPUS', '--number=100'], 'documents of the split validation have'),
  (['contexts', '--contexts=nowhere'], 'nowhere'),
  (['recital', '--prompt_words=9999'], 'nothing is left to recite after --prompt_words=9999'),
  (['recital', '--prompt_words=60'], 'longer than the context')])
def test_errors_are_one_line_and_say_what_to_do(workdirs, corpus, flags, says):
  flags = [flag.replace('CORPUS', str(corpus)) for flag in flags]
  with pytest.raises(InputError, match=says) as error:
    run(flags[0], f'--workdir={workdirs[0]}', *flags[1:])
  assert '\n' not in str(error.value)


def test_a_corpus_of_another_tokenizer_is_refused(workdirs, tmp_path):
  (tmp_path / 'a.txt').write_text(' '.join(WORDS * 60))
  prepare([f'text:{tmp_path}/a.txt'], 'train-char', str(tmp_path / 'made'), validation_fraction=0.5, clean='',
          workers=1, tfds_dir='', on_error='stop', seq_len=24)
  with pytest.raises(InputError, match='has another one: give a corpus of its tokens'):
    run('contexts', f'--workdir={workdirs[0]}', f'--contexts={tmp_path}/made', '--number=1')
