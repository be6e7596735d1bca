"""What istiod and its proxy do for a Gateway, from the live objects to a real Envoy.

istiod's side is pure: `translate.py` puts `attach.py`, `routes.py`, `clusters.py`, `security.py` and
`patches.py` together, dictionaries in and dictionaries out; `workload.py` describes the proxy's pods and
`files.py` writes what Envoy reads. `proxy.py` stands for the proxy image's entry point.

Names and semantics are Istio's (1.30 and 1.31, `pilot/pkg`), for the objects that this platform emits. What is
not known is refused by name, never guessed. Left out, since a plain Envoy lacks them or nothing here uses them:
Istio's own filters (metadata exchange, stats, alpn) and grpc_stats, fault and cors.
"""
