//! Container spec assembly and the monitor's client.
