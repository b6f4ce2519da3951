"""Real runs: loaded on one device, whatever mesh wrote them; exported as they go; started from others."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, mesh_of, tiny_config, train
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch_models import logits_of, transformers, twin

import gptjax
from gptjax.config import resolve as configs
from gptjax.data.corpus.reader import open_corpus
from gptjax.data.tokenizers import loading
from gptjax.errors import InputError
from gptjax.parallel import sharding
from gptjax.pretrain.loop import pretrain
from gptjax.pretrained import layout, run_weights
from gptjax.pretrained.tokenizer_files import transformers_files
from gptjax.storage import checkpoint
from gptjax.storage.files import records

EIGHT = {'mesh.data': 2, 'mesh.fsdp': 2, 'mesh.tensor': 2}


def ran(corpus, folder, init_from='', **changes):
  """Trains a tiny model to its end in this process, without evaluation on the way."""
  config = tiny_config(**{'data.corpus': str(corpus), 'model.n_vocab': 290, 'model.pad_vocab_to': 128,
                          'eval.every_steps': 0, 'eval.steps': 1, 'checkpoint.every_steps': 5,
                          'log.tensorboard': False, **changes})
  config.init_from = init_from
  assert pretrain(config, folder) == 0


@pytest.fixture(scope='module')
def workdir(corpus_folder, tmp_path_factory):
  """A run of ten steps on eight devices, which exported as it went."""
  folder = tmp_path_factory.mktemp('run')
  ran(corpus_folder, folder, **EIGHT, **{'checkpoint.export': True})
  return folder


def loaded(path, **sizes):
  with mesh_of(**sizes):
    return gptjax.load(path)


def assert_same(model, other):
  for mine, its in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(mine, its)


@pytest.mark.ci
def test_a_run_on_eight_devices_is_loaded_on_one_and_on_another_mesh(workdir, corpus_folder):
  model, tokenizer = loaded(workdir)
  made = open_corpus(str(corpus_folder), 'train', verify=False).tokenizer
  assert tokenizer.digest == made['digest']
  tokens = tokens_for_run(8)
  with mesh_of():
    logits = np.asarray(model(tokens))
  assert logits.shape == (8, 24, 290) and logits.dtype == np.float32
  with mesh_of(data=4, tensor=2):
    np.testing.assert_allclose(gptjax.load(workdir)[0](tokens), logits, atol=1e-5)


def tokens_for_run(batch):
  return np.random.default_rng(0).integers(0, 290, (batch, 24), dtype=np.int32)


def test_a_step_is_loaded_by_its_folder_and_the_newest_by_the_workdir(workdir):
  five, ten, newest = (loaded(path)[0] for path in (
    workdir / 'checkpoints' / '5', workdir / 'checkpoints' / '10', workdir))
  assert_same(ten, newest)
  assert (np.asarray(five.wpe) != np.asarray(ten.wpe)).any()


def test_the_export_is_the_newest_step_and_opens_in_transformers(workdir):
  with safe_open(workdir / 'export' / 'model.safetensors', 'np') as file:
    assert file.metadata()['step'] == '10'
  model, tokenizer = loaded(workdir)
  theirs = transformers.AutoModelForCausalLM.from_pretrained(workdir / 'export').eval()
  tokens = tokens_for_run(3)
  with mesh_of():
    np.testing.assert_allclose(model(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
  text = 'the blue stone never sings'
  ids = transformers.AutoTokenizer.from_pretrained(workdir / 'export')(text).input_ids
  assert ids == tokenizer.encode(text).tolist()
  assert_same(loaded(workdir / 'export')[0], model)


def copied(workdir, tmp_path):
  return shutil.copytree(workdir, tmp_path / 'copy')


def flip(folder):
  """Damages the largest file of a checkpoint by one bit."""
  path = max((folder / 'state').rglob('*'), key=lambda path: path.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)


def test_damage_is_seen_said_and_passed_over_but_nothing_is_moved(workdir, tmp_path, capsys):
  folder = copied(workdir, tmp_path)
  flip(folder / 'checkpoints' / '10')
  model, _ = loaded(folder)
  assert 'checkpoint 10 is damaged' in capsys.readouterr().err
  assert_same(model, loaded(workdir / 'checkpoints' / '5')[0])
  assert checkpoint.steps(folder / 'checkpoints') == [5, 10]
  with pytest.raises(ValueError, match=r'checkpoint .*/10 is damaged .*use another'):
    loaded(folder / 'checkpoints' / '10')
  flip(folder / 'checkpoints' / '5')
  with pytest.raises(ValueError, match='has no valid checkpoint'):
    loaded(folder)


def test_weights_that_differ_from_their_digest_are_refused(workdir, tmp_path):
  folder = copied(workdir, tmp_path) / 'checkpoints' / '10'
  manifest = checkpoint.read_manifest(folder)
  manifest['arrays']['params/wpe'][2] = '0' * 16
  checkpoint.write_manifest(folder, manifest)
  with pytest.raises(ValueError, match='params/wpe differs from its digest'):
    loaded(folder)


def test_a_save_cut_short_is_no_checkpoint_and_a_lonely_one_no_model(workdir, tmp_path):
  folder = copied(workdir, tmp_path)
  (folder / 'checkpoints' / '10' / 'manifest.json').unlink()
  (folder / 'checkpoints' / '10' / 'saving').touch()
  assert_same(loaded(folder)[0], loaded(workdir / 'checkpoints' / '5')[0])
  (folder / 'config.json').unlink()
  with pytest.raises(ValueError, match=r'is outside its run: .*config\.json'):
    loaded(folder / 'checkpoints' / '5')
  (folder / 'config.json').write_text('{"config": []}')
  with pytest.raises(ValueError, match=r'config\.json is not the config of a run of gptjax'):
    loaded(folder)


def test_a_run_that_goes_on_with_export_exports_what_is_there(workdir, corpus_folder, tmp_path, capsys):
  folder = copied(workdir, tmp_path)
  shutil.rmtree(folder / 'export')
  ran(corpus_folder, folder, **{'mesh.data': 8, 'checkpoint.export': True})
  assert f'export        {folder / "export"}' in capsys.readouterr().err
  want = load_file(workdir / 'export' / 'model.safetensors')
  for name, value in load_file(folder / 'export' / 'model.safetensors').items():
    np.testing.assert_array_equal(value, want[name])


def test_an_export_whose_weights_have_no_metadata_is_written_again(workdir, corpus_folder, tmp_path):
  folder = copied(workdir, tmp_path)
  file = folder / 'export' / 'model.safetensors'
  want = load_file(file)
  save_file({name: np.zeros_like(value) for name, value in want.items()}, file)
  ran(corpus_folder, folder, **EIGHT, **{'checkpoint.export': True})
  for name, value in load_file(file).items():
    np.testing.assert_array_equal(value, want[name])


def test_a_field_that_differs_is_named_before_what_differs_in_the_export(workdir, corpus_folder, tmp_path):
  folder = copied(workdir, tmp_path)
  with pytest.raises(InputError, match=r'has a run with config\.model\.activation_function = '):
    ran(corpus_folder, folder, **EIGHT, **{'checkpoint.export': True, 'model.activation_function': 'relu'})


def test_an_export_that_is_not_possible_is_refused_before_anything_runs(corpus_folder, tmp_path):
  done = train(corpus_folder, tmp_path / 'run', '--config.checkpoint.export=True',
               '--config.model.norm=after', '--config.model.n_inner=64')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert 'OpenAI-GPT in transformers does not support n_inner = 64' in done.stderr
  assert not (tmp_path / 'run').exists()


@pytest.mark.ci
def test_a_run_starts_from_a_hugging_face_folder_to_the_bit(corpus_folder, tmp_path, capsys):
  twin('gpt2', vocab_size=290).save_pretrained(tmp_path / 'released')
  ran(corpus_folder, tmp_path / 'run', **EIGHT, init_from=str(tmp_path / 'released'),
      **{'train.steps': 1, 'optimizer.learning_rate': 0.0})
  assert f'initial weights from {tmp_path / "released"}' in capsys.readouterr().err
  assert_same(loaded(tmp_path / 'run')[0], loaded(tmp_path / 'released')[0])


@pytest.mark.slow
def test_a_workdir_and_its_export_keep_all_ends_of_the_first_weights(workdir, corpus_folder, tmp_path):
  """The corpus's tokenizer has one end alone, and the same digest."""
  shutil.copytree(workdir / 'export', tmp_path / 'released')
  (tmp_path / 'released' / 'generation_config.json').write_text('{"eos_token_id": [289, 17]}')
  run = lambda steps: ran(corpus_folder, tmp_path / 'run', init_from=str(tmp_path / 'released'), **EIGHT, **{
    'checkpoint.export': True, 'train.steps': steps, 'optimizer.schedule': 'constant'})
  run(5)
  shutil.rmtree(tmp_path / 'run' / 'export')
  for folder in (tmp_path / 'run', tmp_path / 'run' / 'export'):
    if not folder.exists():  # once more, from the run's own checkpoint
      run(6)
    assert loaded(folder)[1].eos_ids == (289, 17), folder
  assert loaded(workdir)[1].eos_ids == (289,)


