//! Real mounts: what programs see through the kernel, and how few messages that takes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test code outside #[test] functions: what is unexpected is to stop the test"
)]

mod everyday;
mod fixture;
mod lower;
mod messages;
mod others;
mod rings;
mod trouble;
mod upper;
mod view;
