//! `uidmapping` and `gidmapping`: triples of first number kept, first number shown, and length.

use pellicle_fuse::IdRange;

/// The ranges of `text`: numbers with colons between them, three by three. Colons too many are
/// passed over, since podman writes one at the start.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<IdRange>, String> {
    let numbers = text
        .split(|b| *b == b':')
        .filter(|n| !n.is_empty())
        .map(|n| {
            let said = String::from_utf8_lossy(n);
            said.parse()
                .map_err(|_| format!("{said:?} is no number from 0 to 4294967295"))
        })
        .collect::<Result<Vec<u32>, _>>()?;
    let (triples, rest) = numbers.as_chunks::<3>();
    if triples.is_empty() || !rest.is_empty() {
        return Err("it takes triples ON-DISK:SHOWN:LENGTH, colons between them".to_owned());
    }
    let ranges: Vec<_> = triples
        .iter()
        .map(|&[kept, shown, length]| IdRange {
            kept,
            shown,
            length,
        })
        .collect();
    check_apart(&ranges)?;
    Ok(ranges)
}

/// An id in two ranges would be two ids.
fn check_apart(ranges: &[IdRange]) -> Result<(), String> {
    for (at, one) in ranges.iter().enumerate() {
        for other in ranges.iter().skip(at + 1) {
            for (a, b) in [(one.kept, other.kept), (one.shown, other.shown)] {
                let end = |from: u32, r: &IdRange| u64::from(from) + u64::from(r.length);
                if u64::from(a) < end(b, other) && u64::from(b) < end(a, one) {
                    return Err(format!("{} and {} overlap", spelled(one), spelled(other)));
                }
            }
        }
    }
    Ok(())
}

fn spelled(r: &IdRange) -> String {
    format!("{}:{}:{}", r.kept, r.shown, r.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples_in_order_with_colons_to_spare() {
        let range = |kept, shown, length| IdRange {
            kept,
            shown,
            length,
        };
        assert_eq!(
            parse(b":0:1000:1:1:110000:65536").unwrap(),
            [range(0, 1000, 1), range(1, 110_000, 65_536)]
        );
        assert_eq!(
            parse(b"0:0:4294967295").unwrap(),
            [range(0, 0, 4_294_967_295)]
        );
    }

    #[test]
    fn what_is_no_triple_is_refused() {
        for text in [
            "",
            ":",
            "0",
            "0:1",
            "0:1:2:3",
            "a:0:1",
            "-1:0:1",
            "0:4294967296:1",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn overlapping_ranges_are_refused_on_both_sides() {
        for text in ["0:100:10:5:300:10", "0:100:10:20:105:1", "0:0:1:0:0:1"] {
            let why = parse(text.as_bytes()).unwrap_err();
            assert!(why.contains("overlap"), "{why}");
        }
        assert!(parse(b"0:100:10:10:110:10").is_ok());
    }
}
