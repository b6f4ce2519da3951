"""The lists of a recipe, of blocked domains and Wikipedia titles, in the work folder.

A list may have millions of titles. Workers read it there, once, so that it is not sent with each job:

    recipe.domains, recipe.titles   sorted lines of UTF-8
    recipe.json                     the record: the SHA-256 of both
"""

import hashlib

from gptjax.data.stages import work
from gptjax.errors import InputError
from gptjax.storage.files import access

NAME = 'recipe'  # in the work folder, and in `known`


def without(recipe):
  """Return a recipe without its lists, for the job."""
  return recipe._replace(domains=frozenset(), titles=frozenset())


def write(job, recipe):
  """Write the lists of the recipe of a job, unless they are there, and keep it in this process."""
  if recipe.filters and work.read_record(job.work, NAME) is None:
    access.make_folder(job.work)
    digests = {}
    for name in ('domains', 'titles'):
      content = '\n'.join(sorted(getattr(recipe, name))).encode('utf-8', 'surrogatepass')
      digests[name] = hashlib.sha256(content).hexdigest()
      with work.writing(job.work / f'{NAME}.{name}') as file:
        file.write(content)
    work.write_record(job.work, NAME, digests)
  job.known[NAME] = recipe


def recipe(job):
  """Return the recipe of a job with its lists, which each process reads once.

  Raises:
    InputError: they are missing or damaged.
  """
  if not job.reading.recipe.filters:
    return job.reading.recipe
  if NAME not in job.known:
    digests, found = work.read_record(job.work, NAME), {}
    if digests is None:
      raise InputError(f'{job.work / NAME}.json is missing: run the same command again')
    for name, digest in digests.items():
      content = work.read(job.work / f'{NAME}.{name}', 'u1').tobytes()
      if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f'{job.work / NAME}.{name} is damaged: remove {job.work} and run the same command '
                         'again')
      found[name] = frozenset(content.decode('utf-8', 'surrogatepass').split('\n')) - {''}
    job.known[NAME] = job.reading.recipe._replace(**found)
  return job.known[NAME]
