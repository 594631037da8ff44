"""The exec spawner: a small process that starts programs in containers, where `runc exec` would take ten times as long.

`client` is this daemon's side of it; `server`, `entering` and `kernel` run in that process, and import nothing but
the few modules that they need (docs/adr/0012-exec-spawner.md says what they guard against, and how).
"""
