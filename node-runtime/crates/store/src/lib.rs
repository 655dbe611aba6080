//! Durable records: pods, images, leases.
