"""Downloads models from the Hugging Face Hub into its cache: only weights in safetensors, JSON and text.

Nothing that is downloaded is run or unpickled. The cache, the endpoint, access tokens and offline mode are
those of `huggingface_hub`: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE.
"""

import logging
import sys

from gptjax import errors
from gptjax.errors import InputError

# Names in the top folder of a model; the Hub has the same weights in other formats, too.
FILES = ('config.json', 'generation_config.json', 'model.safetensors', 'model-*.safetensors',
         'model.safetensors.index.json', 'tokenizer.json', 'tokenizer_config.json', 'vocab.json',
         'merges.txt', 'special_tokens_map.json', 'added_tokens.json')
IN_FOLDERS = '*/*'
# Libraries through which huggingface_hub connects; their errors mean that it could not.
NETWORK = ('httpx', 'httpx2', 'httpcore', 'requests', 'urllib3', 'huggingface_hub')


def download(name):
  """Return the folder of a model in the cache, after downloading what is not there yet.

  If the Hub cannot be reached, the version in the cache is used.

  Args:
    name: files.hub_names.HubName.

  Raises:
    InputError: the model or the revision does not exist, is not accessible, or is not in the cache and cannot
      be downloaded.
  """
  try:
    import huggingface_hub
    from huggingface_hub import constants, utils
  except ImportError:
    raise InputError(f'{name} is not a folder, and a model of this name can only be downloaded with '
                     'huggingface_hub: pip install huggingface_hub, or give the folder of the weights'
                     ) from None
  if not sys.stderr.isatty():
    utils.disable_progress_bars()
  logger = logging.getLogger('huggingface_hub')
  level = logger.level
  try:
    logger.setLevel(logging.ERROR)  # its warnings about retries would hide the message
    folder = huggingface_hub.snapshot_download(name.repo, revision=name.revision, allow_patterns=list(FILES),
                                               ignore_patterns=[IN_FOLDERS])
    print(f'weights: {name} of {constants.ENDPOINT}, in {folder}', file=sys.stderr)
    return folder
  except Exception as error:
    known = isinstance(error, OSError) or type(error).__module__.partition('.')[0] in NETWORK
    if not known or errors.system_fault(error):  # a full disk is not the network's fault
      raise
    raise InputError(_message(name, error, constants)) from error
  finally:
    logger.setLevel(level)


def _message(name, error, constants):
  """The line for an error of huggingface_hub."""
  kinds = {kind.__name__ for kind in type(error).__mro__}
  if 'GatedRepoError' in kinds:
    return (f'{name} needs permission: accept its terms on {constants.ENDPOINT}/{name.repo}, and set '
            'HF_TOKEN to an access token')
  if 'RepositoryNotFoundError' in kinds:
    return (f'{name} is neither a folder of this machine nor a public model on {constants.ENDPOINT}: correct '
            'the name, or for a private model set HF_TOKEN')
  if 'RevisionNotFoundError' in kinds:
    return f'{name.repo} has no revision {name.revision!r}: give a branch, a tag or a commit that exists'
  reason = ' '.join(str(error.__cause__ or error).split())[:200] or type(error).__name__
  return (f'{name} is not a folder of this machine, is not in the cache ({constants.HF_HUB_CACHE}), and '
          f'cannot be downloaded from {constants.ENDPOINT} ({reason}): connect to the network, or give the '
          'folder of the weights')
