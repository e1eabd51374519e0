//! Machines, as Go and so every image calls them.

use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageIndex};

/// An architecture with its variant: `arm64`, `arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Go's `GOARCH`.
    pub architecture: String,
    /// Version of the instruction set, such as `v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            same => same,
        };
        Self {
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// Whether an image for `architecture` and `variant` is for this platform.
    #[must_use]
    pub fn takes(&self, architecture: &str, variant: Option<&str>) -> bool {
        self.architecture == architecture
            && (self.variant.is_none() || self.variant.as_deref() == variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

impl FromStr for Platform {
    type Err = &'static str;

    /// `linux/arm/v7`, `linux/amd64`, or `amd64`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "write OS/ARCHITECTURE[/VARIANT], such as linux/amd64 or linux/arm/v7";
        let text = text.to_ascii_lowercase();
        let parts: Vec<&str> = text.split('/').collect();
        let (architecture, variant) = match parts.as_slice() {
            ["linux", architecture, variant] => (*architecture, Some(*variant)),
            ["linux", architecture] | [architecture] if *architecture != "linux" => {
                (*architecture, None)
            }
            [_, _] | [_, _, _] => return Err("only linux images can be used here"),
            _ => return Err(WHY),
        };
        let word =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !word(architecture) || !variant.is_none_or(word) {
            return Err(WHY);
        }
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            same => same,
        };
        Ok(Self {
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

/// The entry of `index` for that platform; `Err` names those there are.
pub(crate) fn choose_platform<'a>(
    index: &'a ImageIndex,
    wanted: &Platform,
) -> Result<&'a Descriptor, String> {
    let mut found = Vec::new();
    for descriptor in index.manifests() {
        let Some(platform) = descriptor.platform() else {
            // An index of one needs no platform.
            if index.manifests().len() == 1 {
                return Ok(descriptor);
            }
            continue;
        };
        let (os, architecture) = (
            platform.os().to_string(),
            platform.architecture().to_string(),
        );
        if os == "linux" && wanted.takes(&architecture, platform.variant().as_deref()) {
            return Ok(descriptor);
        }
        // What buildkit attaches (attestations) is for unknown/unknown.
        if os != "unknown" {
            let variant = platform
                .variant()
                .as_ref()
                .map_or(String::new(), |v| format!("/{v}"));
            found.push(format!("{os}/{architecture}{variant}"));
        }
    }
    Err(if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(", ")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_parse_in_their_usual_spellings() {
        let p = |t: &str| t.parse::<Platform>().map(|p| p.to_string());
        assert_eq!(p("linux/arm/v7").unwrap(), "linux/arm/v7");
        assert_eq!(p("x86_64").unwrap(), "linux/amd64");
        for bad in [
            "",
            "linux",
            "windows/amd64",
            "linux/",
            "a/b/c/d",
            "linux/arm/",
        ] {
            assert!(p(bad).is_err(), "{bad}");
        }
    }
}
