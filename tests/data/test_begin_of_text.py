"""Files whose documents begin with a token: adopted, exported and decoded with the right documents."""

import json

import foreign_files
import numpy as np
import pytest

from gptjax.data import adopt as adopt_command
from gptjax.data import export as export_command
from gptjax.data import prepare as prepare_command
from gptjax.data.corpus import reader
from gptjax.data.sources import documents
from gptjax.errors import InputError

BEGIN, END = '<|begin_of_text|>', '<|end_of_text|>'
LLAMA = {'magic': 20240801, 'version': 7, 'dtype': '<u4'}


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  """A BPE of the library with Llama 3's names of special tokens; its folder, its ids, and [texts]."""
  import tokenizers
  folder = tmp_path_factory.mktemp('llama')
  texts = foreign_files.texts(0, 40)
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  made.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(
    vocab_size=300, special_tokens=[BEGIN, END], show_progress=False,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
  made.save(str(folder / 'tokenizer.json'))
  (folder / 'tokenizer_config.json').write_text(json.dumps({'bos_token': BEGIN, 'eos_token': END}))
  return folder, made, [text for text in texts if text.strip()]


def ids_of(tokenizer, ends=()):
  _, made, texts = tokenizer
  begin = made.token_to_id(BEGIN)
  return [[begin, *made.encode(text, add_special_tokens=False).ids, *ends] for text in texts]


def adopt(source, tokenizer, out, **options):
  return adopt_command.adopt(source, str(tokenizer[0]), str(out), progress=False, **options)


def test_uint32_shards_of_llmc(tokenizer, tmp_path):
  docs, texts = ids_of(tokenizer), tokenizer[2]
  (tmp_path / 'f').mkdir()
  stream = np.concatenate(docs)
  cut = len(docs[0]) + len(docs[1]) + 2  # a shard begins within a document
  for name, part in (('val_000000', np.concatenate(docs[:2])), ('train_000001', stream[:cut]),
                     ('train_000002', stream[cut:])):
    foreign_files.llmc(tmp_path / 'f' / f'x_{name}.bin', part, **LLAMA)
  with pytest.raises(InputError, match=r'no end-of-text token .*--begin_of_text=TOKEN if each'):
    adopt(f'llmc:{tmp_path}/f', tokenizer, tmp_path / 'c')
  found = adopt(f'llmc:{tmp_path}/f', tokenizer, tmp_path / 'c', begin_of_text=BEGIN)
  train = found['splits']['train']
  assert (train['documents'], train['tokens']) == (len(docs), len(stream))
  assert train['bytes'] == sum(len(text.encode()) for text in texts)
  assert found['settings']['begin_of_text_tokens'] == len(docs) + 2
  opened = reader.open_corpus(tmp_path / 'c', 'train', verify=True)
  assert opened.document_starts.tolist() == np.cumsum([0, *map(len, docs[:-1])]).tolist()
  units = documents.units([f'corpus:{tmp_path}/c'], '')
  pieces = [piece.text for unit in units for piece in documents.pieces(unit, '', '')]
  assert pieces == texts
  assert adopt(f'llmc:{tmp_path}/f', tokenizer, tmp_path / 'c', begin_of_text=BEGIN) == found
  with pytest.raises(InputError, match=r'begin_of_text setting is another \(<\|begin_of_text\|>, not None\)'):
    adopt(f'llmc:{tmp_path}/f', tokenizer, tmp_path / 'c')
  export_command.export(str(tmp_path / 'c'), 'llmc', tmp_path / 'x', name='x', progress=False)
  exported = np.fromfile(tmp_path / 'x' / 'x_train_000001.bin', '<u2', offset=1024)
  assert exported.tolist() == stream.tolist()  # nothing is inserted


@pytest.mark.parametrize('kind', ['raw', 'npy', 'llmc', 'datatrove'])
def test_documents_with_a_beginning_and_an_end(kind, tokenizer, tmp_path):
  docs = ids_of(tokenizer, [tokenizer[1].token_to_id(END)])
  stream = np.concatenate(docs)
  if kind == 'datatrove':
    foreign_files.datatrove(tmp_path / 'a.ds', docs)
  elif kind == 'llmc':
    foreign_files.llmc(tmp_path / 'x_train.bin', stream)
  else:
    getattr(foreign_files, kind)(tmp_path / 'a.npy', stream)
  found = adopt(f'{kind}:{tmp_path}', tokenizer, tmp_path / 'c', begin_of_text=BEGIN)
  assert found['splits']['train']['documents'] == len(docs)
  units = documents.units([f'corpus:{tmp_path}/c'], '')
  assert [piece.text for unit in units for piece in documents.pieces(unit, '', '')] == tokenizer[2]
  again = prepare_command.prepare([f'corpus:{tmp_path}/c'], str(tokenizer[0]), tmp_path / 'p', tfds_dir='',
                                  validation_fraction=0, clean='', workers=1, on_error='stop', progress=False)
  assert again['splits']['train']['bytes'] == found['splits']['train']['bytes']


def test_a_split_that_begins_within_a_document(tokenizer, tmp_path):
  docs = ids_of(tokenizer)
  foreign_files.raw(tmp_path / 'a.bin', np.concatenate(docs)[1:])
  found = adopt(f'raw:{tmp_path}', tokenizer, tmp_path / 'c', begin_of_text=BEGIN)['splits']['train']
  assert found['documents'] == len(docs) and found['begins_within_document'] is True


@pytest.mark.parametrize('options, message', [
  ({'begin_of_text': '<s>'}, r'--begin_of_text=<s> is not a special token of the .*, which has <\|begin'),
  ({'begin_of_text': BEGIN, 'no_end_of_text': True}, 'exclude each other'),
  ({'begin_of_text': END}, r'no begin-of-text token \(1\) among the first')])
def test_wrong_tokens_are_refused(options, message, tokenizer, tmp_path):
  foreign_files.raw(tmp_path / 'a.bin', np.concatenate(ids_of(tokenizer)))
  with pytest.raises(InputError, match=message):
    adopt(f'raw:{tmp_path}', tokenizer, tmp_path / 'c', **options)
