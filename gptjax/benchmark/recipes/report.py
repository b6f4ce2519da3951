"""The table, the figure and the result file of the comparison."""

import statistics

from gptjax.benchmark import results
from gptjax.benchmark.machine import machine_info
from gptjax.benchmark.recipes.comparison import FULL, HALF
from gptjax.benchmark.recipes.contenders import BASELINE, SIZES, WITHOUT
from gptjax.command import figures

COSTS = {'model FLOPs': lambda arm: arm['flops'],
         "FLOPs with Muon's": lambda arm: arm['flops'] + arm['muon_flops'],
         'processor time': lambda arm: arm['processor']}


def report(ends, without, out):
  """Print tables and verdicts; write the result file and the plot.

  Args:
    ends: {size: arms of `comparison.compare_ends`}.
    without: {size: arms of `comparison.compare_ingredients`}.
    out: path of the JSON file; '': none.
  """
  machine = machine_info(('jax', 'jaxlib', 'flax', 'optax'))
  print(f'{machine["cores"]} cores of {machine["processor"]}, {machine["date"]}')
  arms = {size: ends.get(size, without.get(size, [])[:1]) + without.get(size, [])[1:]
          for size in dict.fromkeys([*ends, *without])}
  checks = [gate for size in ends for gate in gates(size, ends[size])]
  verdicts = [verdict for size in without for verdict in ingredient_verdicts(size, without[size])]
  shares = {size: shares_at_loss(ends[size]) for size in ends}
  for size in arms:
    print_arms(size, arms[size])
    for cost, (words, share) in shares.get(size, {}).items():
      print(f'{cost} for the loss of {BASELINE}, as a share of its own: {words}{share:.2f}')
  print('', *map(format_verdict, verdicts), '', sep='\n')
  results.print_gates(checks)
  rows = [row for size in ends for row in rows_of(size, ends[size])]
  results.write(out, 'recipes', machine, rows, checks, sizes={size: SIZES[size]._asdict() for size in arms},
                arms=arms, shares=shares, verdicts=verdicts)
  if out and (ends or verdicts):
    plot(ends, verdicts, f'{out.removesuffix(".json")}.png')


def print_arms(size, arms):
  """Print a table of arms (see `comparison`)."""
  shape = SIZES[size].model
  print(f'\n{size}: {shape["n_layer"]} layers x {shape["n_embd"]}, {len(arms[0]["losses"])} seeds\n\n'
        f'{"held-out loss, nats per token":<52}{"mean":>8}{"min":>8}{"max":>8}{"rate":>10}{"M tokens":>10}'
        f'{"TFLOP":>8}{"Muon":>7}{"CPU s":>8}')
  for arm in arms:
    losses = arm['losses']
    print(f'{arm["contender"] + ", " + arm["budget"]:<52}{statistics.mean(losses):>8.4f}{min(losses):>8.4f}'
          f'{max(losses):>8.4f}{arm["rate"]:>10g}{arm["tokens"] / 1e6:>10.3f}{arm["flops"] / 1e12:>8.2f}'
          f'{arm["muon_flops"] / 1e12:>7.2f}' + (f'{arm["processor"]:>8.1f}' if 'processor' in arm else ''))


def gates(size, arms):
  """The target of a size: half the FLOPs reach the baseline's loss, the worst seed that of the best one."""
  losses = {(arm['budget']): arm['losses'] for arm in arms}
  return [results.gate(f'{size}: highest loss of the seeds with half the FLOPs', '<=', min(losses[FULL]),
                       max(losses[HALF]))]


def shares_at_loss(arms):
  """{cost: (words, share)}: what the recipe needs for the baseline's mean loss, as a share of its cost.

  Between two budgets the mean loss is linear in the logarithm of the cost. If all budgets reach the loss, the
  share is that of the smallest one, and the words are 'at most '; if none does, that of the largest one, and
  they are 'more than '.

  Args:
    arms: of both ends.
  """
  baseline, *modern = arms
  target, costs = statistics.mean(baseline['losses']), dict(COSTS)
  if 'processor' not in baseline:  # there was no time to measure it
    del costs['processor time']
  return {name: _cost_at_loss([(cost(arm), statistics.mean(arm['losses'])) for arm in modern], target,
                              cost(baseline)) for name, cost in costs.items()}


