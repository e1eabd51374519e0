//! `pellicle build`: each instruction by what it does to the image, the cache, failures, and images that
//! other programs read.

mod cache;
mod copy;
mod exchange;
mod failures;
mod instructions;
mod mounts;
mod remote;
mod support;
mod web;
