//! Ids and made-up names of containers.

use rand::{Rng, rand_core::UnwrapErr, rngs::SysRng, seq::IndexedRandom as _};

use super::ContainerError;

const QUALITIES: &[&str] = &[
    "amber", "brave", "bright", "brisk", "calm", "clear", "clever", "crisp", "eager", "early",
    "fair", "fleet", "fond", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest",
    "humble", "keen", "kind", "lively", "lucid", "lucky", "mellow", "merry", "mild", "modest",
    "neat", "nimble", "noble", "patient", "plain", "proud", "quick", "quiet", "ready", "rosy",
    "serene", "sharp", "silent", "silver", "sleek", "smooth", "solid", "spry", "steady", "still",
    "sunny", "swift", "tidy", "vivid", "warm", "wise", "witty", "young", "zesty",
];

const PEOPLE: &[&str] = &[
    "abel",
    "agnesi",
    "ampere",
    "babbage",
    "banach",
    "bessel",
    "bohr",
    "boole",
    "bose",
    "carson",
    "cauchy",
    "cayley",
    "curie",
    "darwin",
    "dirac",
    "eckert",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "fibonacci",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "hamming",
    "hertz",
    "hilbert",
    "hooke",
    "hopper",
    "huygens",
    "hypatia",
    "jacobi",
    "kepler",
    "khayyam",
    "kilby",
    "klein",
    "lagrange",
    "laplace",
    "leibniz",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "noether",
    "pascal",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "shannon",
    "tesla",
    "turing",
    "volta",
    "wiles",
    "wright",
    "wu",
    "yalow",
    "zermelo",
];

/// The kernel's own: a generator in this process would first ask the processor what it can do, which
/// takes longer in a virtual machine than all that is needed here.
fn random() -> impl Rng {
    UnwrapErr(SysRng)
}

/// 64 random hexadecimal digits.
#[must_use]
pub fn new_id() -> String {
    let mut bytes = [0_u8; 32];
    random().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// A name as docker makes them up; from the second attempt on with a number.
#[must_use]
pub fn new_name(attempt: u32) -> String {
    let mut rng = random();
    let quality = QUALITIES.choose(&mut rng).copied().unwrap_or("plain");
    let person = PEOPLE.choose(&mut rng).copied().unwrap_or("euler");
    match attempt {
        0 => format!("{quality}_{person}"),
        n => format!(
            "{quality}_{person}{}",
            rng.next_u32() % (10 * n.min(1_000_000))
        ),
    }
}

/// The first 12 digits of an id.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Whether `text` can be an id: nothing else becomes part of a path.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Refuses what cannot be a name; the rule is podman's (docker asks for two
/// characters at least).
///
/// # Errors
/// [`ContainerError::Invalid`].
pub fn check(name: &str) -> Result<(), ContainerError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && (1..=200).contains(&name.len()) && !is_id(name) {
        return Ok(());
    }
    let why = "use letters, digits, _, . and -, beginning with a letter or digit";
    Err(ContainerError::invalid("--name", name, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_and_ids_pass_their_own_checks() {
        for attempt in 0..50 {
            check(&new_name(attempt)).unwrap();
            assert!(is_id(&new_id()));
        }
    }

    #[test]
    fn names_cannot_leave_their_directory() {
        for bad in [
            "",
            "..",
            "../x",
            "a/b",
            ".hidden",
            "-x",
            "a b",
            "a\0b",
            "ä-b",
            &new_id(),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        check("web-1.test_x").unwrap();
    }
}
