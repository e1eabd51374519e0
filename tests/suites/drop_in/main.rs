//! `pellicle-overlay` in the place of fuse-overlayfs: under podman and buildah, from mount(8), and
//! by its own command line; and what it says to what cannot be.

mod bad_input;
mod command_line;
mod engine;
mod engines;
mod layers;
mod wh_files;
