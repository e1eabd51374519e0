//! pellicle
fn main() {}
