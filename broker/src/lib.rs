//! The broker: shards with a synchronous brain, bounded outboxes and I/O backends.
