//! Starting programs of the image over and over.

use std::fs;

use anyhow::Result;

use super::{Round, Tree, Work, Writes};
use crate::setup::{Lower, quiet, succeed};

const PYTHON: &str = "i=0; while [ $i -lt 40 ]; do
  /usr/bin/python3 -c 'import json, re, socket, subprocess, urllib.request' || exit 1
  i=$((i+1)); done";

const COMPILER: &str = "i=0; while [ $i -lt 20 ]; do
  /usr/bin/gcc -O1 -o /tmp/hello /tmp/hello.c || exit 1
  i=$((i+1)); done";

const HELLO: &str = "#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void) { puts(\"hello\"); return 0; }
";

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "python-start",
            "40 starts of python with some modules, in a fresh mount of the image",
            Lower::Image,
            |round| inside(round, PYTHON),
        )
        .floor(1.15),
        Tree::new(
            "compiler-start",
            "20 times compiling and linking a small program, in a fresh mount of the image",
            Lower::Image,
            |round| inside(round, COMPILER),
        )
        .writes(Writes::Anywhere)
        .floor(1.15)
        .prepare(|round| Ok(fs::write(round.at.join("tmp/hello.c"), HELLO)?)),
    ]
}

/// Runs a script of the image's shell.
fn inside(round: &Round<'_>, script: &str) -> Result<Work> {
    succeed(
        quiet("chroot")
            .arg(round.at)
            .args(["/bin/sh", "-c", script])
            .env_clear()
            // chroot itself is in /usr/sbin.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TMPDIR", "/tmp")
            // Or the first start would write what the others read.
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )?;
    Ok(Work::default())
}
