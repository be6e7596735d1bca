"""API keys: making and rotating the signing key, issuing, listing and revoking keys.

`tokens` is pure; `signers` hold or reach the private key, `ledger` remembers
who got which key, `settings` and `publish` read and write the stack. The
actions are in `signing` (init, rotate) and `keyring` (issue, list, revoke).
"""