@pytest.fixture(scope='module')
def padded(corpus_folder, tmp_path_factory):
  """A folder of transformers with 320 rows for the 290 entries of the corpus's tokenizer."""
  folder = tmp_path_factory.mktemp('padded')
  twin('gpt2', vocab_size=320).save_pretrained(folder)
  for name, content in transformers_files(loading.load(str(corpus_folder / 'tokenizer')), 24).items():
    (folder / name).write_bytes(content)
  return folder


@pytest.mark.ci
def test_rows_beyond_the_tokenizer_are_padding(padded, corpus_folder, tmp_path):
  model, tokenizer = loaded(padded)
  assert tokenizer.n_vocab == model.n_vocab == 290
  assert not np.asarray(model.wte)[290:].any() and len(model.wte) == 384
  tokens = tokens_for_run(2)
  theirs = logits_of(transformers.AutoModelForCausalLM.from_pretrained(padded), tokens)
  with mesh_of():
    np.testing.assert_allclose(model(tokens), theirs[..., :290], atol=1e-4)
  ran(corpus_folder, tmp_path / 'run', **EIGHT, init_from=str(padded),
      **{'train.steps': 1, 'optimizer.learning_rate': 0.0})
  assert_same(loaded(tmp_path / 'run')[0], model)


def test_without_a_tokenizer_the_number_of_entries_says_which_rows_are_padding(padded, tmp_path):
  folder = shutil.copytree(padded, tmp_path / 'bare')
  for path in (*folder.glob('*token*'), folder / 'vocab.json', folder / 'merges.txt'):
    path.unlink()
  config = runnable(folder, **{'model.pad_vocab_to': 128})
  source = run_weights.open_initial_weights(config, tmp_path / 'run', {'model.n_vocab'})
  assert source.tokenizer is None and source.fields['n_vocab'] == config.model.n_vocab == 290
  config = runnable(folder, **{'model.pad_vocab_to': 128, 'model.n_vocab': 330})
  with pytest.raises(ValueError, match=r'config.model.n_vocab = 330 \(the weights: 320\)'):
    run_weights.open_initial_weights(config, tmp_path / 'run', {'model.n_vocab'})


