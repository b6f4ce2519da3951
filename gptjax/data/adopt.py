"""Makes a corpus of files of tokens that another project has written, in place.

    python -m gptjax.data.adopt llmc:fineweb10B --tokenizer=gpt2 --out=corpora/fineweb10B

The tokens are not copied. The command reads them once, checks them, and writes the manifest, the positions
of the documents and the tokenizer; the manifest refers to the files by name, digest and folder. FILES is a
folder, a file, or a pattern of file names in a folder, here or in a bucket.

A document ends with an end-of-text token, as in a corpus of `prepare`: in llmc and npy, where that token
precedes each document, the first one is not part of the corpus. With --begin_of_text=TOKEN a document begins
with that token, as in llm.c's shards for Llama 3. Of datatrove and megatron the index says where documents
begin.

The command can be killed and repeated: the manifest is written last. If the files have moved, the same
command with their new place verifies them and records it.
"""

if __name__ == '__main__':
  from gptjax.command import early, startup
  from gptjax.command.parsers.adopt import parser
  startup.begin('adopt', 'stopped; run the same command again')
  early.handle_help(parser, 'adopt')

import fnmatch
import time

from gptjax.command import run
from gptjax.command.parsers.adopt import parser
from gptjax.data import progress as progress_bar
from gptjax.data.corpus import corpus_manifest
from gptjax.data.foreign import files, layout, recorded, scan
from gptjax.data.foreign.formats import FORMATS
from gptjax.data.tokenizers import loading, token_bytes
from gptjax.errors import InputError
from gptjax.storage import bucket_ownership, owner_record, ownership
from gptjax.storage.files import access, paths, spool
from gptjax.storage.files.paths import Url
from gptjax.text.redacted import redacted
from gptjax.text.words import plural, suggestion

SPLITS = 'train', 'validation'
INDEX = '{}-documents.bin'  # of a split


def adopt(source, tokenizer, out, *, dtype='', validation=None, begin_of_text='', no_end_of_text=False,
          progress=True):
  """Write a corpus whose tokens are files of another project, or return if it is already complete.

  Args:
    source: `KIND:FILES`, see FORMATS; FILES is a folder, a file, or a pattern of file names in a folder.
    tokenizer: as for `loading.load`, the one with which the files were written.
    out: folder of the corpus, here or in a bucket: that of the files, or a new one.
    dtype: 'uint16' or 'uint32', of formats that do not say it; '': as described in `foreign.raw`.
    validation: pattern of the names of the files of the validation split; '': none; None: as the format says.
    begin_of_text: special token of the tokenizer by which each document begins; '': none.
    no_end_of_text: no token separates documents; without an index, a split is one document.
    progress: show a progress bar on stderr.

  Returns:
    The manifest, a dict.

  Raises:
    InputError: files are missing or damaged, or do not fit the format or the tokenizer; `out` holds
      something else.
  """
  kind, _, where = source.partition(':')
  if kind not in FORMATS:
    raise InputError(f'{source} is not KIND:FILES{suggestion(kind, FORMATS, "the kinds are")}')
  if not where:
    raise InputError(f'{source} names no files: write {kind}:FOLDER')
  format_ = FORMATS[kind]
  if dtype and not format_.has_dtype:
    raise InputError(f'--dtype={dtype}: the files of {kind} have a dtype of their own: remove it')
  loaded = loading.load(tokenizer)
  mark = _mark(loaded, begin_of_text, no_end_of_text)
  folder, found = _find(where, format_)
  target = paths.location(out)
  folder, target = _absolute(folder), _absolute(target)
  if isinstance(target, Url) and not isinstance(folder, Url):
    raise InputError(f'{out} is in a bucket, and the files are in {folder} of this machine: copy them to the '
                     'bucket, and adopt them there')
  splits = _splits(format_, folder, found, validation, layout.Options(dtype, loaded.n_vocab), mark)
  settings = {'source': redacted(source), 'tokenizer': loaded.digest, 'no_end_of_text': no_end_of_text,
              'dtype': splits[0].layouts[0].dtype.name,
              'files': {split.name: recorded.file_facts(split.files) for split in splits}}
  settings |= {'begin_of_text': begin_of_text} if begin_of_text else {}
  if format_.indices:
    settings['index_files'] = {split.name: recorded.index_facts(
      index for file in split.files for index in format_.indices(file)) for split in splits}
  with ownership.own_folder(target):
    if manifest := recorded.manifest_of(target, folder, splits, settings):
      return manifest
    _require_free(target, folder)
    return _write(target, folder, format_, splits, loaded, mark, settings, progress)


