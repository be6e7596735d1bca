"""Simulated nodes: what a kubelet, a container runtime and kube-proxy do on a real one.

A pod of an image whose program can be had runs that program, on the pod's own
loopback address, with the pod's arguments, environment, volumes and service
account. Any other known image is a container that starts and does nothing. An
image that nobody knows cannot be pulled, as from a registry that lacks it.
"""
