//! What is linked how, for the sake of the start of a container, of which each is an execution of this
//! program.
//!
//! What unwinds the stack is linked in, where the C compiler has it as an archive: a shared library more
//! costs a tenth of a millisecond. And the program has a fixed address: to write its 14,000 pointers anew
//! for another one costs a third. Its libraries, heap and stacks stay where the kernel puts them.

use std::{path::Path, process::Command};

const ARCHIVE: &str = "libgcc_eh.a";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of = |name| std::env::var(name).unwrap_or_default();
    // The compiler that is asked is this machine's, and other C libraries bring an unwinder.
    if of("HOST") != of("TARGET") || of("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    if of("PROFILE") == "release" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let name = format!("-print-file-name={ARCHIVE}");
    let Ok(said) = Command::new(compiler).arg(name).output() else {
        return;
    };
    let found = String::from_utf8_lossy(&said.stdout);
    // Without a directory, it was not found.
    let Some(dir) = Path::new(found.trim()).parent().filter(|d| d.is_absolute()) else {
        return;
    };
    println!("cargo::rustc-link-search=native={}", dir.display());
    println!("cargo::rustc-link-lib=static:+whole-archive=gcc_eh");
}
