//! The tree file, format version 1, as `fs/docs/FORMAT.md` describes it.
//!
//! ```text
//! 0      header, 4096 bytes, with a checksum over itself
//! 4096   body: the sections, one after the other, each starting at a multiple of 8
//! ...    checksums: xxh3-64 of each 64 KiB block of the body; the header has a hash over them
//! ```
//!
//! Every byte of the file is under a checksum. All numbers are little-endian; all records have
//! alignment 1, so that they can be read where they lie.

use std::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zerocopy::{
    I64,
    little_endian::{U16, U32, U64},
};

pub(super) const MAGIC: [u8; 8] = *b"PLCLTREE";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_LEN: usize = 4096;
/// Bytes of the body under one checksum.
pub(super) const BLOCK_LEN: usize = 1 << 16;
/// Sections that every file has.
pub(super) const SECTIONS: usize = 12;
/// Those and the ones of [`COMPAT_NAMES`].
pub(super) const ALL_SECTIONS: usize = SECTIONS + 3;
/// [`Header::compat`]: the file leads from inodes to their names, too ([`Header::more`] counts).
pub(super) const COMPAT_NAMES: u64 = 1;
/// Incompatible features that this program knows: a file with others cannot be read.
pub(super) const KNOWN_INCOMPAT: u64 = 0;
/// Inode numbers and indices are 32 bits wide; the last value is kept free.
pub(super) const MAX_COUNT: u64 = u32::MAX as u64 - 1;
/// `NAME_MAX` of Linux.
pub(super) const NAME_MAX: usize = 255;
/// `PATH_MAX` of Linux without the terminating NUL.
pub(super) const TARGET_MAX: usize = 4095;
/// `XATTR_SIZE_MAX` of Linux.
pub(super) const XATTR_MAX: usize = 65536;

/// The sections in the order of the header's table, which is that in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Inodes,
    Entries,
    Names,
    Whiteouts,
    Targets,
    XattrSets,
    Xattrs,
    XattrData,
    Objects,
    Extents,
    Layers,
    Inline,
    Directories,
    LaterPlaces,
    LaterNames,
}

impl Section {
    pub(super) const ALL: [Self; ALL_SECTIONS] = [
        Self::Inodes,
        Self::Entries,
        Self::Names,
        Self::Whiteouts,
        Self::Targets,
        Self::XattrSets,
        Self::Xattrs,
        Self::XattrData,
        Self::Objects,
        Self::Extents,
        Self::Layers,
        Self::Inline,
        Self::Directories,
        Self::LaterPlaces,
        Self::LaterNames,
    ];

    /// Bytes of one record; 1 for a section of plain bytes.
    pub(super) const fn record_len(self) -> u64 {
        (match self {
            Self::Inodes => size_of::<InodeRecord>(),
            Self::Entries => size_of::<EntryRecord>(),
            Self::Whiteouts => size_of::<WhiteoutRecord>(),
            Self::XattrSets => size_of::<XattrSetRecord>(),
            Self::Xattrs => size_of::<XattrRecord>(),
            Self::Objects | Self::Layers => size_of::<DigestRecord>(),
            Self::Extents => size_of::<ExtentRecord>(),
            Self::Directories | Self::LaterPlaces => size_of::<U32>(),
            Self::LaterNames => size_of::<LaterNameRecord>(),
            Self::Names | Self::Targets | Self::XattrData | Self::Inline => 1,
        }) as u64
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Inodes => "inode",
            Self::Entries => "directory entry",
            Self::Names => "name",
            Self::Whiteouts => "whiteout",
            Self::Targets => "symlink target",
            Self::XattrSets => "xattr set",
            Self::Xattrs => "xattr",
            Self::XattrData => "xattr data",
            Self::Objects => "object",
            Self::Extents => "extent",
            Self::Layers => "layer",
            Self::Inline => "inline content",
            Self::Directories => "directory",
            Self::LaterPlaces => "later place",
            Self::LaterNames => "later name",
        }
    }
}

/// Declares a record: its layout is fixed, and so that nobody changes it unawares the offset of
/// every field and the size are asserted at compile time.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident, $size:literal, { $($at:literal $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }
        const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(offset_of!($name, $field) == $at);)*
        };
    };
}

record!(
    /// A run of bytes, offsets from the start of the file.
    #[derive(Default, PartialEq)]
    Range, 16, {
        0 offset: U64,
        8 len: U64,
    }
);

