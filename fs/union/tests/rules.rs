//! Rules one by one, each test named by the rule it proves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod rules {
    pub(crate) mod attributes;
    pub(crate) mod content;
    pub(crate) mod differences;
    pub(crate) mod directories;
    pub(crate) mod hostile;
    pub(crate) mod mixed;
    pub(crate) mod orphans;
    pub(crate) mod threads;
}
mod support;
