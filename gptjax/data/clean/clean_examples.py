"""Examples for each filter of the WebText recipe.

Each filter has a document that it is the first to remove, and one that all filters keep. A document is
(text, fields of its record).
"""

PROSE = '''\
It was the first of many walks that he would take along the river that summer, and he said later
that he had not known what he was looking for until he found it there. The water was low, the
stones on the far side were dry, and a boy had put a line of them across the stream so that one
could walk over without getting wet. He asked the boy who had shown him how to do it.

"Nobody," said the boy, "you can see where they have to go if you look at the water for long
enough." They talked about it for an hour, and when he went home he began to write the book that
would make his name. It was out of print when he died, but there are more of his readers now
than there were then.
'''
OTHER_PROSE = '''\
She had been told that the archive would be closed on Monday, and so it was; the man at the gate
was sorry, but there was nothing that he could do about it before the next morning. There were
two inns in the town. At the first of them they had a room which was over the kitchen, and it
was so warm that she left the window open and heard every word of what the cook thought about
the mayor.

By the time the archive opened she had most of what she had come for. What the letters said
about the election, the cook had said in fewer words, and the dates were the only thing that she
had to look up.
'''
FRENCH = '''\
Le gouvernement a annoncé hier que les travaux de la nouvelle ligne commenceraient au printemps,
malgré les réserves exprimées par plusieurs élus de la région et par les habitants.
''' * 5
NUMBERS = '\n'.join(f'{i} of {i * 7} | {i / 3:.4f} | to {i * i} (+{i % 9}.{i}%) in {2000 + i};'
                    for i in range(40))
LETTERS = 'a b c d e f g h is it as he be of to in an on at we i j k l m n o p or my by do. ' * 6
REFRAIN = 'He said that it was so, and it was so because they had all said that it was so.\n' * 20
_THINGS = ('News', 'Stories', 'Pictures', 'Letters', 'Prices', 'Sports')
_LINKS = ('and the', 'of the', 'for a', 'with the', 'from a', 'in the')
MENU = '\n'.join(f'{a} {link} {_THINGS[(i + 2 * j) % 6]}' for i, a in enumerate(_THINGS)
                 for j, link in enumerate(_LINKS))