def runnable(source, **changes):
  config = tiny_config(**{'model.n_vocab': 290, **changes})
  config.init_from = str(source)
  return config


@pytest.mark.parametrize('field, mine, its', [
  ('n_layer', 3, 2), ('n_head', 2, 4), ('n_embd', 64, 32), ('n_ctx', 25, 24), ('n_vocab', 300, 290),
  ('n_inner', 64, 128), ('norm', 'after', 'before'), ('activation_function', 'relu', 'gelu_new'),
  ('layer_norm_epsilon', 1e-3, 1e-5), ('scale_attn_weights', False, True),
  ('scale_attn_by_inverse_layer_idx', True, False), ('tie_word_embeddings', False, True),
  ('pad_vocab_to', 32, 16)])
def test_a_config_that_does_not_fit_the_first_weights_names_the_field_and_both_values(
    workdir, tmp_path, field, mine, its):
  shutil.copytree(workdir, tmp_path / 'other')
  if field == 'pad_vocab_to':
    path = tmp_path / 'other' / 'config.json'
    stored = json.loads(path.read_text())
    stored['config']['model']['pad_vocab_to'] = 16
    path.write_text(records.text(stored))
  config = runnable(tmp_path / 'other', **{'model.pad_vocab_to': 128, f'model.{field}': mine})
  with pytest.raises(ValueError) as error:
    run_weights.open_initial_weights(config, tmp_path / 'run', {f'model.{field}'})
  assert str(error.value) == (
    f'the weights of config.init_from = {config.init_from!r} do not match config.model.{field} = {mine!r} '
    f'(the weights: {its!r}): remove these flags, the weights determine the fields')
  config = runnable(tmp_path / 'other', **{'model.pad_vocab_to': 128, f'model.{field}': mine})
  run_weights.open_initial_weights(config, tmp_path / 'run', {'train.steps'})
  assert config.model[field] == its, 'what is not given is that of the weights'


