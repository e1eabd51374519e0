//! Safe wrappers over the system calls Pellicle needs; the only crate with unsafe code.
//! One module per concern.

pub mod log_map;
pub mod map;
pub mod process;
