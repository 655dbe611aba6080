//! The node API's gRPC edge.
