//! Answering requests of the ring without a kernel or a mount: for the fuzz targets.

pub use crate::ring::fuzzing::Requests;
