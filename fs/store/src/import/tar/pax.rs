//! PAX extended headers: records that override and extend the next entry's header.

use super::{number, sparse::Map};
use crate::{Time, import::TarProblem};

/// What PAX headers say of an entry. `None` means that the plain header speaks.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) ctime: Option<Time>,
    pub(super) dev_major: Option<u32>,
    pub(super) dev_minor: Option<u32>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// The GNU sparse records, of all three generations.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Map of versions 0.0 and 0.1, which is in the header.
    pub(super) map: Option<Map>,
    /// An offset of version 0.0 whose length comes with the next record.
    offset: Option<u64>,
}

/// The largest id that names a user or group; the one above means "no change" to chown(2).
pub(super) const ID_MAX: u64 = u32::MAX as u64 - 1;

/// Longest name of an extended attribute (Linux `XATTR_NAME_MAX`).
const XATTR_NAME_MAX: usize = 255;
/// Longest value of an extended attribute (Linux `XATTR_SIZE_MAX`).
const XATTR_SIZE_MAX: usize = 65536;

impl Pax {
    /// Takes all records of `data`, the content of a header of type `x`, or `g` if `global`.
    ///
    /// Of a global header only owners and times count: a path, a size, a sparse map or an attribute
    /// that all following entries share has no sound meaning.
    pub(super) fn apply(&mut self, data: &[u8], global: bool) -> Result<(), TarProblem> {
        let mut rest = data;
        while !rest.is_empty() {
            // Some writers pad the last record to the block with zeros.
            if rest.iter().all(|b| *b == 0) {
                break;
            }
            let (key, value, after) = record(rest)?;
            rest = after;
            self.record(key, value, global)?;
        }
        if self.sparse.offset.is_some() {
            return Err(TarProblem::Sparse {
                detail: "an offset without its length",
            });
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8], global: bool) -> Result<(), TarProblem> {
        match key {
            b"uid" => self.uid = id("uid", value)?,
            b"gid" => self.gid = id("gid", value)?,
            b"mtime" => self.mtime = seconds("mtime", value)?,
            b"atime" => self.atime = seconds("atime", value)?,
            b"ctime" => self.ctime = seconds("ctime", value)?,
            _ if global => {}
            b"path" => self.path = bytes(value),
            b"linkpath" => self.linkpath = bytes(value),
            b"size" => self.size = number_up_to("size", value, i64::MAX as u64)?,
            b"SCHILY.devmajor" => self.dev_major = small("SCHILY.devmajor", value)?,
            b"SCHILY.devminor" => self.dev_minor = small("SCHILY.devminor", value)?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.record(key, value)?;
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(unescape_keyword(name), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    self.libarchive_xattr(name, value)?;
                }
            }
        }
        Ok(())
    }

    /// The last record of a name wins.
    fn xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Result<(), TarProblem> {
        let why = if name.is_empty() || name.contains(&0) {
            Some("has no name that an attribute can have")
        } else if name.len() > XATTR_NAME_MAX {
            Some("has a name of more than 255 bytes")
        } else if value.len() > XATTR_SIZE_MAX {
            Some("has a value of more than 65536 bytes")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(TarProblem::Xattr { name, why });
        }
        match self.xattrs.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.xattrs.push((name, value)),
        }
        Ok(())
    }

    /// libarchive writes each attribute twice; its own form has the name URL-encoded and the value
    /// in base64. It is taken where the other form is not there.
    fn libarchive_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        let bad = |why| TarProblem::Xattr {
            name: name.to_vec(),
            why,
        };
        let decoded = url_decode(name).ok_or_else(|| bad("has a name that is not URL-encoded"))?;
        let value = base64(value).ok_or_else(|| bad("has a value that is not base64"))?;
        if self.xattrs.iter().any(|(n, _)| *n == decoded) {
            return Ok(());
        }
        self.xattr(decoded, value)
    }
}

