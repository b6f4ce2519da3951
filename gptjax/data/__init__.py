"""Corpora: sources, cleaning, tokenizers, and the data that training reads.

  adopt       Makes a corpus of files of tokens that another project has written, in place.
  clean       The WebText recipe (GPT-2, section 2.1)
  corpus      A prepared corpus: its files, and the windows that each batch reads.
  encode      Encodes pieces of documents into token ids and assigns them to a split.
  engines     Chooses what runs the tasks of all stages, as the flags of a command say.
  export      Writes the tokens of a corpus in the layout of another project.
  foreign     Files of tokens that other projects write, in the layouts of their own.
  inspect     Inspects a corpus: counts, damage, document lengths, and the text of a document or a batch.
  languages   Counts the languages of documents: how many documents, and how many bytes of text, are in which
              language.
  links       The links of WebText (GPT-2, section 2.1): from dumps of Reddit submissions to lists of URLs.
  ngrams      The words that texts have in common: their n-grams as keys.
  prepare     Writes a corpus: documents from any source, tokenized, in shards with a manifest.
  progress    A progress bar that counts bytes.
  sources     Documents from files, archives, tables, TensorFlow Datasets and corpora.
  stages      The stages of `prepare`. Each consists of independent tasks, which may run on any machines, in
              any order.
  summary     The summary that `gptjax.data.prepare` prints for a finished corpus.
  tokenizers  Text to token ids and back
  webtext_links  Writes the links of WebText: the URLs in dumps of Reddit submissions that received at least 3
              karma.
  workers     Maps a function over a sequence in several processes, and yields the results in order.
"""