def _find(where, format_):
  """Return (folder, [files.File]) without indices, which a pattern may match too."""
  folder, found = files.find(where, format_.names)
  is_named = lambda file: any(fnmatch.fnmatchcase(file.name, name) for name in format_.names)
  if format_.indices and not any(map(is_named, found)):
    raise InputError(f'{where} has no ids, only what describes them: give {" or ".join(format_.names)}')
  return folder, [file for file in found if not format_.indices or is_named(file)]


def _mark(tokenizer, begin_of_text, no_end_of_text):
  """Return the scan.Mark of the documents, or None; InputError if the tokenizer has no such token."""
  if begin_of_text and no_end_of_text:
    raise InputError('--begin_of_text and --no_end_of_text exclude each other: with the first, documents '
                     'need no end; remove the second')
  if begin_of_text:
    token = tokenizer.special_tokens.get(begin_of_text, tokenizer.n_vocab)
    if token >= tokenizer.n_vocab:
      raise InputError(f'--begin_of_text={begin_of_text} is not a special token of the tokenizer '
                       f'{tokenizer.name}, which has {", ".join(tokenizer.special_tokens) or "none"}')
    return scan.Mark(token, is_first=True)
  if no_end_of_text:
    return None
  if tokenizer.end_of_text is None:
    raise InputError(f'the tokenizer {tokenizer.name} has no end-of-text token, so the end of a document '
                     'cannot be seen: give --begin_of_text=TOKEN if documents begin with one, or '
                     '--no_end_of_text to take a split as one document, or what the index says')
  return scan.Mark(tokenizer.end_of_text)


def _absolute(folder):
  return folder if isinstance(folder, Url) else folder.resolve()


def _splits(format_, folder, found, validation, options, mark):
  """Return [scan.Split] of the files; InputError if one is not in the format, or has another dtype."""
  validation = format_.validation if validation is None else validation
  own = [*map(INDEX.format, SPLITS)]  # of an earlier call, in the folder of the files
  found = [file for file in found if file.name not in own]
  held_out = [file for file in found if validation and fnmatch.fnmatchcase(file.name, validation)]
  train = [file for file in found if file not in held_out]
  if not train:
    raise InputError(f'{folder} has no files of the train split, {len(held_out)} of the validation split: '
                     'give more files, or another --validation')
  splits = [scan.Split(name, some, [format_.layout(file, options) for file in some])
            for name, some in zip(SPLITS, (train, held_out), strict=True) if some]
  first, dtype = train[0], splits[0].layouts[0].dtype
  for split in splits:
    for file, one in zip(split.files, split.layouts, strict=True):
      if one.dtype != dtype:
        raise InputError(f'{file.path} has ids of {one.dtype.name}, but {first.name} of {dtype.name}, and a '
                         'corpus has one dtype: adopt them as two corpora')
  if mark and not format_.starts and (format_.end_first or mark.is_first):
    splits = [scan.after_first_mark(split, mark) for split in splits]
  return splits


