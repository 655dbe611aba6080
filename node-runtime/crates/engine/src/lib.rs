//! Use cases and state machines of the node.
