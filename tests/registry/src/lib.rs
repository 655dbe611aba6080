//! An OCI registry in one process, for tests and the quickstart; it can misbehave on purpose.
