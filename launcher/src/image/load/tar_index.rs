//! Where the members of a tar archive begin, so that they can be read in any order.
//!
//! Only the outer archive of a saved image is read this way: a few hundred members with plain
//! names. Limits keep a hostile one from costing more than a little memory; sizes are claims until
//! the bytes are read.

use std::{collections::HashMap, fs::File, os::unix::fs::FileExt as _};

use super::LoadError;

const BLOCK: u64 = 512;
const MEMBERS_MAX: usize = 100_000;
/// Longest name or extended header taken.
const EXTENDED_MAX: u64 = 64 << 10;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// A file: its bytes in the archive.
    File { offset: u64, size: u64 },
    /// A link to another member, by its full name.
    Link(String),
}

/// Finds all files and links of the archive in `file`, by name without leading `./`.
pub(super) fn index(file: &File, source_name: &str) -> Result<HashMap<String, Member>, LoadError> {
    let len = file.metadata().map(|m| m.len()).unwrap_or(0);
    let mut scan = Scan {
        file,
        len,
        at: 0,
        source_name,
    };
    let mut members = HashMap::new();
    let mut next = Extended::default();
    while let Some(header) = scan.header()? {
        let data = scan.at;
        let size = next.size.unwrap_or(header.size);
        match header.kind {
            b'x' => next.take_pax(&scan.text(header.size)?),
            b'L' => next.name = Some(c_string(&scan.text(header.size)?)),
            b'K' => next.link = Some(c_string(&scan.text(header.size)?)),
            b'g' => {}
            kind => {
                let Extended { name, link, .. } = std::mem::take(&mut next);
                let name = normal(&name.unwrap_or(header.name));
                let link = link.unwrap_or(header.link);
                let member = match kind {
                    b'0' | 0 | b'7' => Some(Member::File { offset: data, size }),
                    b'1' => Some(Member::Link(normal(&link))),
                    b'2' => Some(Member::Link(beside(&name, &link))),
                    _ => None,
                };
                members.extend(member.map(|m| (name, m)));
                scan.skip(if matches!(kind, b'0' | 0 | b'7') {
                    size
                } else {
                    0
                })?;
                if members.len() > MEMBERS_MAX {
                    return Err(scan.broken("it has more than 100000 members"));
                }
                continue;
            }
        }
        scan.skip(header.size)?;
    }
    Ok(members)
}

/// What extended headers said of the member that follows.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Extended {
    /// Records are `<length> <key>=<value>\n` (pax(1), "Extended Header").
    fn take_pax(&mut self, mut text: &[u8]) {
        while let Some(space) = text.iter().position(|b| *b == b' ') {
            let length = text
                .get(..space)
                .and_then(|n| str::from_utf8(n).ok()?.parse::<usize>().ok());
            let Some((record, rest)) = length.and_then(|n| text.split_at_checked(n)) else {
                return;
            };
            text = rest;
            let pair = record
                .get(space + 1..record.len().saturating_sub(1))
                .unwrap_or_default();
            let Some(equals) = pair.iter().position(|b| *b == b'=') else {
                continue;
            };
            let (key, value) = pair.split_at(equals);
            let value = String::from_utf8_lossy(value.get(1..).unwrap_or_default()).into_owned();
            match key {
                b"path" => self.name = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => self.size = value.parse().ok(),
                _ => {}
            }
        }
    }
}

struct Header {
    name: String,
    link: String,
    kind: u8,
    size: u64,
}

struct Scan<'a> {
    file: &'a File,
    len: u64,
    at: u64,
    source_name: &'a str,
}

impl Scan<'_> {
    fn broken(&self, why: &'static str) -> LoadError {
        LoadError::Tar {
            source_name: self.source_name.to_owned(),
            offset: self.at,
            why,
        }
    }

    /// The next header; `None` at the end mark, or at the end of a file that has none.
    fn header(&mut self) -> Result<Option<Header>, LoadError> {
        if self.at == self.len {
            return if self.at == 0 {
                Err(self.broken("it is empty"))
            } else {
                Ok(None)
            };
        }
        let mut block = [0u8; BLOCK as usize];
        self.file
            .read_exact_at(&mut block, self.at)
            .map_err(|_| self.broken("the archive is cut off"))?;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let parsed = parse_header(&block).ok_or_else(|| self.broken("there is no tar header"))?;
        self.at += BLOCK;
        Ok(Some(parsed))
    }

    fn text(&self, size: u64) -> Result<Vec<u8>, LoadError> {
        if size > EXTENDED_MAX {
            return Err(self.broken("an extended header is larger than 64 KiB"));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        self.file
            .read_exact_at(&mut text, self.at)
            .map_err(|_| self.broken("the archive is cut off"))?;
        Ok(text)
    }

    fn skip(&mut self, size: u64) -> Result<(), LoadError> {
        let end = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|n| self.at.checked_add(n));
        match end {
            // The padding of the last member may be missing.
            Some(end) if end <= self.len.saturating_add(BLOCK - 1) => {
                self.at = end.min(self.len);
                Ok(())
            }
            _ => Err(self.broken("a member goes beyond the end of the archive")),
        }
    }
}

