//! Readings of containers and pods.
