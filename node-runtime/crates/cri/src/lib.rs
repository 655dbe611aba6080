//! The CRI's gRPC edge: one file per call.