fn parse_header(block: &[u8; BLOCK as usize]) -> Option<Header> {
    let field = |from: usize, len: usize| block.get(from..from + len);
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, b)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*b)
            }
        })
        .sum();
    if number(field(148, 8)?)? != sum {
        return None;
    }
    let mut name = c_string(field(0, 100)?);
    if field(257, 5)? == b"ustar" && field(262, 1)? == b"\0" {
        let prefix = c_string(field(345, 155)?);
        if !prefix.is_empty() {
            name = format!("{prefix}/{name}");
        }
    }
    let kind = *block.get(156)?;
    Some(Header {
        name,
        link: c_string(field(157, 100)?),
        kind,
        size: number(field(124, 12)?)?,
    })
}

/// Octal digits, or big-endian binary marked by the first bit (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let low = field.get(field.len().checked_sub(8)?..)?;
        return Some(u64::from_be_bytes(low.try_into().ok()?)).filter(|n| *n < 1 << 62);
    }
    let digits = c_string(field);
    let digits = digits.trim();
    if digits.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(digits, 8).ok()
    }
}

fn c_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// A name without `.`, `..` and doubled slashes, relative to the archive's root.
pub(super) fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The target of a symbolic link, which is relative to the link's directory.
fn beside(name: &str, target: &str) -> String {
    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
    if target.starts_with('/') {
        normal(target)
    } else {
        normal(&format!("{dir}/{target}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(fill: impl FnOnce(&mut tar::Builder<File>)) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        fill(&mut builder);
        builder.into_inner().unwrap()
    }

    fn put(builder: &mut tar::Builder<File>, name: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data).unwrap();
    }

    #[test]
    fn members_are_found_with_their_bytes_whatever_their_names() {
        let long = format!("{}/x", "d".repeat(150));
        let file = archive(|b| {
            put(b, "./a", b"hello");
            put(b, &long, &[7; 513]);
            let mut link = tar::Header::new_gnu();
            link.set_entry_type(tar::EntryType::Symlink);
            link.set_size(0);
            b.append_link(&mut link, "l/one", "../a").unwrap();
        });
        let index = index(&file, "t").unwrap();
        assert_eq!(index["l/one"], Member::Link("a".into()));
        let Member::File { offset, size } = index["a"] else {
            panic!("{index:?}")
        };
        let mut text = vec![0; size as usize];
        file.read_exact_at(&mut text, offset).unwrap();
        assert_eq!(text, b"hello");
        assert!(matches!(index[&long], Member::File { size: 513, .. }));
    }

    #[test]
    fn what_is_cut_off_or_no_archive_is_refused() {
        let whole = archive(|b| put(b, "a", &[1; 5000]));
        whole.set_len(2000).unwrap();
        assert!(matches!(index(&whole, "t"), Err(LoadError::Tar { .. })));
        let junk = tempfile::tempfile().unwrap();
        assert!(index(&junk, "t").is_err(), "empty");
        junk.write_all_at(&[b'x'; 4096], 0).unwrap();
        assert!(index(&junk, "t").is_err(), "no header");
    }

    #[test]
    fn a_huge_claimed_name_is_not_allocated() {
        let file = archive(|_| {});
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        file.write_all_at(header.as_bytes(), 0).unwrap();
        assert!(
            index(&file, "t")
                .unwrap_err()
                .to_string()
                .contains("64 KiB")
        );
    }

    #[test]
    fn names_never_lead_out_of_the_archive() {
        assert_eq!(normal("/../../etc/./passwd"), "etc/passwd");
        assert_eq!(beside("a/b/layer.tar", "../c/layer.tar"), "a/c/layer.tar");
    }
}
