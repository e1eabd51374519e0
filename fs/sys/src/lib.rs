//! Safe wrappers over the system calls Pellicle needs; the only crate with unsafe code.

pub mod log_map;
pub mod process;
