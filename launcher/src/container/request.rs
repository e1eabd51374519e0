//! What a person asks of a container on the command line; docker's names and meanings.

use clap::{Args, ValueEnum};

use crate::transport::Way;

/// The network a container gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Network {
    /// One of its own with nothing but the loopback device
    #[default]
    None,
    /// The host's
    Host,
}

/// Options of `run` that describe the container.
#[derive(Args, Clone, Debug, Default)]
pub struct Request {
    /// Give it a name
    #[arg(long)]
    pub name: Option<String>,
    /// Remove it when it ends
    #[arg(long)]
    pub rm: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Set an environment variable; a NAME alone takes the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one NAME=VALUE per line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<std::path::PathBuf>,
    /// Working directory in the container; made if it is missing
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run as this user (and group) of the container
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Run this instead of the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Show a directory or file of the host in the container
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    pub volume: Vec<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// The container's root file system cannot be written
    #[arg(long)]
    pub read_only: bool,
    /// The network it gets
    #[arg(
        long,
        alias = "net",
        value_enum,
        default_value_t,
        value_name = "NETWORK"
    )]
    pub network: Network,
    /// Limit memory, as 512m or 2g
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Limit processor time, as 0.5 or 2
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// Limit the number of processes and threads
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids_limit: Option<u32>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Set a resource limit, as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Give a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Run an init process that passes signals on and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Map one user id only, even where there are subordinate ids: every owner is shown as root
    #[arg(long)]
    pub single_id: bool,
    /// Never flush what the container writes to the disk: faster, and lost if the host goes down
    #[arg(long)]
    pub volatile: bool,
    /// Which way the kernel's requests come.
    #[command(flatten)]
    pub way: Way,
    /// When it ends, print how many requests for its files the kernel sent, and how long they took
    #[arg(long)]
    pub stats: bool,
    /// Label the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// The signal that stops it
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds from that signal to SIGKILL
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<u32>,
    /// Write the container's id to a file that must not exist yet
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<std::path::PathBuf>,
}
