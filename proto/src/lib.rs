//! CRI v1 and the node API, generated without protoc.