def test_all_fields_that_do_not_fit_the_first_weights_are_named_at_once(workdir, tmp_path):
  changes = {'model.n_layer': 3, 'model.n_embd': 64, 'model.n_ctx': 25}
  config = runnable(workdir, **{'model.pad_vocab_to': 128, 'data.tokenizer': 'train-bpe:290', **changes})
  with pytest.raises(ValueError, match=r'^[^\n]*$') as error:
    run_weights.open_initial_weights(config, tmp_path / 'run', {'data.tokenizer', *changes})
  for field in ('data.tokenizer', *changes):
    assert f'config.{field} = ' in str(error.value)


@pytest.mark.slow
def test_a_run_takes_shape_and_tokenizer_from_its_first_weights_and_resumes(workdir, corpus_folder, tmp_path):
  """The config says four layers and a tokenizer that is to be trained; the corpus is made on the way."""
  (tmp_path / 'text').mkdir()
  for i in range(30):
    (tmp_path / 'text' / f'{i}.txt').write_text('the blue stone never sings under a tree of rain ' * 20)
  flags = [f'--config.init_from={workdir}', f'--config.data.source=text:{tmp_path}/text/*.txt',
           '--config.train.batch_size=4', '--config.train.microbatch_size=4', '--config.eval.steps=1',
           '--config.data.seq_len=0', '--config.eval.every_steps=0', '--config.eval.ngrams=False',
           '--config.log.tensorboard=False', '--config.log.sample_tokens=0']
  command = [sys.executable, '-m', 'gptjax.main', '--config=configs/quickstart.py',
             f'--workdir={tmp_path}/run', *flags]
  for steps in ('2', '2'):
    done = subprocess.run([*command, f'--config.train.steps={steps}'], cwd=ROOT, env=ENVIRONMENT,
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
  stored = json.loads((tmp_path / 'run' / 'config.json').read_text())['config']
  assert (stored['model']['n_layer'], stored['model']['n_vocab'], stored['data']['seq_len']) == (2, 290, 24)
  made = open_corpus(str(tmp_path / 'run' / 'corpus'), 'train', verify=False).tokenizer
  assert made['digest'] == open_corpus(str(corpus_folder), 'train', verify=False).tokenizer['digest']
  assert 'training ended after step 2' in done.stderr


def test_mistyped_first_weights_are_refused_before_the_corpus_is_prepared(tmp_path):
  done = subprocess.run([sys.executable, '-m', 'gptjax.main', '--config=configs/quickstart.py',
                         f'--workdir={tmp_path}/run', f'--config.init_from={tmp_path}/absent'], cwd=ROOT,
                        env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
  assert done.returncode == 2 and 'absent is not a folder' in done.stderr
  assert not (tmp_path / 'run').exists()


def test_first_weights_of_another_tokenizer_are_refused(workdir, tmp_path, capsys):
  config = runnable(workdir, **{'model.pad_vocab_to': 128})
  tokenizer = loaded(workdir)[1]
  digest, end = tokenizer.digest, tokenizer.end_of_text
  made = {'name': 'bpe', 'digest': digest, 'n_vocab': 290, 'end_of_text': end}
  source = run_weights.open_initial_weights(config, tmp_path)
  assert source.folder == workdir / 'checkpoints' / '10'
  run_weights.check_tokenizer(config, source, made)
  with pytest.raises(ValueError, match=f'end-of-text token {end}, but the documents .* end with None'):
    run_weights.check_tokenizer(config, source, made | {'end_of_text': None})
  assert capsys.readouterr().err == ''
  run_weights.check_tokenizer(config, source._replace(tokenizer=None), made)
  assert 'has no tokenizer: cannot check that the corpus' in capsys.readouterr().err
  with pytest.raises(ValueError, match=f'has the tokenizer bpe .digest {digest[:12]}.*made with another'):
    run_weights.check_tokenizer(config, source, made | {'digest': 'f' * 64})
  config.init_from = ''
  assert run_weights.open_initial_weights(config, tmp_path) is None


def test_bad_first_weights_are_refused_before_the_workdir_is_made(corpus_folder, tmp_path):
  done = train(corpus_folder, tmp_path / 'run', f'--config.init_from={tmp_path}/absent')
  assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'absent is not a folder' in done.stderr
  assert not (tmp_path / 'run').exists()


def test_first_weights_of_another_run_are_read_onto_the_mesh_of_this_one(workdir, tmp_path):
  config = runnable(workdir, **{'model.pad_vocab_to': 128})
  source = run_weights.open_initial_weights(config, tmp_path)
  with mesh_of(fsdp=4) as mesh:
    shapes = sharding.with_shardings(layout.weight_shapes(config), mesh)
    read = source.read(shapes)
  assert jax.tree.map(lambda x: x.sharding, read) == jax.tree.map(lambda x: x.sharding, shapes)
  assert_same(read, nnx.to_pure_dict(nnx.state(loaded(workdir)[0])))


def test_a_checkpoint_of_the_run_itself_goes_first(workdir):
  """The folder of the first weights need not even be there any more."""
  assert run_weights.open_initial_weights(runnable('absent'), workdir) is None


def test_a_save_that_was_cut_short_leaves_the_run_to_start_from_its_first_weights(workdir, tmp_path):
  """A kill in the very first save must not turn a fine-tuning into a training from scratch."""
  config = runnable(workdir, **{'model.pad_vocab_to': 128})
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  (tmp_path / 'checkpoints' / '5' / 'saving').touch()
  assert run_weights.open_initial_weights(config, tmp_path) is not None


def test_an_old_config_without_the_newer_fields_is_still_read(workdir, tmp_path):
  folder = copied(workdir, tmp_path)
  stored = records.read(folder / 'config.json')
  newer = ('n_inner', 'activation_function', 'layer_norm_epsilon', 'tie_word_embeddings')
  stored['config']['model'] = {k: v for k, v in stored['config']['model'].items() if k not in newer}
  (folder / 'config.json').write_text(records.text(stored))
  assert_same(loaded(folder)[0], loaded(workdir)[0])
  assert configs.flat(stored['config'])['model.n_layer'] == 2
