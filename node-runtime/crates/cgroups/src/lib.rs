//! Control groups: v1, hybrid and v2; cgroupfs and systemd drivers; limits, devices, readings, removal.
