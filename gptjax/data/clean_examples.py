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
# What each filter removes, as the command lists it; docstrings would be absent with `python -OO`.
RULES = {
  'blocked_domain': 'From a domain of the list that the user gave, or from a part of one.',
  'wikipedia': 'A page of Wikipedia: by its url or domain; where it has neither, by a title'
               " of the user's list. The title is the record's, or the text's first line. "
               "What says that it is Wikipedia's is, too.",
  'short': 'Fewer than 96 words: about the 128 tokens that OpenWebText asks for.',
  'not_english': 'Under 15 % of the words are frequent English ones, or over 10 % of the '
                 'letters are not ASCII. English prose has 40 to 55 % of them, other '
                 'European languages under 8 %.',
  'symbols': 'Under 70 % of what is not white space are letters: tables, code, lists of '
             'numbers.',
  'word_length': 'The mean word has under 3 or over 10 characters (Gopher, Rae et al. 2021,'
                 ' A.1.1).',
  'repetition': 'Over 30 % of the lines occurred before, or one phrase of 4 words fills '
                'over 15 % of the text. Both after Gopher, A.1.1 (which sets the second by '
                'length: 0.20 for 2 words to 0.16 for 4).',
  'menu': 'Of six lines or more, under 10 % end like a sentence: menus, link lists, '
          'indices.',
  'placeholder': "A page that stands for another: `lorem ipsum`, a browser's complaint; in "
                 'under 400 words.',
  # These two look at other documents, in EXAMPLES at PROSE coming first.
  'exact_duplicate': 'The same text as an earlier document.',
  'near_duplicate': 'An estimated 80 % of its phrases of five words, taken together with those of '
                    'an earlier document, are in both.',
}
