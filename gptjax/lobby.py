"""Where the processes of a run meet before JAX starts: who has not come is named after a minute.

JAX's own start waits without a word and then aborts the process. So the processes first meet on plain
sockets, at the very port that JAX's coordination service takes over once everyone is there.
"""

import contextlib
import json
import os
import socket
import time

from gptjax.errors import InputError

GREETING = 'gptjax'


def meet(address, n, me, limit):
  """Waits until all processes of the run are there.

  Args:
    address: 'HOST:PORT' of process 0, the same on all.
    n: how many processes there are.
    me: the number of this one.
    limit: seconds.

  Returns:
    (the host names of all, the address to which process 0 is to bind).

  Raises:
    ValueError: names the processes that have not come, or what they disagree on.
  """
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise InputError(f'--coordinator={address} is not HOST:PORT')
  deadline = time.monotonic() + limit
  place = _find(address, host.strip('[]'), int(port), deadline)
  if me == 0:
    return _receive(address, place, n, deadline, limit)
  return _join(address, place, n, me, deadline, limit), None


def _find(address, host, port, deadline):
  """What getaddrinfo says of the host; a name may become known only when process 0's machine is up."""
  while True:
    try:
      return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
      if time.monotonic() > deadline:
        raise InputError(f'--coordinator={address}: {host} is not known here ({error.strerror})') from None
      time.sleep(0.5)


def _receive(address, place, n, deadline, limit):
  """Process 0: takes everyone in, then sends all the list of hosts, or what went wrong."""
  names, guests = {0: socket.gethostname()}, []
  with contextlib.ExitStack() as open_sockets:
    server, bind = _listen(address, place)
    open_sockets.enter_context(server)
    wrong = ''
    while len(names) < n and not wrong and (left := deadline - time.monotonic()) > 0:
      server.settimeout(left)
      try:
        guest, _ = server.accept()
      except TimeoutError:
        break
      open_sockets.enter_context(guest)
      known = len(names)
      wrong = _take_in(guest, names, n)
      if wrong or len(names) > known:
        guests.append(guest)
    hosts = [names.get(i, '') for i in range(n)]
    if len(names) < n and not wrong:
      wrong = missing(hosts, limit)
    answer = json.dumps({'hosts': hosts, 'wrong': wrong}) + '\n'
    for guest in guests:
      with contextlib.suppress(OSError):  # it has gone: JAX's start, or the others, will tell
        guest.sendall(answer.encode())
  if wrong:
    raise InputError(wrong)
  return hosts, bind


def _listen(address, place):
  """A socket bound to the interface that the address names; to all, where it is not one of this machine."""
  family, _, _, _, where = place
  for host in (where[0], ''):
    try:
      server = socket.create_server((host, where[1]), family=family, backlog=4096)
    except OSError as error:
      trouble = error.strerror
    else:
      shown = f'[{host}]' if ':' in host else host or '[::]'
      return server, f'{shown}:{where[1]}'
  raise InputError(f'process 0 cannot listen at --coordinator={address} ({trouble}): is another run there? '
                   'Take another port')


def _take_in(guest, names, n):
  """Reads who has come; gives what is wrong with that, or ''. What does not speak like us is passed over."""
  guest.settimeout(2)
  try:
    word, number, their_n, host = guest.recv(1024).decode().split()
    number, their_n = int(number), int(their_n)
  except (OSError, ValueError):
    return ''
  if word != GREETING:
    return ''
  if their_n != n:
    return (f'process {number} on {host} was started as one of {their_n}, process 0 as one of {n}: start all '
            'with the same number of processes')
  if number in names:
    return (f'two processes were started as number {number} (on {names[number]} and {host}): give each '
            'its own --process_id')
  names[number] = host
  return ''


def missing(hosts, limit):
  """The message that names who has not come."""
  known = os.environ.get('TPU_WORKER_HOSTNAMES', '').split(',')
  name = lambda i: f'{i} ({known[i]})' if len(known) == len(hosts) else str(i)
  absent = [name(i) for i, host in enumerate(hosts) if not host]
  here = [f'{i} ({host})' for i, host in enumerate(hosts) if host]
  return (f'of {len(hosts)} processes these have not come within {limit:.0f} s: {", ".join(absent)}; here '
          f'are {", ".join(here)}: look at the logs of those that are missing')


def _join(address, place, n, me, deadline, limit):
  """Any other process: says who it is, and waits for the list of hosts."""
  family, kind, protocol, _, where = place
  while True:
    guest = socket.socket(family, kind, protocol)
    with guest:
      guest.settimeout(max(deadline - time.monotonic(), 0.1))
      try:
        guest.connect(where)
        guest.sendall(f'{GREETING} {me} {n} {socket.gethostname()}\n'.encode())
        guest.settimeout(max(deadline - time.monotonic(), 0) + 5)  # the list of who is missing comes then
        answer = guest.makefile().readline()
      except OSError:
        answer = ''
    if answer:
      answer = json.loads(answer)
      if answer['wrong']:
        raise InputError(answer['wrong'])
      return answer['hosts']
    if time.monotonic() > deadline:
      raise InputError(f'process {me} of {n} on {socket.gethostname()} got no answer from process 0 at '
                       f'--coordinator={address} within {limit:.0f} s: is it running there, and does a '
                       'firewall let the port through?')
    time.sleep(0.2)
