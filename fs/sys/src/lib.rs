//! Safe wrappers over the system calls Pellicle needs; the only crate with unsafe code.
//! One module per concern.

pub mod fuse_backing;
pub mod fuse_ring;
pub mod heap;
pub mod log_map;
pub mod map;
pub mod process;
