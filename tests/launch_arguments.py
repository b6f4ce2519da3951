"""Arguments that a launcher must pass on unchanged."""

ODD = [
  '--config=configs/quickstart.py', '--workdir=gs://BUCKET/runs/a b', "--config.a=it's", '--config.b="b"', '',
  '--config.c=a\nb\tc', '--config.d=$HOME $(echo no) $$ `echo no` ${HOME} ${NAME} ${ARGS}',
  r'--config.e=\n\\ %s *', '--config.f=a;b&c|d>e<f#g !h', '--config.g={"a": [1, 2]}', '--config.h=ä→', '-']