record!(Header, 4096, {
    0 magic: [u8; 8],
    8 version: U32,
    12 header_len: U32,
    16 incompat: U64,
    24 compat: U64,
    32 kind: U32,
    36 section_count: U32,
    40 identity: [u8; 32],
    72 file_len: U64,
    80 body: Range,
    96 checksums: Range,
    112 checksums_hash: U64,
    120 block_len: U32,
    124 reserved_a: U32,
    128 sections: [Range; SECTIONS],
    320 more: [Range; ALL_SECTIONS - SECTIONS],
    368 reserved_b: [u8; 3720],
    4088 checksum: U64,
});

/// [`Header::kind`] of a layer.
pub(super) const KIND_LAYER: u32 = 1;
/// [`Header::kind`] of an image.
pub(super) const KIND_IMAGE: u32 = 2;

type I64Le = I64<zerocopy::LittleEndian>;

record!(
    /// An inode. What `a` to `e` mean depends on the kind, see the constants and `FORMAT.md`.
    InodeRecord, 96, {
        0 mode: U32,
        4 nlink: U32,
        8 uid: U32,
        12 gid: U32,
        16 size: U64,
        24 atime: I64Le,
        32 mtime: I64Le,
        40 ctime: I64Le,
        48 atime_nsec: U32,
        52 mtime_nsec: U32,
        56 ctime_nsec: U32,
        60 layer: U32,
        64 xattrs: U32,
        68 content: u8,
        69 flags: u8,
        70 reserved: U16,
        72 a: U64,
        80 b: U32,
        84 c: U32,
        88 d: U32,
        92 e: U32,
    }
);

/// [`InodeRecord::flags`]: an opaque directory.
pub(super) const FLAG_OPAQUE: u8 = 1;
/// [`InodeRecord::flags`]: a directory that its layer does not name itself.
pub(super) const FLAG_IMPLIED: u8 = 2;

/// [`InodeRecord::content`] of a regular file: all zeros. Also of everything that is no file.
pub(super) const CONTENT_EMPTY: u8 = 0;
/// Bytes `a..a+size` of the inline section.
pub(super) const CONTENT_INLINE: u8 = 1;
/// Object `a` is the file.
pub(super) const CONTENT_OBJECT: u8 = 2;
/// Extents `d..d+e`, packed from `a` in the inline section.
pub(super) const CONTENT_SPARSE_INLINE: u8 = 3;
/// Extents `d..d+e`, packed in object `a`.
pub(super) const CONTENT_SPARSE_OBJECT: u8 = 4;
/// Bytes `a..a+size` of the archive.
pub(super) const CONTENT_SPAN: u8 = 5;
/// Extents `d..d+e`, packed from `a` in the archive.
pub(super) const CONTENT_SPARSE_SPAN: u8 = 6;

record!(EntryRecord, 16, {
    0 name_offset: U64,
    8 ino: U32,
    12 name_len: U16,
    14 kind: u8,
    15 reserved: u8,
});

record!(WhiteoutRecord, 16, {
    0 name_offset: U64,
    8 name_len: U16,
    10 reserved: [u8; 6],
});

record!(XattrSetRecord, 8, {
    0 first: U32,
    4 count: U32,
});

record!(XattrRecord, 24, {
    0 name_offset: U64,
    8 value_offset: U64,
    16 name_len: U32,
    20 value_len: U32,
});

record!(DigestRecord, 32, {
    0 sha256: [u8; 32],
});

record!(
    /// A run of data in a sparse file, and where in the packed data it starts.
    ExtentRecord, 24, {
        0 offset: U64,
        8 len: U64,
        16 packed: U64,
    }
);

record!(
    /// A name of an inode that was met under another one before: which directory entry it is.
    LaterNameRecord, 8, {
        0 ino: U32,
        4 entry: U32,
    }
);

/// Whether `name` can be the name of a directory entry.
pub(super) fn name_fault(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        Some("a name cannot be empty")
    } else if name == b"." || name == b".." {
        Some("a name cannot be . or ..")
    } else if name.len() > NAME_MAX {
        Some("a name cannot be longer than 255 bytes")
    } else if name.iter().any(|b| matches!(b, b'/' | 0)) {
        Some("a name cannot contain / or NUL")
    } else {
        None
    }
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}
