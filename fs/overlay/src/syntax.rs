//! The text of `-o`: where it is split, and what backslashes and quotes mean.
//!
//! Options are separated by commas, the directories of `lowerdir` by colons. A backslash takes the
//! meaning from the byte after it, so that paths may hold commas, colons and backslashes; followed
//! by three octal digits it stands for that byte, as in fstab(5). A value that begins with a
//! double quote goes to the next one, commas and all: mount(8) and podman write SELinux contexts
//! so. Everything is bytes: paths need not be text.

/// One option: its name, and the value behind the first `=` with its backslashes still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
    /// The option as it was written.
    pub(crate) text: &'a [u8],
}

/// The options in `text`. Empty ones, as between two commas, are left out.
pub(crate) fn words(text: &[u8]) -> impl Iterator<Item = Word<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let (word, after) = cut(rest, b',', true);
            rest = after;
            if !word.is_empty() {
                return Some(Word::new(word));
            }
        }
    })
}

/// The values between unescaped colons, without their backslashes. Empty ones are left out.
pub(crate) fn list(value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (one, after) = cut(rest, b':', false);
        rest = after;
        if !one.is_empty() {
            all.push(unescape(one));
        }
    }
    all
}

/// Takes the backslashes off.
pub(crate) fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            plain.push(byte);
        } else if let [
            a @ b'0'..=b'3',
            b @ b'0'..=b'7',
            c @ b'0'..=b'7',
            after @ ..,
        ] = rest
        {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else if let Some((&escaped, after)) = rest.split_first() {
            plain.push(escaped);
            rest = after;
        } else {
            // The last byte: nothing that it could escape.
            plain.push(byte);
        }
    }
    plain
}

impl<'a> Word<'a> {
    fn new(text: &'a [u8]) -> Self {
        let mut parts = text.splitn(2, |b| *b == b'=');
        let key = parts.next().unwrap_or_default();
        let value = parts.next().map(|value| match value {
            [b'"', inner @ .., b'"'] => inner,
            value => value,
        });
        Self { key, value, text }
    }
}

/// What is before the first separator that counts, and what is after it.
fn cut(text: &[u8], separator: u8, quotes: bool) -> (&[u8], &[u8]) {
    let mut at = 0;
    let mut quoted = false;
    let mut before = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if !quoted => at += 1,
            b'"' if quoted => quoted = false,
            b'"' if quotes && before == b'=' => quoted = true,
            _ if byte == separator && !quoted => {
                let after = text.get(at + 1..).unwrap_or_default();
                return (text.get(..at).unwrap_or_default(), after);
            }
            _ => (),
        }
        before = byte;
        at += 1;
    }
    (text, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_and_values(text: &str) -> Vec<(String, Option<String>)> {
        let string = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
        words(text.as_bytes())
            .map(|w| (string(w.key), w.value.map(string)))
            .collect()
    }

    fn paths(text: &str) -> Vec<String> {
        list(text.as_bytes())
            .into_iter()
            .map(|p| String::from_utf8(p).unwrap())
            .collect()
    }

    #[test]
    fn options_are_split_at_commas_and_empty_ones_left_out() {
        let some = |s: &str| Some(s.to_owned());
        assert_eq!(
            keys_and_values(",,lowerdir=a:b,,ro,x=,y=1=2,"),
            [
                ("lowerdir".to_owned(), some("a:b")),
                ("ro".to_owned(), None),
                ("x".to_owned(), some("")),
                ("y".to_owned(), some("1=2")),
            ]
        );
        assert_eq!(keys_and_values(""), []);
    }

    #[test]
    fn an_escaped_comma_belongs_to_the_value() {
        let words = keys_and_values(r"upperdir=/a\,b\\,ro");
        assert_eq!(words[0].1.as_deref(), Some(r"/a\,b\\"));
        assert_eq!(words[1].0, "ro");
        assert_eq!(unescape(br"/a\,b\\"), br"/a,b\");
    }

    #[test]
    fn a_quoted_context_keeps_its_commas() {
        let words = keys_and_values(r#"context="system_u:object_r:t:s0:c1,c2",ro"#);
        assert_eq!(words[0].1.as_deref(), Some("system_u:object_r:t:s0:c1,c2"));
        assert_eq!(words[1].0, "ro");
        // A quote anywhere else is a byte like any other.
        let words = keys_and_values(r#"upperdir=/a"b,workdir=/c"d"#);
        assert_eq!(words[0].1.as_deref(), Some("/a\"b"));
        assert_eq!(words[1].1.as_deref(), Some("/c\"d"));
    }

    #[test]
    fn lower_directories_are_split_at_unescaped_colons() {
        assert_eq!(paths("/a:/b"), ["/a", "/b"]);
        assert_eq!(paths(r"/a\:b:/c\\:/d"), ["/a:b", r"/c\", "/d"]);
        assert_eq!(paths(r":/a\:\,x::/b:"), ["/a:,x", "/b"]);
    }

    #[test]
    fn octal_escapes_are_bytes() {
        assert_eq!(unescape(br"/my\040dir\377"), b"/my dir\xff");
        // Not octal: the backslash takes the meaning of one byte only.
        assert_eq!(unescape(br"\480\4"), b"4804");
        assert_eq!(unescape(br"end\"), br"end\");
    }
}
