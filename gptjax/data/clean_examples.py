"""For each filter of the WebText recipe a document that it, and none before it, removes, and one
that all filters keep. A document is (text, fields of its record)."""

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
OTHER = '''\
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
  'exact_duplicate': ((PROSE, {'title': 'the same again'}), (OTHER, {})),
  'near_duplicate': ((PROSE.replace('that summer', 'in summer'), {}), (OTHER, {})),
}
# These two look at other documents, here at PROSE coming first.
DUPLICATE_RULES = {
  'exact_duplicate': 'The same text as an earlier document.',
  'near_duplicate': 'An estimated 80 % of its phrases of five words, taken together with those of '
                    'an earlier document, are in both.',
}
