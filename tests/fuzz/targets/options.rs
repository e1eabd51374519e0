//! The command line of `pellicle-overlay`: an error or a request, whatever is written there.
//!
//! An input is the arguments, each ended by a NUL as in `/proc/<pid>/cmdline`.

#![no_main]

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use libfuzzer_sys::fuzz_target;

#[path = "../../../fs/overlay/src/arguments.rs"]
mod arguments;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../../../fs/overlay/src/error.rs"]
mod error;
#[path = "../../../fs/overlay/src/mapping.rs"]
mod mapping;
#[path = "../../../fs/overlay/src/options.rs"]
mod options;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../../../fs/overlay/src/request.rs"]
mod request;
#[path = "../../../fs/overlay/src/syntax.rs"]
mod syntax;

use request::{Invocation, Runner};

fuzz_target!(|input: &[u8]| {
    let arguments = || {
        let all = input.split(|b| *b == 0).map(<[u8]>::to_vec);
        all.map(OsString::from_vec)
    };
    for root in [true, false] {
        let runner = Runner {
            root,
            overflow: (65_534, 65_534),
        };
        match arguments::parse(arguments(), runner) {
            Ok(Invocation::Mount { request, .. }) => {
                assert!(!request.lower.is_empty(), "a mount of nothing");
                assert!(!request.mountpoint.as_os_str().is_empty());
            }
            Ok(_) => {}
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
