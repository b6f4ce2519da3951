"""launch/gke.sh with a stub of kubectl: its manifest is one that Kubernetes takes, in all variants."""

import os
import re
import subprocess

import pytest
import yaml
from conftest import ENVIRONMENT, ROOT
from launch_arguments import ODD

LAUNCH = ROOT / 'launch'
PLAIN = {'IMAGE': 'REGISTRY/gptjax:TAG'}
VARIANTS = [{}, {'SLICES': '2'}, {'SPOT': '1'}, {'QUEUE': 'team'},
            {'SLICES': '4', 'SPOT': '1', 'QUEUE': 'team'},
            {'NAME': 'other', 'ACCELERATOR': 'tpu-v6e-slice', 'TOPOLOGY': '8x8', 'HOSTS': '16', 'CHIPS': '4'}]
variants = pytest.mark.parametrize('variant', VARIANTS, ids=lambda variant: ' '.join(variant) or 'plain')


def gke(*arguments, path='', **env):
  return subprocess.run([LAUNCH / 'gke.sh', *arguments], capture_output=True, text=True, timeout=60,
                        env={**ENVIRONMENT, **env, 'PATH': f'{path}{os.pathsep}{os.environ["PATH"]}'})


def documents(variant, *arguments):
  done = gke('manifest', *arguments, **PLAIN, **variant)
  assert done.returncode == 0 and '# only with' not in done.stdout and '${' not in done.stdout, done.stderr
  return list(yaml.safe_load_all(done.stdout))


def jobset_of(variant, *arguments):
  return next(document for document in documents(variant, *arguments) if document['kind'] == 'JobSet')


def assert_known(value, kind, path):
  """Every field of `value` is one of the Kubernetes type `kind`, to the leaves."""
  from kubernetes.client import models
  if match := re.fullmatch(r'[lL]ist\[(.+)\]', kind):
    assert isinstance(value, list), path
    for i, item in enumerate(value):
      assert_known(item, match[1], f'{path}[{i}]')
  elif match := re.fullmatch(r'[dD]ict[\[(]str, (.+)[\])]', kind):
    for key, item in value.items():
      assert_known(item, match[1], f'{path}.{key}')
  elif hasattr(models, kind):
    model = getattr(models, kind)
    types = {spelled: model.openapi_types[name] for name, spelled in model.attribute_map.items()}
    for key, item in value.items():
      assert key in types, f'{path} has no field {key}'
      assert_known(item, types[key], f'{path}.{key}')
  else:
    accepted = {'str': (str, int) if 'limits' in path else str, 'int': int, 'bool': bool, 'object': object}
    assert isinstance(value, accepted[kind]), f'{path} = {value!r} is no {kind}'


@variants
def test_each_part_is_of_the_published_types(variant):
  pytest.importorskip('kubernetes')
  kinds = {'ServiceAccount': 'V1ServiceAccount', 'Role': 'V1Role', 'RoleBinding': 'V1RoleBinding',
           'NetworkPolicy': 'V1NetworkPolicy'}
  for document in documents(variant):
    if document['kind'] == 'JobSet':
      job = document['spec']['replicatedJobs'][0]['template']
      assert_known(document['metadata'], 'V1ObjectMeta', 'metadata')
      assert_known(job, 'V1JobTemplateSpec', 'template')
    else:
      assert_known(document, kinds[document['kind']], document['kind'])


