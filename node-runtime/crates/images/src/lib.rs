//! Content store, unpacking, snapshots, garbage collection.
