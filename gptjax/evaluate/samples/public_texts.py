"""Texts for samples: the paper's prompt about unicorns, and known texts in the public domain to recite."""

# Of Table 13.
UNICORNS = (
  'In a shocking finding, scientist discovered a herd of unicorns living in a remote, previously unexplored '
  'valley, in the Andes Mountains. Even more surprising to the researchers was the fact that the unicorns '
  'spoke perfect English.')

GETTYSBURG = '''\
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived \
in Liberty, and dedicated to the proposition that all men are created equal.

Now we are engaged in a great civil war, testing whether that nation, or any nation so conceived and \
so dedicated, can long endure. We are met on a great battle-field of that war. We have come to \
dedicate a portion of that field, as a final resting place for those who here gave their lives that \
that nation might live. It is altogether fitting and proper that we should do this.

But, in a larger sense, we can not dedicate -- we can not consecrate -- we can not hallow -- this \
ground. The brave men, living and dead, who struggled here, have consecrated it, far above our poor \
power to add or detract. The world will little note, nor long remember what we say here, but it can \
never forget what they did here. It is for us the living, rather, to be dedicated here to the \
unfinished work which they who fought here have thus far so nobly advanced. It is rather for us to \
be here dedicated to the great task remaining before us -- that from these honored dead we take \
increased devotion to that cause for which they gave the last full measure of devotion -- that we \
here highly resolve that these dead shall not have died in vain -- that this nation, under God, \
shall have a new birth of freedom -- and that government of the people, by the people, for the \
people, shall not perish from the earth.'''

DECLARATION = '''\
When in the Course of human events, it becomes necessary for one people to dissolve the political \
bands which have connected them with another, and to assume among the powers of the earth, the \
separate and equal station to which the Laws of Nature and of Nature's God entitle them, a decent \
respect to the opinions of mankind requires that they should declare the causes which impel them to \
the separation.

We hold these truths to be self-evident, that all men are created equal, that they are endowed by \
their Creator with certain unalienable Rights, that among these are Life, Liberty and the pursuit of \
Happiness. -- That to secure these rights, Governments are instituted among Men, deriving their just \
powers from the consent of the governed, -- That whenever any Form of Government becomes destructive \
of these ends, it is the Right of the People to alter or to abolish it, and to institute new \
Government, laying its foundation on such principles and organizing its powers in such form, as to \
them shall seem most likely to effect their Safety and Happiness.'''

GENESIS = '''\
In the beginning God created the heaven and the earth. And the earth was without form, and void; and \
darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters. And \
God said, Let there be light: and there was light. And God saw the light, that it was good: and God \
divided the light from the darkness. And God called the light Day, and the darkness he called Night. \
And the evening and the morning were the first day. And God said, Let there be a firmament in the \
midst of the waters, and let it divide the waters from the waters. And God made the firmament, and \
divided the waters which were under the firmament from the waters which were above the firmament: \
and it was so. And God called the firmament Heaven. And the evening and the morning were the second \
day.'''

HAMLET = '''\
To be, or not to be, that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles
And by opposing end them. To die -- to sleep,
No more; and by a sleep to say we end
The heart-ache and the thousand natural shocks
That flesh is heir to: 'tis a consummation
Devoutly to be wish'd. To die, to sleep;
To sleep, perchance to dream -- ay, there's the rub:
For in that sleep of death what dreams may come,
When we have shuffled off this mortal coil,
Must give us pause.'''

TWO_CITIES = '''\
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of \
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of \
Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair, we \
had everything before us, we had nothing before us, we were all going direct to Heaven, we were all \
going direct the other way -- in short, the period was so far like the present period, that some of \
its noisiest authorities insisted on its being received, for good or for evil, in the superlative \
degree of comparison only.'''

KNOWN = {
  'Lincoln, the Gettysburg Address (1863)': GETTYSBURG,
  'The Declaration of Independence of the United States (1776)': DECLARATION,
  'Genesis 1, 1 to 8, King James Version (1611)': GENESIS,
  'Shakespeare, Hamlet, act 3, scene 1': HAMLET,
  'Dickens, A Tale of Two Cities (1859)': TWO_CITIES}
