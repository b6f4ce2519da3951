"""Which stored fields a resumed run takes."""

from conftest import tiny_config

from gptjax import defaults
from gptjax.config import resume
from gptjax.storage.files import records


def test_how_a_machine_uses_buckets_is_not_restored(tmp_path, capsys):
  stored = tiny_config(**{'data.cache_gb': 5.0, 'data.cache_dir': '/elsewhere', 'storage.retry_seconds': 7.0,
                          'data.prefetch': 9})
  (tmp_path / 'config.json').write_text(records.text({'config': stored.to_dict(), 'corpus_digest': ''}))
  config, plain = defaults.get_config(), defaults.get_config()
  resume.restore_stored_fields(config, tmp_path)
  assert config.data.prefetch == 9
  assert (config.data.cache_gb, config.data.cache_dir) == (plain.data.cache_gb, plain.data.cache_dir)
  assert config.storage == plain.storage
  said = capsys.readouterr().err
  assert 'config.data.prefetch = 9' in said and 'cache_' not in said and 'storage.' not in said
