//! Tests of the store through its public interface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;
mod damage;
mod flattening;
mod forged;
mod repair;
mod stores;
mod trees;
