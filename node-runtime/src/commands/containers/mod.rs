//! Commands on containers.
pub mod exec;
pub mod log_file;
pub mod log_record;
pub mod logs;
pub mod ps;
pub mod rm;
pub mod stop;
