//! `RUN --mount`: what is shown in the container of one RUN, and is no part of the layer.

use super::BuildError;

/// A `--mount` with its variables replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) kind: Kind,
    /// Where in the container; may be relative to the working directory, empty for a secret's default.
    pub(super) target: String,
    pub(super) read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory that stays from build to build.
    Cache {
        id: String,
        sharing: Sharing,
        /// Mode of a new one; without, of what it begins with, or 755.
        mode: Option<u32>,
        /// The stage or image (else the context), and the path in it, that a new one begins with.
        begins_with: Option<(Option<String>, String)>,
    },
    /// Files of the context, a stage or an image.
    Bind {
        from: Option<String>,
        source: String,
    },
    /// Memory.
    Tmpfs { size: Option<String> },
    /// A file that only this RUN sees.
    Secret {
        id: String,
        required: bool,
        mode: u32,
        /// Also (or only, without a target) as this variable.
        env: Option<String>,
    },
    /// The socket of an ssh agent of the caller's.
    Ssh {
        id: String,
        required: bool,
        mode: u32,
    },
}

/// Who else may use a cache meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Shared,
    /// Others wait.
    Locked,
    /// Others get one of their own.
    Private,
}

/// The value of `from` in a `--mount`, if it has one.
pub(super) fn from(text: &str) -> Option<String> {
    fields(text)
        .find(|(n, _)| *n == "from")
        .map(|(_, v)| v.to_owned())
}

fn fields(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',')
        .filter(|f| !f.is_empty())
        .map(|f| f.split_once('=').unwrap_or((f, "")))
}

impl Mount {
    /// Reads the value of a `--mount`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, BuildError> {
        let mut raw = Raw::default();
        for (name, value) in fields(text) {
            raw.set(name, value).ok_or_else(|| {
                let what = if value.is_empty() {
                    format!("--mount={text}: {name} is not known, or needs a value")
                } else {
                    format!("--mount={text}: {name}={value} is not known")
                };
                BuildError::request(
                    what,
                    "a mount is written type=cache|bind|tmpfs|secret|ssh,target=PATH and id, from, source, sharing, mode, size, required, env, ro or rw",
                )
            })?;
        }
        raw.finish()
            .map_err(|(what, next)| BuildError::request(format!("--mount={text}: {what}"), next))
    }
}

#[derive(Default)]
struct Raw<'a> {
    kind: Option<&'a str>,
    target: Option<&'a str>,
    id: Option<&'a str>,
    from: Option<&'a str>,
    source: Option<&'a str>,
    size: Option<&'a str>,
    env: Option<&'a str>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    read_only: Option<bool>,
    required: bool,
}

