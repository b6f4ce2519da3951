"""A few invented records of every zero-shot set, in its published layout and with its known kinds of dirt."""

import json

import numpy as np

RAW = ' \n = The Stone = \n \n The fox @-@ red and quick , ran 1 @,@ 024 miles . \n He said " no " . \n'
STORY = [f'{i} The fox said , `` no , \'\' and did n\'t wait -LRB- at all -RRB- .' for i in range(1, 21)]
CBT = [*STORY, '21 Then the XXXXX sang .\tfox\t\tfox|king|stone|tree|rain|blue|door|water|field|bird', '',
       *STORY, "21 XXXXX 's son was there .\tking\t\tfox|king|stone|tree|rain|blue|door|water|field", '']
COQA = [{'source': 'news', 'id': 'a', 'filename': 'f', 'story': 'The fox ran. It rained.', 'name': 'f',
         'questions': [{'input_text': 'Who ran?', 'turn_id': 1}, {'input_text': '', 'turn_id': 2}],
         'answers': [{'input_text': 'the fox', 'turn_id': 1, 'span_start': 0},
                     {'input_text': 'unknown', 'turn_id': 2, 'span_start': -1}],
         'additional_answers': {str(k): [{'input_text': 'fox'}, {'input_text': ''}] for k in range(3)}}]
LINES = {
  'lambada_test.jsonl': [{'text': 'They saw \u201ca ship\u201d,\n\nand she asked who had sailed the ship'},
                         {'text': 'He ran up the hill and then went down on'},
                         {'text': 'one night\nof\n\nrain'}],
  'wsc273.jsonl': [
    {'idx': 0, 'pre': 'The cup does not fit in the box because', 'pronoun': 'it', 'post': 'is too small.',
     'answers': ['The cup', 'The box'], 'correct': 1},
    {'idx': 1, 'pre': '', 'pronoun': 'His', 'post': 'hat fell.', 'answers': ['Tom', 'Sam'], 'correct': 0}],
  'nq_open_dev.jsonl': [{'question': 'who sailed the ship', 'answer': ['the crew', 'they']},
                        {'question': 'where is it', 'answer': ['north']}],
  'cnn_dailymail/test.jsonl': [{'article': 'The fox ran. It rained. He fell. They left.',
                                'highlights': 'A fox .', 'id': '1'},
                               {'article': '', 'highlights': 'Nothing was left .', 'id': '2'}]}
TEXTS = {
  'wikitext-2-raw/wiki.test.raw': RAW, 'wikitext-103/wiki.test.tokens': RAW.replace('quick', '<unk>'),
  'ptb.test.txt': " mr. <unk> did n't sell N shares \n the fox 's $ N bill \n",
  'news.en.heldout-00000-of-00050': 'The fox ran .\nIt is `` old " , he said .\n',
  'enwik8': '<page>\n  <text>Ein W\u00f6rterbuch &amp; more</text>\n</page>\n' * 30,
  'text8': ' anarchism originated as a term of abuse' * 30,
  'newstest2014.en': 'The fox ran.\nIt rained \u2013 a lot.\n', 'newstest2014.fr': 'Le renard.\nIl pleut.\n',
  **{f'CBTest/data/cbtest_{kind}_valid_2000ex.txt': '\n'.join(CBT) + '\n' for kind in ('CN', 'NE')},
  'coqa-dev-v1.0.json': json.dumps({'version': '1.0', 'data': COQA}),
  **{name: ''.join(json.dumps(line) + '\n' for line in lines) for name, lines in LINES.items()}}
RACE = {'article': b'The fox ran home. It rained.', 'questions': np.array([b'Who ran?', b''], object),
        'options': [[b'a fox', b'', b'a king', b'rain'], [b'one', b'two', b'three', b'four']],
        'answers': np.array([b'A', b'C'], object), 'example_id': b'high1.txt'}
SENTENCES = [{'sentence': b'The fox ran .', 'label': np.int64(1), 'idx': np.int32(0)},
             {'sentence': b'ran fox the', 'label': np.int64(0), 'idx': np.int32(1)}]
TFDS = {  # {name: {split: records as tfds.as_numpy gives them}}
  'lambada': {'test': [{'passage': b"they saw a ship , and she did n't ask who had sailed the ship"}]},
  'glue/cola': dict.fromkeys(('train', 'validation'), SENTENCES), 'glue/sst2': {'validation': SENTENCES},
  'race/middle': {'dev': [RACE]}, 'race/high': {'dev': [RACE]},
  'definite_pronoun_resolution': {'test': [
    {'sentence': b'The fox saw the king because he was near.', 'pronoun': b'he', 'label': np.int64(1),
     'candidates': np.array([b'The fox', b'the king'], object)}]}}


def write(folder):
  """Writes all files of the sets into a folder, and gives it."""
  for name, text in TEXTS.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, newline='')
  return folder


def mock_tfds(monkeypatch, records=TFDS):
  """Makes these the only TFDS sets that there are."""
  from gptjax.data.sources import tfds
  from gptjax.evaluate.texts import sources
  monkeypatch.setattr(sources, '_is_prepared', lambda data, name: name in records)
  monkeypatch.setattr(tfds, 'open_dataset', lambda name, tfds_dir: name)
  monkeypatch.setattr(tfds, 'read_records', lambda name, split: iter(records[name][split]))
