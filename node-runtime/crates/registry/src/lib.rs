//! Registry client: references to digests, manifests and blobs, with authentication and retries.
