"""A Kubernetes cluster for tests: its API on loopback, a Job controller, a scheduler, and a kubelet of processes.

It speaks the calls that `dagster_k8s` makes and refuses all others, so that a new call is noticed. Images are ignored:
a pod's command runs in this environment's Python, with no variable but those of its manifest. What is not there:
networks, mounts (a volume must lie where it is mounted), init containers, watches, admission.
"""
