"""The summary that `gptjax.data.prepare` prints for a finished corpus."""

from gptjax.data.corpus import held_out
from gptjax.text.words import plural


def format_summary(manifest, seconds):
  """Return the summary: one line per split, then skipped documents; `seconds` is of this process."""
  lines = [f'{"split":<12}{"documents":>14}{"tokens":>18}{"bytes per token":>17}']
  for name, split in sorted(manifest['splits'].items()):
    lines.append(f'{name:<12}{split["documents"]:>14,}{split["tokens"]:>18,}'
                 f'{split["bytes"] / max(1, split["tokens"]):>17.3f}')
  skipped = manifest['skipped']
  lines += [f'skipped {count:,}: {reason}' for reason, count in sorted(skipped.items())]
  lines.append(f'skipped {plural(sum(skipped.values()), "document")}; {seconds:.1f} s')
  lines += [f'test set {name}: {counts["ngrams_found"]:,} of {plural(counts["ngrams"], "n-gram")} in '
            f'{plural(counts["source_documents"], "document")} of the sources'
            for name, counts in sorted(manifest.get('excluded', {}).items())]
  if no_origin := manifest.get('no_origin'):
    lines.append(f'no url or domain: {no_origin["documents"]:,} of '
                 f'{plural(no_origin["of"], "document")}, which the '
                 'filters by origin (blocked_domain, wikipedia) judge by title and text, or not at all')
  lines.append(_held_out_line(manifest))
  return '\n'.join(lines)


def _held_out_line(manifest):
  splits, rule = manifest['splits'], manifest['validation']
  if 'validation' not in splits:  # versions up to 0.1.0 do not record the reason
    reason = rule.removeprefix(held_out.NOTHING) if rule.startswith(held_out.NOTHING) else ''
    return f'nothing is held out{reason}'
  tokens = {name: split['tokens'] for name, split in splits.items()}
  share = tokens['validation'] / sum(tokens.values())
  return f'held out: {rule}, {share:.2%} of the tokens'
