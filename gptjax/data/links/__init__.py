"""The links of WebText (GPT-2, section 2.1): from dumps of Reddit submissions to lists of URLs.

  link_files   The stages `select` and `merge`: links of all dumps, each once, in files of URLs.
  media        Sites and endings of names whose pages have no text.
  submissions  Reads a submission of a dump, and says whether its link is one of WebText's.
  url_list     A list of URLs, by which pages of web archives are chosen.
  urls         Canonical URLs, and the keys by which they are compared.
"""
