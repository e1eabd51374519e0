//! The value of `--chmod`: bits in octal, or changes as chmod(1) writes them (`u=rwX,go-w`).

use super::BuildError;

/// What `--chmod` makes of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chmod {
    /// These, whatever there were.
    Bits(u16),
    /// These changes, one after the other.
    Changes(Vec<Change>),
}

/// `WHO OPERATOR WHAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Those of [`USER`], [`GROUP`] and [`OTHERS`] whose bits change.
    who: u16,
    operator: Operator,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Letters: bits of all three classes, and X.
    Letters { bits: u16, exec_if_any: bool },
    /// What this class has.
    Of(u16),
}

const USER: u16 = 0o4700;
const GROUP: u16 = 0o2070;
const OTHERS: u16 = 0o1007;

impl Chmod {
    /// Reads it.
    ///
    /// # Errors
    /// What is no mode.
    pub(super) fn parse(text: &str) -> Result<Self, BuildError> {
        if let Ok(bits) = u16::from_str_radix(text, 8)
            && bits <= 0o7777
            && !text.starts_with('+')
        {
            return Ok(Self::Bits(bits));
        }
        changes(text).map(Self::Changes).ok_or_else(|| {
            BuildError::request(
                format!("--chmod={text} is no mode"),
                "write it in octal, such as --chmod=755, or as chmod does, such as --chmod=u=rwX,go=rX",
            )
        })
    }

    /// What becomes of `perm`, of a directory or of something else.
    pub(super) fn apply(&self, perm: u16, is_dir: bool) -> u16 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Changes(changes) => changes
                .iter()
                .fold(perm, |perm, change| change.apply(perm, is_dir)),
        }
    }
}

impl Change {
    fn apply(&self, perm: u16, is_dir: bool) -> u16 {
        let bits = match self.what {
            What::Letters { bits, exec_if_any } => {
                let exec = exec_if_any && (is_dir || perm & 0o111 != 0);
                bits | if exec { 0o111 } else { 0 }
            }
            What::Of(class) => {
                let three = match class {
                    USER => perm >> 6,
                    GROUP => perm >> 3,
                    _ => perm,
                } & 0o7;
                three * 0o111
            }
        } & self.who;
        match self.operator {
            Operator::Add => perm | bits,
            Operator::Remove => perm & !bits,
            Operator::Set => {
                // As GNU chmod: the set-id bits of a directory stay unless they are named.
                let kept = if is_dir { perm & 0o6000 } else { 0 };
                (perm & !self.who) | bits | kept
            }
        }
    }
}

fn changes(text: &str) -> Option<Vec<Change>> {
    let mut all = Vec::new();
    for clause in text.split(',') {
        let letters = clause.find(['+', '-', '='])?;
        let (classes, mut rest) = clause.split_at(letters);
        let mut who = 0;
        for class in classes.chars() {
            who |= match class {
                'u' => USER,
                'g' => GROUP,
                'o' => OTHERS,
                'a' => 0o7777,
                _ => return None,
            };
        }
        if classes.is_empty() {
            who = 0o7777;
        }
        while let Some(operator) = rest.chars().next() {
            let operator = match operator {
                '+' => Operator::Add,
                '-' => Operator::Remove,
                '=' => Operator::Set,
                _ => return None,
            };
            rest = rest.get(1..)?;
            let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
            let (what, after) = rest.split_at(end);
            rest = after;
            all.push(Change {
                who,
                operator,
                what: letters_of(what)?,
            });
        }
    }
    Some(all)
}

fn letters_of(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Of(USER)),
        "g" => return Some(What::Of(GROUP)),
        "o" => return Some(What::Of(OTHERS)),
        _ => {}
    }
    let (mut bits, mut exec_if_any) = (0, false);
    for letter in text.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' => exec_if_any = true,
            's' => bits |= 0o6000,
            't' => bits |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Letters { bits, exec_if_any })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_bits_or_changes_as_chmod_makes_them() {
        // As `chmod` of coreutils 9.1 leaves them with umask 0.
        for (text, before, is_dir, after) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o600, false, 0),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, false, 0o555),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o640, false, 0o644),
            ("go-rwx", 0o777, false, 0o700),
            ("g=u", 0o741, false, 0o771),
            ("o=g-w", 0o665, false, 0o664),
            ("u+s,g+s,+t", 0o755, true, 0o7755),
            ("u=rwx", 0o4755, false, 0o755),
            ("=", 0o755, false, 0),
            ("u-x+r", 0o300, false, 0o600),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            let got = chmod.apply(before, is_dir);
            assert_eq!(got, after, "{text} of {before:o}: {got:o}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "8", "77777", "+755", "u", "u=q", "z+x", "u=rw,", "rwx"] {
            let error = Chmod::parse(text).expect_err(text).to_string();
            assert!(error.contains("is no mode"), "{text}: {error}");
        }
    }
}
