//! Seccomp profiles: the default one, the JSON format, and the compiler to BPF.