def _cost_at_loss(points, target, unit):
  """(words, cost at a loss in units), from points (cost, loss); see `shares_at_loss`."""
  points = sorted(points)
  reached = next((number for number, (_, loss) in enumerate(points) if loss <= target), None)
  if reached is None:
    return 'more than ', points[-1][0] / unit
  if not reached:
    return 'at most ', points[0][0] / unit
  (low, above), (high, below) = points[reached - 1:reached + 1]
  return '', low * (high / low) ** ((above - target) / (above - below)) / unit


def ingredient_verdicts(size, arms):
  """[{'ingredient', 'difference', 'spread', 'helps'}] of the arms without an ingredient, and with all.

  An ingredient helps if the mean loss without it is higher by more than the spread over seeds: the wider of
  the two ranges from the best seed to the worst.

  Args:
    size: its name.
    arms: of `comparison.compare_ingredients`.
  """
  verdicts, (whole, *without) = [], arms
  spread = lambda arm: max(arm['losses']) - min(arm['losses'])
  for arm in without:
    difference = statistics.mean(arm['losses']) - statistics.mean(whole['losses'])
    noise = max(spread(arm), spread(whole))
    verdicts.append({'size': size, 'ingredient': arm['contender'].removeprefix(WITHOUT),
                     'difference': difference, 'spread': noise, 'helps': difference > noise})
  return verdicts


def format_verdict(verdict):
  """A sentence that states a verdict."""
  direction = 'higher' if verdict['difference'] > 0 else 'lower'
  exceeds = abs(verdict['difference']) > verdict['spread']
  return (f'without {verdict["ingredient"]}: {abs(verdict["difference"]):.4f} nats {direction}, '
          f'{"more" if exceeds else "NOT more"} than the range {verdict["spread"]:.4f} over seeds')


def rows_of(size, arms):
  """Rows of the result file."""
  what = lambda arm: f'{size}: held-out loss, {arm["budget"]}'
  return [results.row(what(arm), arm['contender'], 'nats/token', arm['losses']) for arm in arms]


def plot(arms_of_size, verdicts, path):
  """Plot loss over FLOPs for each size, and what the loss rises by without each ingredient.

  Args:
    arms_of_size: {size: arms of both ends}.
    verdicts: of `ingredient_verdicts`; may be empty.
    path: of the PNG.
  """
  panels = len(arms_of_size) + bool(verdicts)
  figure, axes = figures.figure(1, panels, (5 * panels, 4), squeeze=False)
  for panel, (size, arms) in zip(axes[0], arms_of_size.items()):
    _plot_size(panel, size, arms)
  if verdicts:
    _plot_ingredients(axes[0][-1], verdicts)
  figures.save(figure, path)


def _plot_size(panel, size, arms):
  """Final loss over FLOPs: a point for each seed, and a line through the means."""
  for contender in dict.fromkeys(arm['contender'] for arm in arms):
    points = sorted((arm['flops'] / 1e12, arm['losses']) for arm in arms if arm['contender'] == contender)
    line, = panel.plot([flops for flops, _ in points], [statistics.mean(losses) for _, losses in points],
                       '-_', label=contender)
    for flops, losses in points:
      panel.plot([flops] * len(losses), losses, 'o', markersize=4, color=line.get_color())
  baseline = next(arm for arm in arms if arm['budget'] == FULL)
  panel.axhline(statistics.mean(baseline['losses']), linestyle=':', color='gray')
  panel.axvline(baseline['flops'] / 2e12, linestyle=':', color='gray')
  shape = SIZES[size].model
  panel.set(title=f'{shape["n_layer"]} layers x {shape["n_embd"]}', xlabel='training TFLOP',
            ylabel='held-out loss, nats per token')
  panel.legend()


def _plot_ingredients(panel, verdicts):
  """The difference without each ingredient, with the spread over seeds."""
  names = [figures.literal(verdict['ingredient']) for verdict in verdicts]
  panel.barh(names, [verdict['difference'] for verdict in verdicts],
             xerr=[verdict['spread'] for verdict in verdicts])
  panel.axvline(0, color='black', linewidth=0.8)
  panel.invert_yaxis()
  panel.set(title='without one ingredient', xlabel='rise of the loss; bars: range over seeds')
