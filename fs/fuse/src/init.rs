//! What is agreed with the kernel before the first request.

use std::io;

use fuser::{InitFlags, KernelConfig};

use crate::{Opens, ServeOptions};

/// Largest READ and WRITE, bytes; the kernel's own bound is 256 pages unless its administrator
/// raised it (`fs.fuse.max_pages_limit`).
pub(crate) const MAX_TRANSFER: u32 = 1 << 20;

/// What kernel and server both have and want, of what is not always asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    /// What opening a file means.
    pub(crate) opens: Opens,
    /// The kernel waits for a ring to be registered.
    pub(crate) ring: bool,
}

/// Asks for every feature of the cache policy that this kernel has; `opens` is the wish.
pub(crate) fn negotiate(
    config: &mut KernelConfig,
    options: &ServeOptions,
    opens: Opens,
    ring: bool,
) -> io::Result<Agreed> {
    let mut wanted = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_DO_READDIRPLUS
        // Sizes change through the kernel only, so it never has a reason to drop pages by itself.
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
        // The kernel tells with each write and truncation whether set-id bits go, instead of
        // fetching and setting the mode before.
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        // The union applies the umask, or a default ACL in its place.
        | InitFlags::FUSE_DONT_MASK
        // Numbers are stable and never used again, so a file handle finds its inode by them.
        | InitFlags::FUSE_EXPORT_SUPPORT
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
    if !options.view.no_acl {
        wanted |= InitFlags::FUSE_POSIX_ACL;
    }
    if options.adaptive_listing {
        wanted |= InitFlags::FUSE_READDIRPLUS_AUTO;
    }
    if options.write_back {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    let opens = match opens {
        Opens::Passthrough
            if !config.capabilities().contains(InitFlags::FUSE_PASSTHROUGH)
                || config.set_max_stack_depth(1).is_err() =>
        {
            Opens::Silent
        }
        wish => wish,
    };
    wanted |= match opens {
        Opens::Silent => InitFlags::FUSE_NO_OPEN_SUPPORT,
        Opens::Answered => InitFlags::empty(),
        Opens::Passthrough => InitFlags::FUSE_PASSTHROUGH,
    };
    if ring {
        wanted |= InitFlags::FUSE_OVER_IO_URING;
    }
    let have = config.capabilities();
    if !have.contains(InitFlags::FUSE_NO_OPEN_SUPPORT | InitFlags::FUSE_NO_OPENDIR_SUPPORT) {
        // Linux 3.17 and 5.1: an ENOSYS to OPEN would reach programs.
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel's FUSE driver is older than Linux 5.1",
        ));
    }
    config
        .add_capabilities(wanted & have)
        .map_err(|lacking| io::Error::other(format!("features {lacking:?} vanished")))?;
    // An error says the nearest value that is taken; the kernel's default serves as well.
    let _ = config.set_max_write(MAX_TRANSFER);
    // A ring's buffers must hold the larger of both (`fuse_uring_create`, fs/fuse/dev_uring.c).
    let _ = config.set_max_readahead(MAX_TRANSFER);
    // Reads ahead of programs and write-back run in the background; more than the threads can
    // take at once only queue, but a small bound stalls parallel readers.
    let _ = config.set_max_background(128);
    let _ = config.set_congestion_threshold(96);
    Ok(Agreed {
        opens,
        ring: ring && have.contains(InitFlags::FUSE_OVER_IO_URING),
    })
}
