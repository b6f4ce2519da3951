"""The defaults of gptjax, for config files: `from configs import default; config = default.get_config()`."""

from gptjax.defaults import get_config

__all__ = ['get_config']
