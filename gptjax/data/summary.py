"""What `gptjax.data.prepare` prints of a corpus that it has written."""

from gptjax.data.corpus import held_out
from gptjax.text.words import plural


def format_summary(manifest, seconds):
  """What was written, a line a split, and what was left out; `seconds` is of this process."""
  lines = [f'{"split":<12}{"documents":>14}{"tokens":>18}{"bytes per token":>17}']
  for name, split in sorted(manifest['splits'].items()):
    lines.append(f'{name:<12}{split["documents"]:>14,}{split["tokens"]:>18,}'
                 f'{split["bytes"] / max(1, split["tokens"]):>17.3f}')
  skipped = manifest['skipped']
  lines += [f'skipped {count:,}: {why}' for why, count in sorted(skipped.items())]
  lines.append(f'skipped {plural(sum(skipped.values()), "document")}; {seconds:.1f} s')
  if found := manifest.get('no_origin'):
    lines.append(f'no url or domain: {found["documents"]:,} of {plural(found["of"], "document")}, which the '
                 'filters by origin (blocked_domain, wikipedia) judge by title and text, or not at all')
  lines.append(_held_out_line(manifest))
  return '\n'.join(lines)


def _held_out_line(manifest):
  splits, what = manifest['splits'], manifest['validation']
  if 'validation' not in splits:  # versions up to 0.1.0 do not say why
    why = what.removeprefix(held_out.NOTHING) if what.startswith(held_out.NOTHING) else ''
    return f'nothing is held out{why}'
  tokens = {name: split['tokens'] for name, split in splits.items()}
  share = tokens['validation'] / sum(tokens.values())
  return f'held out: {what}, {share:.2%} of the tokens'
