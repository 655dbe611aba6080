//! The built-in bridge network: addresses, routes, NAT, host ports.
