//! The kernel's switch for FUSE over io_uring.

use std::fs;

const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// What to do where it is off.
pub(crate) const HOW: &str = "FUSE over io_uring is off: as root, echo Y >/sys/module/fuse/parameters/enable_uring (Linux 6.14)";

/// Whether mounts get a ring.
pub(crate) fn is_on() -> bool {
    fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "Y")
}

/// Whether it is there, and off.
pub(crate) fn can_be_switched_on() -> bool {
    fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "N")
}

/// Keeps it on; puts it back when dropped.
#[derive(Debug)]
pub(crate) struct SwitchedOn(());

impl SwitchedOn {
    /// Switches it on, if this process may; it is off afterwards.
    pub(crate) fn new() -> Option<Self> {
        fs::write(SWITCH, "Y").ok().map(|()| Self(()))
    }
}

impl Drop for SwitchedOn {
    fn drop(&mut self) {
        let _ = fs::write(SWITCH, "N");
    }
}
