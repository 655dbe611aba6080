//! A page of documentation as a test: its commands, a shell that runs them, what it promises as their answers.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

pub mod answer;
pub mod machine;
pub mod page;
pub mod shell;
