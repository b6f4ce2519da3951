"""Draws the pictures of docs/explanation/sharding.md: python docs/images/sharding.py

Writes sharding_data.svg, sharding_fsdp.svg, sharding_tensor.svg and sharding_mesh.svg beside this file. They
have a white background, so that they can be read on a dark page too.
"""

from html import escape
from itertools import pairwise
from pathlib import Path

FONT = 'font-family="system-ui, sans-serif"'
INK, GREY, WEIGHT, BATCH, GRADIENT, SENT = '#1f2933', '#c3ccd5', '#9ec5ee', '#f6d58e', '#b5dca9', '#b3261e'


class Picture:
  """An SVG document of shapes on white."""

  def __init__(self, width, height, title):
    self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                  f'height="{height}" role="img" {FONT}>', f'<title>{escape(title)}</title>',
                  f'<rect width="{width}" height="{height}" rx="8" fill="white"/>']

  def box(self, x, y, width, height, fill='none', line=GREY):
    self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="3" fill="{fill}" '
                      f'stroke="{line}"/>')

  def text(self, x, y, text, size=13, anchor='middle', fill=INK, weight='normal'):
    self.parts.append(f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
                      f'font-weight="{weight}">{escape(text)}</text>')

  def heading(self, text):
    self.text(20, 26, text, 14, 'start', weight='bold')

  def block(self, x, y, width, height, fill, text):
    """A filled box with its text in the middle."""
    self.box(x, y, width, height, fill, INK)
    self.text(x + width / 2, y + height / 2 + 4, text, 12)

  def arrow(self, points):
    """A line through points [(x, y)], with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
    back_x, back_y = x1 - 7 * dx, y1 - 7 * dy
    head = f'{x1},{y1} {back_x - 4 * dy},{back_y - 4 * dx} {back_x + 4 * dy},{back_y + 4 * dx}'
    line = ' '.join(f'{x},{y}' for x, y in points)
    self.parts.append(f'<polyline points="{line}" fill="none" stroke="{SENT}" stroke-width="1.6"/>'
                      f'<polygon points="{head}" fill="{SENT}"/>')

  def exchange(self, centers, y, text):
    """A collective of all devices: arrows both ways between neighbours, and its name below."""
    for left, right in pairwise(centers):
      self.arrow([(left + 6, y), (right - 6, y)])
      self.arrow([(right - 6, y + 8), (left + 6, y + 8)])
    self.text((centers[0] + centers[-1]) / 2, y + 28, text, 13, fill=SENT, weight='bold')

  def save(self, name):
    Path(__file__).with_name(name).write_text('\n'.join([*self.parts, '</svg>']) + '\n', encoding='utf-8')


def devices(picture, n, y, height, width=150, gap=20, left=20):
  """Draw n device boxes in a row; returns their left edges."""
  edges = [left + i * (width + gap) for i in range(n)]
  for i, x in enumerate(edges):
    picture.box(x, y, width, height)
    picture.text(x + width / 2, y + 18, f'device {i}', 12, fill='#52606d')
  return edges


def data():
  picture = Picture(700, 330, 'Data parallelism: gradients are all-reduced once per step')
  picture.heading('replica, data: all weights on each device, and its own rows of the batch')
  edges = devices(picture, 4, 44, 180)
  for i, x in enumerate(edges):
    picture.block(x + 12, 70, 126, 34, BATCH, f'rows {4 * i} to {4 * i + 3}')
    picture.block(x + 12, 112, 126, 52, WEIGHT, 'all weights')
    picture.block(x + 12, 172, 126, 38, GRADIENT, f'partial gradient {i}')
  picture.exchange([x + 75 for x in edges], 240, 'all-reduce of each gradient: once per step, float32')
  picture.text(350, 300, 'afterwards each device has the same sum, and makes the same update', 13)
  picture.save('sharding_data.svg')


def quarters(picture, x, y, held, fill, letter):
  """Four parts of a weight, of which those in `held` are filled."""
  for part in range(4):
    line = INK if part in held else GREY
    picture.box(x + 31.5 * part, y, 31.5, 30, fill if part in held else 'white', line)
    picture.text(x + 31.5 * part + 16, y + 20, f'{letter}{part}', 12, fill=line)


def fsdp():
  picture = Picture(700, 570, 'Fully sharded data parallelism: weights are gathered, gradients scattered')
  picture.heading('fsdp: each device stores a part of each weight, and has its own rows of the batch')
  one, every = lambda i: [i], lambda i: range(4)
  rows = (('between steps: stored weights in float32 (and moments)', 44, one, WEIGHT, 'w'),
          ('inside the step, where a layer uses its weights', 188, every, WEIGHT, 'w'),
          ('backward pass of the layer: a partial sum of the whole gradient', 332, every, GRADIENT, 'g'),
          ('afterwards: the sum for the stored part', 476, one, GRADIENT, 'g'))
  for text, y, held, fill, letter in rows:
    edges = devices(picture, 4, y, 64)
    picture.text(350, y + 80, text, 12, fill='#52606d')
    for i, x in enumerate(edges):
      quarters(picture, x + 12, y + 26, held(i), fill, letter)
  centers = [x + 75 for x in edges]
  picture.exchange(centers, 138,
                   'all-gather: once per layer and microbatch, with remat full twice; compute dtype')
  picture.exchange(centers, 426, 'reduce-scatter: once per layer and microbatch; compute dtype')
  picture.save('sharding_fsdp.svg')


def tensor():
  picture = Picture(700, 480, 'Tensor parallelism: two all-reduces of activations per layer')
  picture.heading('tensor: the same rows on each device, parts of heads, MLP and vocabulary')
  parts = (('the attention', 'c_attn: heads {}', 'softmax of heads {}', 'c_proj: heads {}', 44),
           ('the MLP', 'c_fc: columns {}', 'GELU of columns {}', 'c_proj: rows {}', 264))
  for name, first, middle, last, y in parts:
    edges = devices(picture, 4, y, 150)
    for i, x in enumerate(edges):
      number = f'{3 * i}-{3 * i + 2}' if name == 'the attention' else f'{i + 1}/4'
      picture.block(x + 6, y + 28, 138, 32, WEIGHT, first.format(number))
      picture.block(x + 6, y + 66, 138, 32, BATCH, middle.format(number))
      picture.block(x + 6, y + 104, 138, 32, WEIGHT, last.format(number))
    picture.exchange([x + 75 for x in edges], y + 160, f'all-reduce of activations after {name}')
  picture.text(350, 472, 'the backward pass has two more: gradients of the inputs of attention and MLP',
               12, fill='#52606d')
  picture.save('sharding_tensor.svg')


def mesh():
  picture = Picture(700, 330, 'A mesh of two slices: only gradients cross the slow network')
  picture.heading('replica 2 x fsdp 4, over two slices or nodes')
  for row, y in enumerate((48, 208)):
    picture.box(12, y, 676, 92, '#f5f7fa')
    picture.text(24, y + 18, f'slice {row} (fast network inside): replica {row}', 12, 'start', fill='#52606d')
    for i in range(4):
      x = 30 + 165 * i
      picture.block(x, y + 28, 130, 50, WEIGHT, f'fsdp {i}: part {i}')
      if i:
        picture.arrow([(x - 33, y + 49), (x - 3, y + 49)])
        picture.arrow([(x - 3, y + 57), (x - 33, y + 57)])
  for i in range(4):
    x = 95 + 165 * i
    picture.arrow([(x - 5, 143), (x - 5, 205)])
    picture.arrow([(x + 5, 205), (x + 5, 143)])
  labels = ('slow network:', ''), ('the part of', 'each gradient'), ('once per step,', 'in float32')
  for i, lines in enumerate(labels):
    for number, line in enumerate(lines):
      picture.text(177 + 165 * i, 170 + 16 * number, line, 12, fill=SENT, weight='bold')
  picture.text(350, 318, 'inside a slice: weights and gradients, per layer and microbatch', 12, fill=SENT)
  picture.save('sharding_mesh.svg')


if __name__ == '__main__':
  for draw in (data, fsdp, tensor, mesh):
    draw()
