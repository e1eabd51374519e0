//! SHA-256 digests, the names of everything in the store.

use std::{fmt, io, str::FromStr};

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest; written `sha256:<64 hex digits>` as in the OCI image specification
/// (descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// A text that is no `sha256:` digest.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a digest of the form sha256:<64 hex digits>")]
pub struct DigestError(String);

impl Digest {
    /// The 64 lower-case hex digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The chain id of a stack of layers, lowest first (OCI image-spec config.md, "Layer `ChainID`").
    /// `None` for no layers at all.
    #[must_use]
    pub fn chain(diff_ids: &[Digest]) -> Option<Self> {
        let (first, rest) = diff_ids.split_first()?;
        Some(rest.iter().fold(*first, |chain, diff| {
            Self::of(format!("{chain} {diff}").as_bytes())
        }))
    }
}

/// Takes bytes for a digest, and counts them.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    sum: Sha256,
    len: u64,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// The digest of all bytes taken, and their number.
    #[must_use]
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.sum.finalize().into()), self.len)
    }
}

impl io::Write for Hasher {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        let bad = || DigestError(s.chars().take(100).collect());
        let digits = s.strip_prefix("sha256:").ok_or_else(bad)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut out = [0; 32];
        hex::decode_to_slice(digits, &mut out).map_err(|_| bad())?;
        Ok(Self(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_rejects_other_forms() {
        let d = Digest::of(b"");
        assert_eq!(
            d.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(d.to_string().parse::<Digest>().unwrap(), d);
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            &d.hex(),
            &d.to_string().to_uppercase(),
            "sha256:zz",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_id_of_one_layer_is_its_diff_id_and_of_more_follows_the_recursion() {
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        assert_eq!(Digest::chain(&[]), None);
        assert_eq!(Digest::chain(&[a]), Some(a));
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(
            Digest::chain(&[a, b, c]),
            Some(Digest::of(format!("{ab} {c}").as_bytes()))
        );
    }
}