@variants
def test_the_jobset_fails_on_bad_input_counts_bugs_and_restarts_on_all_else(variant):
  jobset = jobset_of(variant, '--config=configs/quickstart.py')
  # The fields of jobset.x-k8s.io/v1alpha2 that are used here, by its published definition.
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  assert jobset['spec'].keys() - {'suspend'} == {'network', 'failurePolicy', 'replicatedJobs'}
  assert jobset['spec']['network'].keys() <= {'enableDNSHostnames', 'publishNotReadyAddresses', 'subdomain'}
  policy = jobset['spec']['failurePolicy']
  assert policy.keys() == {'maxRestarts', 'restartStrategy', 'rules'}
  assert policy['restartStrategy'] in ('Recreate', 'BlockingRecreate', 'InPlaceRestart')
  # As the Job controller words it: kubernetes/pkg/controller/job/pod_failure_policy.go.
  matched = ('Container gptjax for pod default/run-0-0 failed with exit code {} matching FailJob rule at '
             'index 0')
  def action(reason, message):
    for rule in policy['rules']:  # as JobSet reads them
      assert re.fullmatch('[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?', rule['name'])
      assert rule.keys() <= {'name', 'action', 'onJobFailureReasons', 'onJobFailureMessagePatterns'}
      patterns = rule.get('onJobFailureMessagePatterns', [''])
      if reason in rule.get('onJobFailureReasons', [reason]) and any(re.search(p, message) for p in patterns):
        return rule['action']
  assert action('PodFailurePolicy', matched.format(2)) == 'FailJobSet'
  assert action('PodFailurePolicy', matched.format(1)) == 'RestartJobSet' and policy['maxRestarts'] == 3
  assert action('BackoffLimitExceeded', 'Job has reached the specified backoff limit') == (
    'RestartJobSetAndIgnoreMaxRestarts')
  replicated, = jobset['spec']['replicatedJobs']
  assert replicated.keys() == {'name', 'replicas', 'template'}
  job = replicated['template']['spec']
  assert job['completionMode'] == 'Indexed'
  assert job['backoffLimit'] == 0 and job['template']['spec']['restartPolicy'] == 'Never'
  rule, = job['podFailurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == [1, 2]
  container, = job['template']['spec']['containers']
  assert rule['onExitCodes']['containerName'] == container['name']
  mounts = {mount['name'] for mount in container['volumeMounts']}
  assert mounts == {volume['name'] for volume in job['template']['spec']['volumes']}


@variants
def test_the_variables_set_slices_machines_spot_and_queue(variant):
  jobset = jobset_of(variant)
  name = variant.get('NAME', 'gptjax')
  assert jobset['metadata']['name'] == name
  replicated, = jobset['spec']['replicatedJobs']
  assert replicated['replicas'] == int(variant.get('SLICES', 1))
  job = replicated['template']['spec']
  assert job['parallelism'] == job['completions'] == int(variant.get('HOSTS', 4))
  pod = job['template']['spec']
  assert pod['containers'][0]['resources'] == {'limits': {'google.com/tpu': int(variant.get('CHIPS', 4))}}
  assert pod['containers'][0]['image'] == PLAIN['IMAGE']
  spot = {'cloud.google.com/gke-spot': 'true'} if 'SPOT' in variant else {}
  assert pod['nodeSelector'] == {
    'cloud.google.com/gke-tpu-accelerator': variant.get('ACCELERATOR', 'tpu-v5-lite-podslice'),
    'cloud.google.com/gke-tpu-topology': variant.get('TOPOLOGY', '4x4'), **spot}
  assert pod.get('tolerations', []) == [
    {'key': key, 'operator': 'Equal', 'value': value, 'effect': 'NoSchedule'} for key, value in spot.items()]
  queue = {'kueue.x-k8s.io/queue-name': variant['QUEUE']} if 'QUEUE' in variant else None
  assert jobset['metadata'].get('labels') == queue and jobset['spec'].get('suspend', False) == bool(queue)
  # One slice is one node pool.
  assert jobset['metadata']['annotations'] == {
    'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}


@variants
def test_the_pods_have_no_privileges_and_talk_to_each_other_alone(variant):
  parts = {document['kind']: document for document in documents(variant)}
  jobset, name = parts['JobSet'], variant.get('NAME', 'gptjax')
  pods = {'podSelector': {'matchLabels': {'jobset.sigs.k8s.io/jobset-name': name}}}
  assert parts['NetworkPolicy']['spec'] == {**pods, 'policyTypes': ['Ingress'], 'ingress': [{'from': [pods]}]}
  pod = jobset['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  container, = pod['containers']
  assert parts['ServiceAccount']['metadata']['name'] == pod['serviceAccountName'] == name
  assert 'hostNetwork' not in pod and pod['securityContext']['runAsNonRoot']
  user = re.search(r'^USER (\d+):\d+$', (LAUNCH / 'Dockerfile').read_text(), re.MULTILINE)[1]
  assert pod['securityContext']['runAsUser'] == int(user) > 0
  assert container['securityContext'] == {
    'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True, 'capabilities': {'drop': ['ALL']}}
  token, = container['env']
  assert token['name'] == 'GPTJAX_RUN_TOKEN'
  assert token['valueFrom'] == {'secretKeyRef': {'name': name, 'key': 'token'}}


def expanded(text):
  """As Kubernetes expands an argument without variables: third_party/forked/golang/expansion."""
  return re.sub(r'\$\$', '$', re.sub(r'(?<!\$)((?:\$\$)*)\$\(', r'\1(EXPANDED', text))


@pytest.mark.parametrize('arguments', [[], ODD, ['${NAME}', *ODD]])
def test_arguments_reach_the_pods_unchanged(arguments):
  jobset = list(yaml.safe_load_all(gke('manifest', *arguments, **PLAIN).stdout))[-1]
  container, = jobset['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']['containers']
  assert [expanded(argument) for argument in container['args']] == arguments


@pytest.mark.parametrize('variable, value', [
  ('IMAGE', ''), ('IMAGE', 'a b'), ('NAME', 'a: b'), ('NAME', 'A'), ('HOSTS', '0'), ('SLICES', 'two'),
  ('TOPOLOGY', '4'), ('QUEUE', 'a"b'), ('ACCELERATOR', 'a\nb')])
def test_a_value_that_does_not_fit_is_refused(variable, value):
  done = gke('manifest', **{**PLAIN, variable: value})
  assert done.returncode == 2 and f"{variable}='" in done.stderr and not done.stdout


@pytest.mark.parametrize('secret', [0, 1])
def test_start_applies_the_manifest_and_creates_the_token_once(tmp_path, secret):
  (tmp_path / 'kubectl').write_text(f"""#!/bin/bash
echo "$*" >>{tmp_path}/calls
case $* in
  'get secret'*) exit {secret} ;;
  'create secret'*) cat >{tmp_path}/token ;;
  apply*) cat >{tmp_path}/applied ;;
esac
""")
  (tmp_path / 'kubectl').chmod(0o755)
  done = gke('start', '--workdir=gs://BUCKET/a b', path=tmp_path, **PLAIN)
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'applied').read_text() == gke('manifest', '--workdir=gs://BUCKET/a b', **PLAIN).stdout
  if secret:
    token = (tmp_path / 'token').read_text()
    assert re.fullmatch('[0-9a-f]{64}', token) and token not in (tmp_path / 'calls').read_text()
  for command in ('status', 'logs', 'stop'):
    assert gke(command, path=tmp_path).returncode == 0
  create = ['create secret generic gptjax --from-file=token=/dev/stdin'] * secret
  assert (tmp_path / 'calls').read_text().splitlines() == [
    'get secret gptjax', *create, 'apply --filename=-', 'get jobset gptjax', 'logs --follow job/gptjax-run-0',
    'delete jobset gptjax']


def test_a_manifest_that_cannot_be_made_is_not_applied(tmp_path):
  (tmp_path / 'kubectl').write_text(f'#!/bin/bash\ntouch {tmp_path}/called\n')
  (tmp_path / 'kubectl').chmod(0o755)
  assert gke('start', path=tmp_path, IMAGE='').returncode == 2 and not (tmp_path / 'called').exists()


def test_the_image_has_what_the_command_needs():
  for line in (LAUNCH / 'Dockerfile').read_text().splitlines():
    if line.startswith('COPY '):
      for name in line.split()[1:-1]:
        assert (ROOT / name).exists(), name
  extras = (ROOT / 'setup.py').read_text()
  assert all(f"'{name}':" in extras for name in ('tpu', 'cuda', 'k8s', 'gcs'))
