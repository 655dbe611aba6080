//! Image policy: match, evidence, verdicts. No I/O.