impl<'a> Raw<'a> {
    fn set(&mut self, name: &str, value: &'a str) -> Option<()> {
        let given = || Some(value).filter(|v| !v.is_empty());
        let flag = || match value {
            "" | "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        match name {
            "type" => self.kind = Some(given()?),
            "target" | "dst" | "destination" => self.target = Some(given()?),
            "id" => self.id = Some(given()?),
            "from" => self.from = Some(given()?),
            "source" | "src" => self.source = Some(given()?),
            "size" => self.size = Some(given()?),
            "env" => self.env = Some(given()?),
            "mode" => {
                self.mode = Some(
                    u32::from_str_radix(value, 8)
                        .ok()
                        .filter(|m| *m <= 0o7777)?,
                )
            }
            "sharing" => {
                self.sharing = Some(match value {
                    "shared" => Sharing::Shared,
                    "locked" => Sharing::Locked,
                    "private" => Sharing::Private,
                    _ => return None,
                });
            }
            "ro" | "readonly" => self.read_only = Some(flag()?),
            "rw" | "readwrite" => self.read_only = Some(!flag()?),
            "required" => self.required = flag()?,
            // Root's, as everything that is mounted.
            "uid" | "gid" if value == "0" => {}
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Result<Mount, (String, &'static str)> {
        let wrong = |what: &str, next| Err((what.to_owned(), next));
        let kind = self.kind.unwrap_or("bind");
        let target = self.target.unwrap_or_default().to_owned();
        if target.is_empty() && !matches!(kind, "secret" | "ssh") {
            return wrong("it has no target", "add target=PATH");
        }
        let made = match kind {
            "bind" => Kind::Bind {
                from: self.from.map(str::to_owned),
                source: self.source.unwrap_or_default().to_owned(),
            },
            "cache" => Kind::Cache {
                id: self.id.unwrap_or(&target).to_owned(),
                sharing: self.sharing.unwrap_or(Sharing::Shared),
                mode: self.mode,
                begins_with: (self.from.is_some() || self.source.is_some()).then(|| {
                    let source = self.source.unwrap_or_default();
                    (self.from.map(str::to_owned), source.to_owned())
                }),
            },
            "ssh" => Kind::Ssh {
                id: self.id.unwrap_or("default").to_owned(),
                required: self.required,
                mode: self.mode.unwrap_or(0o600),
            },
            "tmpfs" => Kind::Tmpfs {
                size: self.size.map(str::to_owned),
            },
            "secret" => {
                let name = target.rsplit('/').next().filter(|n| !n.is_empty());
                let Some(id) = self.id.or(name) else {
                    return wrong("a secret has no id", "add id=NAME");
                };
                Kind::Secret {
                    id: id.to_owned(),
                    required: self.required,
                    mode: self.mode.unwrap_or(0o400),
                    env: self.env.map(str::to_owned),
                }
            }
            other => {
                return Err((
                    format!("type={other} is not known"),
                    "the types are cache, bind, tmpfs, secret and ssh",
                ));
            }
        };
        // What is bound is for reading unless said otherwise, as docker has it.
        let read_only = self.read_only.unwrap_or(kind == "bind" || kind == "secret");
        Ok(Mount {
            kind: made,
            target,
            read_only,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_have_dockers_names_and_defaults() {
        let cache = Mount::parse("type=cache,target=/c,sharing=locked").unwrap();
        assert_eq!(
            cache.kind,
            Kind::Cache {
                id: "/c".into(),
                sharing: Sharing::Locked,
                mode: None,
                begins_with: None,
            }
        );
        assert!(!cache.read_only);
        let cache = Mount::parse("type=cache,target=/c,from=a,source=/x,mode=700").unwrap();
        assert_eq!(
            cache.kind,
            Kind::Cache {
                id: "/c".into(),
                sharing: Sharing::Shared,
                mode: Some(0o700),
                begins_with: Some((Some("a".into()), "/x".into())),
            }
        );
        let ssh = Mount::parse("type=ssh").unwrap();
        assert_eq!(
            ssh.kind,
            Kind::Ssh {
                id: "default".into(),
                required: false,
                mode: 0o600,
            }
        );
        let bind = Mount::parse("from=a,source=x,dst=/m").unwrap();
        assert!(bind.read_only);
        assert!(!Mount::parse("dst=/m,rw").unwrap().read_only);
        let secret = Mount::parse("type=secret,id=k,required").unwrap();
        assert_eq!(
            secret.kind,
            Kind::Secret {
                id: "k".into(),
                required: true,
                mode: 0o400,
                env: None
            }
        );
        assert_eq!(from("type=bind,from=b,target=/x").as_deref(), Some("b"));
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, want) in [
            ("type=smb,target=/x", "type=smb"),
            ("type=cache", "no target"),
            ("type=cache,target=/x,sharing=some", "sharing=some"),
            ("type=secret", "no id"),
            ("target=/x,mode=9", "mode=9"),
            ("target=/x,uid=5", "uid=5"),
            ("target=", "target"),
        ] {
            let e = Mount::parse(text).unwrap_err().to_string();
            assert!(e.contains(want), "{text}: {e}");
        }
    }
}
