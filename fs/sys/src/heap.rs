//! The memory that this process has freed and its allocator keeps.

/// Gives freed memory back to the host. The allocator keeps what lies between blocks in use, so a
/// server that has let go of very many small things looks as large as ever until it is told to.
///
/// Walks the whole heap, a few milliseconds for 100 MiB: for once in thousands of frees. Does
/// nothing where the C library is not glibc, which alone has this call and this need.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and is safe to call from any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Blocks of this many bytes and more are mappings of their own.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Has every large block come from the host and go back to it, now and for good.
///
/// glibc gives up on that for sizes which were freed once (`M_MMAP_THRESHOLD`, mallopt(3)): it serves
/// them from its heap then, which it fills with zeros where zeros are asked for, touching every page
/// of a buffer that may never be used. Where the C library is another it does nothing.
pub fn map_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; glibc changes the parameter under a lock of its own.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    #[test]
    fn zeros_are_not_touched_although_such_a_block_was_freed_before() {
        use std::os::unix::fs::FileExt;

        // Which of its pages are in memory: the highest bit of each page's word, by proc(5).
        let touched = |block: &[u8]| -> usize {
            let page = rustix::param::page_size();
            let (first, pages) = (block.as_ptr().addr() / page, block.len() / page);
            let mut words = vec![0; pages * 8];
            let map = std::fs::File::open("/proc/self/pagemap").unwrap();
            map.read_exact_at(&mut words, first as u64 * 8).unwrap();
            words.chunks(8).filter(|word| word[7] & 0x80 != 0).count()
        };
        super::map_large_blocks();
        drop(std::hint::black_box(vec![0_u8; 16 << 20]));
        std::thread::spawn(move || {
            let zeros = std::hint::black_box(vec![0_u8; 16 << 20]);
            let pages = touched(&zeros);
            assert_eq!(zeros.last(), Some(&0));
            assert!(pages < 1024, "{pages} pages");
        })
        .join()
        .unwrap();
    }
}
