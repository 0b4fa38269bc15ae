//! Promises, shown end to end: a real sshd, the release agent-exec, all three tiers. The tests are in `tests/`.
