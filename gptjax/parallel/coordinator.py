"""The address of the coordinator (process 0), and the start of JAX's coordination service."""

import ipaddress
import os
import re

import jax

from gptjax.errors import InputError, LostProcess

LABEL = r'[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?'
HOST_NAME = re.compile(rf'{LABEL}(\.{LABEL})*\.?')



def host_and_port(address, name='--coordinator'):
  """Return (host, port) of 'HOST:PORT'; the brackets of an IPv6 address may be omitted.

  Raises:
    InputError: the address is not HOST:PORT.
  """
  def refuse(why):
    raise InputError(f'{name}={address!r} is not HOST:PORT: {why}')
  if '/' in address:
    refuse('it must have no protocol and no path; write node7:1234')
  host, colon, port = address.rpartition(':')
  if not colon:
    refuse('the port is missing; write node7:1234')
  if not re.fullmatch('[0-9]{1,5}', port) or not 1 <= int(port) <= 65535:
    refuse(f'the port {port!r} must be from 1 to 65535')
  bracketed = host.startswith('[') and host.endswith(']')
  if bracketed or ':' in host:
    host = host[1:-1] if bracketed else host
    if not _is_address(ipaddress.IPv6Address, host):
      refuse(f'{host!r} is not an IPv6 address; write [fd00::7]:1234')
  elif re.fullmatch('[0-9.]+', host) and not _is_address(ipaddress.IPv4Address, host):
    refuse(f'{host!r} is not an IPv4 address')
  elif len(host) > 253 or not HOST_NAME.fullmatch(host):
    refuse(f'{host!r} is not a host name')
  return host, int(port)


def join_host_port(host, port):
  """Return 'HOST:PORT', with an IPv6 address in brackets."""
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def no_grpc_proxy(environ, host):
  """Return the value of `no_grpc_proxy` with which gRPC connects to a host without a proxy.

  gRPC reads the proxy from grpc_proxy, https_proxy or http_proxy, and the hosts without proxy from
  no_grpc_proxy or, if that is not set, from no_proxy.
  """
  before = environ.get('no_grpc_proxy', environ.get('no_proxy', ''))
  hosts = [name for name in before.split(',') if name.strip()]
  return ','.join([*hosts, host] if host not in hosts else hosts)


def start_jax(run, bind, limit, heartbeat):
  """Start JAX's coordination service in process 0, and its client in all processes.

  Args:
    run: `cluster.Membership`.
    bind: address to which process 0 binds.
    limit: seconds within which all processes must connect.
    heartbeat: seconds without heartbeat after which JAX considers a process dead.

  Raises:
    LostProcess: JAX could not start.
  """
  host, _ = host_and_port(run.address)
  os.environ.update(no_grpc_proxy=no_grpc_proxy(os.environ, host))
  jax.config.update('jax_check_proxy_envs', False)  # its warning is obsolete after the previous line
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.config.update('jax_enable_preemption_service', False)  # it would handle SIGTERM; see agreement.Stop
  try:
    jax.distributed.initialize(
      run.address, run.num_processes, run.process_id, run.local_device_ids, 'deactivate', limit,
      heartbeat_timeout_seconds=heartbeat, shutdown_timeout_seconds=30, coordinator_bind_address=bind)
  except jax.errors.JaxRuntimeError as error:
    why = str(error).strip().partition('\n')[0]
    raise LostProcess(f'process {run.process_id} of {run.num_processes} could not start JAX at {run.address} '
                      f'({why}): see the logs of all. Start again') from error


def _is_address(kind, text):
  try:
    kind(text)
  except ValueError:
    return False
  return True