impl PaxSparse {
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarProblem> {
        const MAX: u64 = i64::MAX as u64;
        match key {
            b"major" => self.major = number_up_to("GNU.sparse.major", value, MAX)?,
            b"minor" => self.minor = number_up_to("GNU.sparse.minor", value, MAX)?,
            b"name" => self.name = bytes(value),
            b"size" | b"realsize" => {
                self.real_size = number_up_to("GNU.sparse.realsize", value, MAX)?;
            }
            b"numblocks" => self.map = Some(Map::default()),
            b"offset" => {
                let offset = number_up_to("GNU.sparse.offset", value, MAX)?;
                if self.offset.is_some() {
                    return Err(TarProblem::Sparse {
                        detail: "an offset without its length",
                    });
                }
                self.offset = offset;
            }
            b"numbytes" => {
                let len = number_up_to("GNU.sparse.numbytes", value, MAX)?;
                let (Some(offset), Some(len)) = (self.offset.take(), len) else {
                    return Err(TarProblem::Sparse {
                        detail: "a length without its offset",
                    });
                };
                self.map.get_or_insert_default().push(offset, len)?;
            }
            b"map" => self.map = Some(Map::from_pairs(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// Key and value of a record, and what follows it.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits the first record `LENGTH KEY=VALUE\n` off; the length counts the whole record.
fn record(data: &[u8]) -> Result<Record<'_>, TarProblem> {
    let bad = |detail| TarProblem::Pax { detail };
    let space = data
        .iter()
        .take(20)
        .position(|b| *b == b' ')
        .ok_or_else(|| bad("a record without a length"))?;
    let len = data
        .get(..space)
        .and_then(number::decimal)
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| bad("the length of a record is no number"))?;
    let (whole, rest) = data
        .split_at_checked(len)
        .ok_or_else(|| bad("a record is longer than the header"))?;
    let body = whole
        .get(space + 1..)
        .and_then(|b| b.strip_suffix(b"\n"))
        .ok_or_else(|| bad("a record does not end where its length says"))?;
    let equals = body
        .iter()
        .position(|b| *b == b'=')
        .ok_or_else(|| bad("a record without `=`"))?;
    match (body.get(..equals), body.get(equals + 1..)) {
        (Some(key), Some(value)) if !key.is_empty() => Ok((key, value, rest)),
        _ => Err(bad("a record without a key")),
    }
}

/// An empty value takes the record back (pax(1)).
fn bytes(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn number_up_to(field: &'static str, value: &[u8], max: u64) -> Result<Option<u64>, TarProblem> {
    if value.is_empty() {
        return Ok(None);
    }
    match number::decimal(value) {
        Some(n) if n <= max => Ok(Some(n)),
        _ => Err(TarProblem::Number { field, min: 0, max }),
    }
}

fn small(field: &'static str, value: &[u8]) -> Result<Option<u32>, TarProblem> {
    let n = number_up_to(field, value, u64::from(u32::MAX))?;
    Ok(n.and_then(|n| u32::try_from(n).ok()))
}

fn id(field: &'static str, value: &[u8]) -> Result<Option<u32>, TarProblem> {
    let n = number_up_to(field, value, ID_MAX)?;
    Ok(n.and_then(|n| u32::try_from(n).ok()))
}

fn seconds(field: &'static str, value: &[u8]) -> Result<Option<Time>, TarProblem> {
    if value.is_empty() {
        return Ok(None);
    }
    match number::time(value) {
        Some(time) => Ok(Some(time)),
        None => Err(TarProblem::Number {
            field,
            min: i64::MIN,
            max: i64::MAX as u64,
        }),
    }
}

/// GNU tar writes `%` and `=` of an attribute's name as `%25` and `%3D`, since `=` ends a PAX key.
fn unescape_keyword(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"%3D") {
            out.push(b'=');
            rest = after;
        } else if let Some(after) = rest.strip_prefix(b"%25") {
            out.push(b'%');
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let mut value = [0];
        hex::decode_to_slice([*bytes.next()?, *bytes.next()?], &mut value).ok()?;
        out.extend_from_slice(&value);
    }
    Some(out)
}

/// Base64 of RFC 4648, with or without its padding (libarchive writes none).
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.trim_ascii_end();
    let digits = digits.strip_suffix(b"=").unwrap_or(digits);
    let digits = digits.strip_suffix(b"=").unwrap_or(digits);
    if digits.len() % 4 == 1 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            bits = bits << 6 | group.get(at).map_or(Some(0), |d| base64_digit(*d))?;
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        out.extend(bytes.iter().take(group.len() - 1));
    }
    Some(out)
}

fn base64_digit(digit: u8) -> Option<u32> {
    Some(match digit {
        b'A'..=b'Z' => u32::from(digit - b'A'),
        b'a'..=b'z' => u32::from(digit - b'a') + 26,
        b'0'..=b'9' => u32::from(digit - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_and_without_padding_decodes_and_junk_does_not() {
        for (text, want) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zg", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYg", Some(b"foob")),
            ("/+8A", Some(b"\xff\xef\x00")),
            ("Z", None),
            ("Z*==", None),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn names_of_attributes_are_unescaped_as_gnu_tar_and_libarchive_escape_them() {
        assert_eq!(unescape_keyword(b"user.a%3Db%25c%41"), b"user.a=b%c%41");
        assert_eq!(url_decode(b"user.a%3db%20").unwrap(), b"user.a=b ");
        assert_eq!(url_decode(b"user.%4"), None);
        assert_eq!(url_decode(b"user.%zz"), None);
    }

    #[test]
    fn records_that_break_their_own_lengths_are_refused() {
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"99 path=a\n",
            b"6 a=bb\n",
            b"3 \n",
            b"4 =\n",
            b"5 ab\n",
            b"0 a=b\n",
            b"18446744073709551616 a=b\n",
        ] {
            let got = Pax::default().apply(bad, false);
            assert!(
                matches!(got, Err(TarProblem::Pax { .. })),
                "{}",
                bad.escape_ascii()
            );
        }
    }
}