def _require_free(target, folder):
  """Raise InputError if a folder holds what is neither of the files nor of an interrupted call."""
  own = {'tokenizer', owner_record.FILE, bucket_ownership.FOLDER, *map(INDEX.format, SPLITS)}
  others = [name for name in access.names(target) if name not in own and not name.endswith('.new')]
  if target != folder and others:
    raise InputError(f'{target} is not empty (it holds {min(others)}): give a new folder as --out, or that '
                     'of the files')
  if target == folder and access.is_folder(target / 'tokenizer') and not access.is_file(
      target / INDEX.format('train')):
    raise InputError(f'{target / "tokenizer"} exists, and the tokenizer of the corpus would replace it: give '
                     'a new folder as --out')


def _write(target, folder, format_, splits, tokenizer, mark, settings, progress):
  """Read the files, and write the corpus."""
  size = token_bytes.token_bytes(tokenizer)
  vocabulary = scan.Vocabulary(tokenizer.name, tokenizer.n_vocab, mark, size.n_bytes, size.per_document)
  entries, n_marks, n_bytes = {}, 0, sum(file.size for split in splits for file in split.files)
  with progress_bar.bytes_bar('reading', progress, total=n_bytes) as bar:
    for split in splits:
      index = INDEX.format(split.name)
      with spool.replacing(target / index) as file:
        entry, sha256, marks = scan.scan(split, format_, vocabulary, file, bar.update)
      entries[split.name] = {**entry, 'index': {'file': index, 'sha256': sha256}}
      n_marks += marks
  if mark and not n_marks:
    n_tokens = sum(entry['tokens'] for entry in entries.values())
    raise InputError(scan.no_mark(folder, n_tokens, mark))
  tokenizer.save(target / 'tokenizer')
  facts = {'name': tokenizer.name, 'digest': tokenizer.digest, 'n_vocab': tokenizer.n_vocab,
           'end_of_text': tokenizer.end_of_text}
  facts |= {'begin_of_text': mark.token} if mark and mark.is_first else {}
  counts = {f'{mark.name.replace("-", "_")}_tokens': n_marks} if mark else {}
  held_out = 'the files of the validation split' if 'validation' in entries else 'nothing'
  manifest = {
    'version': corpus_manifest.VERSION, 'dtype': settings['dtype'], 'tokenizer': facts, 'clean': '',
    'sources': [settings['source']], 'validation_fraction': 0.0, 'validation': held_out, 'skipped': {},
    'splits': entries, 'settings': {**settings, **counts, 'exact_bytes': size.exact},
    'content': corpus_manifest.content_digest(facts, entries)}
  recorded.write(target, folder, manifest)
  return manifest


def summary(manifest, seconds):
  """Return the lines that describe a finished corpus."""
  settings = manifest['settings']
  lines = [f'{"split":<12}{"files":>8}{"documents":>14}{"tokens":>18}{"bytes per token":>17}']
  for name, split in sorted(manifest['splits'].items()):
    lines.append(f'{name:<12}{len(split["shards"]):>8,}{split["documents"]:>14,}{split["tokens"]:>18,}'
                 f'{split["bytes"] / max(1, split["tokens"]):>17.3f}')
  estimated = '' if settings['exact_bytes'] else ', estimated: this tokenizer changes texts'
  marks = [plural(settings[f'{name.replace("-", "_")}_tokens'], f'{name} token')
           for name in ('begin-of-text', 'end-of-text') if f'{name.replace("-", "_")}_tokens' in settings]
  lines += [f'{manifest["dtype"]}, {marks[0] if marks else "no token between documents"}; bytes are those of '
            f'the entries of the tokenizer{estimated}',
            f'tokens in {manifest.get("tokens_folder", "the folder of the corpus")}, not copied; '
            f'{seconds:.1f} s',
            f'content {manifest["content"]}']
  return '\n'.join(lines)


def main(arguments):
  flags = vars(parser().parse_args(arguments))
  start = time.monotonic()
  print(summary(adopt(flags.pop('source'), **flags), time.monotonic() - start))


if __name__ == '__main__':
  run.run(main, 'adopt')
