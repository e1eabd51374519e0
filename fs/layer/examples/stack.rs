//! Opens host directories as one layer and says how long it took: `stack DIR…`, top-most first.

use std::{path::PathBuf, time::Instant};

use pellicle_layer::{HostError, HostOptions, HostStack, Lower};

fn main() -> Result<(), HostError> {
    let directories: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let start = Instant::now();
    let stack = HostStack::open(&directories, &HostOptions::default())?;
    println!("{} inodes in {:?}", stack.inode_count(), start.elapsed());
    Ok(())
}