EXAMPLES = {
  'blocked_domain': ((PROSE, {'url': 'https://m.blocked.example/a.html'}),
                     (PROSE, {'url': 'https://notblocked.example/a.html'})),
  'wikipedia': ((PROSE, {'url': 'https://en.m.wikipedia.org/wiki/River'}),
                (PROSE, {'url': 'https://example.org/wikipedia.org'})),
  'short': ((PROSE[:400], {}), (PROSE, {})),
  'not_english': ((FRENCH, {}), (PROSE, {})),
  'symbols': ((NUMBERS, {}), (PROSE, {})),
  'word_length': ((LETTERS, {}), (PROSE, {})),
  'repetition': ((REFRAIN, {}), (PROSE, {})),
  'menu': ((MENU, {}), (PROSE, {})),
  'placeholder': (('To see this page, enable JavaScript in your browser.\n' + PROSE, {}),
                  (PROSE.replace('a boy', 'a boy who knew JavaScript'), {})),
  'exact_duplicate': ((PROSE, {'title': 'the same again'}), (OTHER_PROSE, {})),
  'near_duplicate': ((PROSE.replace('that summer', 'in summer'), {}), (OTHER_PROSE, {})),
}
# Other kinds of text, which filters for prose on web pages may also remove.
VERSE = '''\
I walked all night beside the sea
and what I thought I thought alone
the tide was coming in to me
and it was cold and made of stone

there was a light upon the hill
that some had said was never there
I saw it once and see it still
when it is dark and I am where

the road goes down among the trees
and out again into the rain
with all the words there are for these
I have not said your name again

so let me be what you would have
a house that no one has been in
the one whose roof is made of love
and who will know when I begin
'''
SONG = '''\
Oh the boats are on the water,
and the wind is in the sail,
and the boys have kissed the daughters,
and the night is growing pale.

So row, my dear, and row,
for the river has to go,

When the morning has been counted,
and the nets have all been drawn,
when the hill has all been mounted
by the first one of the dawn.

So row, my dear, and row,
for the river has to go,

And at night we shall be sitting
with the ones who would not come,
and the old ones will be knitting
what the young ones have begun.

So row, my dear, and row,
for the river has to go,

So row, my dear, and row,
for the river has to go.
So row, my dear, and row,
for the river has to go.
'''
PLAY = '''\
ANNA
Who is it at the door at this time of the night
THE MILLER
It is only me and I have the flour
ANNA
You said that it would be here on Monday
THE MILLER
There was no wind and there was no water
ANNA
And so there was no bread in the house
THE MILLER
I am here now and it is in the cart
ANNA
Who would have thought that you had a cart
THE MILLER
It was my father who made it for me
ANNA
Then come in and tell me what he was like
THE MILLER
He was a man who was in no hurry at all
(She laughs and goes to the fire)
'''
PYTHON = '''\
import collections
import pathlib

LIMIT = 1000


def read_words(path, lower=True):
  text = pathlib.Path(path).read_text(encoding='utf-8')
  if lower:
    text = text.lower()
  return [word.strip('.,;:') for word in text.split() if word.strip('.,;:')]


def count(words, limit=LIMIT):
  counts = collections.Counter()
  for number, word in enumerate(words):
    if number >= limit:
      break
    counts[word] += 1
  return counts


class Table:
  def __init__(self, counts, width=20):
    self.counts = counts
    self.width = width

  def rows(self):
    for word, times in self.counts.most_common():
      yield f'{word:<{self.width}}{times:>8}'

  def total(self):
    return sum(self.counts.values())


def main(arguments):
  for path in arguments:
    table = Table(count(read_words(path)))
    print(path, table.total())
    for row in table.rows():
      print(row)
    longest = max(table.counts, key=len, default='')
    print(f'{longest!r}: {len(longest)} characters')
    path.with_suffix('.counts').write_text('\\n'.join(table.rows()))
'''
FALSE_POSITIVES = {'verse': VERSE, 'a song with a refrain': SONG, 'a scene of a play': PLAY,
                   'Python source': PYTHON}

# The rule of each filter, as the command lists it. `python -OO` would remove docstrings.
DESCRIPTIONS = {
  'blocked_domain': 'The domain, a parent domain, or the name of the site is in the list of '
                    'blocked domains.',
  'wikipedia': 'A page of Wikipedia: by its url or domain; if it has neither, by a title'
               " in the user's list. The title is the record's, or the text's first line. "
               'Also text that states that it is from Wikipedia.',
  'short': 'Fewer than 96 words: about the 128 tokens that OpenWebText requires.',
  'not_english': 'Under 15 % of the words are frequent English ones, or over 10 % of the '
                 'letters are not ASCII. English prose has 40 to 55 % of them, other '
                 'European languages under 8 %.',
  'symbols': 'Under 70 % of the characters except white space are letters: tables, code, '
             'lists of numbers.',
  'word_length': 'The mean word has under 3 or over 10 characters (Gopher, Rae et al. 2021,'
                 ' A.1.1).',
  'repetition': 'Over 30 % of the lines occurred before, or one phrase of 4 words fills '
                'over 15 % of the text. Both after Gopher, A.1.1 (which sets the second by '
                'length: 0.20 for 2 words to 0.16 for 4).',
  'menu': 'Of six lines or more, under 10 % end like a sentence: menus, link lists, '
          'indices.',
  'placeholder': 'A placeholder: `lorem ipsum` or an error message of a browser, in under 400 '
                 'words.',
  # These two compare documents; the examples assume that PROSE came first.
  'exact_duplicate': 'The same text as an earlier document.',
  'near_duplicate': 'Its five-word phrases and those of an earlier document have an estimated '
                    'Jaccard similarity of 75 % or more, or of --near_threshold.',
}
