"""The declaration of `docs/howto/add_architecture.md` is all that another architecture needs."""

import jax
import markdown_pages as pages
import numpy as np
import pytest
import torch_models
from conftest import mesh_of
from torch_models import logits_of, opened, tensors, tokens_for, twin

import gptjax
from gptjax.pretrained import architectures, export, hf_config


@pytest.fixture
def declared(monkeypatch):
  """The lines that the page adds to architectures.py are there, and its kind is one of the tests."""
  page = (pages.ROOT / 'docs' / 'howto' / 'add_architecture.md').read_text()
  diff = next(block.body for block in pages.blocks(page) if block.language == 'diff')
  names = dict(vars(architectures))
  exec(''.join(line[1:] for line in diff.splitlines(keepends=True) if line.startswith('+')), names)
  for module in (hf_config, export):
    monkeypatch.setattr(module, 'ARCHITECTURES', names['ARCHITECTURES'])
  kind = 'ArceeConfig', 'ArceeForCausalLM', torch_models.SMALL_LLAMA
  monkeypatch.setitem(torch_models.KINDS, 'arcee', kind)


@pytest.mark.parametrize('changes', [{}, dict(head_dim=10, num_key_value_heads=6, tie_word_embeddings=True)])
def test_it_is_read_and_written_to_the_bit(declared, tmp_path, changes):
  theirs = twin('arcee', **changes)
  theirs.save_pretrained(tmp_path / 'in')
  tokens = tokens_for(theirs)
  with mesh_of():
    model, _ = gptjax.load(tmp_path / 'in')
    np.testing.assert_allclose(model(tokens), logits_of(theirs, tokens), atol=1e-4, rtol=0)
    gptjax.save_pretrained(model, None, tmp_path / 'out')
    again, _ = gptjax.load(tmp_path / 'out')
  for mine, its in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(mine, its)
  back = opened(tmp_path / 'out')
  assert type(back) is type(theirs)
  for name, value in tensors(theirs).items():
    np.testing.assert_array_equal(tensors(back)[name], value)


def test_without_it_its_folders_are_refused_by_name(tmp_path):
  theirs = torch_models.transformers.ArceeForCausalLM(
    torch_models.transformers.ArceeConfig(**torch_models.SMALL_LLAMA))
  theirs.save_pretrained(tmp_path)
  with mesh_of(), pytest.raises(ValueError, match="model_type = 'arcee' is not supported, only gpt2"):
    gptjax.load(tmp_path)
