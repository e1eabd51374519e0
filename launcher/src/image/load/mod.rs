//! Loading images from an OCI image layout (image-spec image-layout.md) or from what `docker save`
//! writes, as a directory or an archive.
//!
//! Nothing in the source is believed: every manifest, configuration and layer is hashed and
//! compared with what names it, every small part has a limit, indexes nest only so deep. Images are
//! listed all at once when the last is in the store, so a load gives all of its images or none.

mod docker;
mod docker_dir;
mod error;
mod oci;
mod source;
mod tar_index;

use std::{io::Read, path::Path};

use pellicle_store::{
    Digest,
    import::{self, Cancel, ImportOptions, ImportedLayer, Progress},
};

pub use error::LoadError;
pub(crate) use oci::{CONTAINERD_NAME, REF_NAME};
use source::Source;

use crate::events::{self, Event};

use super::{FileKind, FileLocation, Images, NewImage, Pick, Platform, Reference};

/// More layers than any engine makes (docker stops at 127); bounds what a claim can cost.
const LAYERS_MAX: usize = 1000;
/// More images than a source ever holds.
const IMAGES_MAX: usize = 1000;

/// Where from.
#[derive(Debug)]
pub enum From<'a> {
    /// A directory or an archive.
    Path(&'a Path),
    /// An archive on standard input.
    Stdin,
}

/// What to load and how.
#[derive(Debug)]
pub struct LoadOptions {
    /// The machine to choose images for, where there is a choice.
    pub platform: Platform,
    /// Name for the only image of the source, instead of those it has.
    pub name: Option<Reference>,
    /// Only that one; all without.
    pub pick: Option<Pick>,
    /// A request to stop.
    pub cancel: Cancel,
}

/// Loads all images of a source and lists them; gives them in the order of the source, with
/// whether anything was put into the store in `progress`-independent form.
///
/// # Errors
/// [`LoadError`]; then no image is listed. Layers that were imported before stay in the store,
/// named by nothing, until it is collected.
pub fn load(
    images: &Images,
    from: &From<'_>,
    options: &LoadOptions,
    progress: &dyn Fn(&str, u64) -> Box<dyn Progress>,
) -> Result<Vec<NewImage>, LoadError> {
    let loaded = read(images, from, options, progress)?;
    images.add_all(loaded.clone())?;
    note(images, &loaded);
    Ok(loaded)
}

/// As [`load`], but lists none of them.
///
/// # Errors
/// As [`load`].
pub fn read(
    images: &Images,
    from: &From<'_>,
    options: &LoadOptions,
    progress: &dyn Fn(&str, u64) -> Box<dyn Progress>,
) -> Result<Vec<NewImage>, LoadError> {
    let spool = images.store().root();
    let source = match from {
        From::Path(path) => Source::open(path, spool, &options.cancel)?,
        From::Stdin => Source::stream(
            std::io::stdin(),
            "standard input".to_owned(),
            spool,
            &options.cancel,
        )?,
    };
    let stem = match from {
        From::Path(path) => stem(path),
        From::Stdin => None,
    };
    let loader = Loader {
        images,
        source: &source,
        options,
        progress,
    };
    let mut loaded = if source.member("index.json")?.is_some() {
        oci::load(&loader, stem.as_deref())?
    } else if docker_dir::is_one(&source)? {
        docker_dir::load(&loader)?
    } else if source.member("manifest.json")?.is_some() {
        docker::load(&loader)?
    } else {
        return Err(LoadError::NoImages {
            source_name: source.name(),
            why: guess(&source)?,
        });
    };
    if let Some(name) = &options.name {
        match loaded.as_mut_slice() {
            [one] => one.names = vec![name.clone()],
            more => {
                return Err(LoadError::invalid(
                    source.name(),
                    format!(
                        "a name can be given to one image, and it holds {}",
                        more.len()
                    ),
                ));
            }
        }
    }
    Ok(loaded)
}

/// Reads the image at `at` and lists it without names that it may have there, unless `named`: those are
/// then given to it.
///
/// # Errors
/// As [`load`]; [`LoadError::Choice`] if there is no such image, or not only one.
pub fn from_file(
    images: &Images,
    at: &FileLocation,
    named: bool,
    options: LoadOptions,
    progress: &dyn Fn(&str, u64) -> Box<dyn Progress>,
) -> Result<NewImage, LoadError> {
    let options = LoadOptions {
        pick: Some(at.pick.clone()),
        ..options
    };
    check_kind(at)?;
    let mut loaded = read(images, &From::Path(&at.path), &options, progress)?;
    let (Some(mut image), true) = (loaded.pop(), loaded.is_empty()) else {
        return Err(LoadError::Choice {
            source_name: at.to_string(),
            why: "it does not hold one image".to_owned(),
        });
    };
    if !named {
        image.names.clear();
    }
    images.add_once(image.clone())?;
    note(images, std::slice::from_ref(&image));
    Ok(image)
}

fn note(images: &Images, loaded: &[NewImage]) {
    let event = |image: &NewImage| {
        let name = image.names.first().and_then(Reference::tagged);
        Event::image("load", &image.id, name.as_deref())
    };
    let all: Vec<Event> = loaded.iter().map(event).collect();
    events::note(images.store().root(), &all);
}

/// The manifest, or the index of an image's platforms, that is at `at`, as it is there.
///
/// # Errors
/// As [`from_file`]; a docker-archive has none.
pub fn document(at: &FileLocation, spool: &Path, cancel: &Cancel) -> Result<Vec<u8>, LoadError> {
    check_kind(at)?;
    let source = Source::open(&at.path, spool, cancel)?;
    oci::document(&source, &at.pick)
}

/// A directory is no archive, and an archive no directory, whatever it holds.
fn check_kind(at: &FileLocation) -> Result<(), LoadError> {
    let meta = std::fs::metadata(&at.path).map_err(LoadError::io("read", &at.path))?;
    match (at.kind, meta.is_dir()) {
        (FileKind::Oci, false) => Err(LoadError::NoImages {
            source_name: at.to_string(),
            why: "it is no directory; an archive is named oci-archive:FILE".to_owned(),
        }),
        (FileKind::OciArchive | FileKind::DockerArchive, true) => Err(LoadError::NoImages {
            source_name: at.to_string(),
            why: "it is a directory; an OCI layout is named oci:DIR".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Which of a source's images, whose names `names` gives, is picked.
fn picked(source: &str, pick: &Pick, names: &[Vec<String>]) -> Result<usize, LoadError> {
    let choice = |why: String| LoadError::Choice {
        source_name: source.to_owned(),
        why,
    };
    let there = || {
        let all: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
        match all.as_slice() {
            [] => "none has a name".to_owned(),
            all => format!("there are {}", all.join(", ")),
        }
    };
    match pick {
        Pick::Only if names.len() == 1 => Ok(0),
        Pick::Only => Err(choice(format!(
            "it holds {} images; {}",
            names.len(),
            there()
        ))),
        Pick::At(at) if *at < names.len() => Ok(*at),
        Pick::At(at) => Err(choice(format!(
            "it has no image @{at}, only {} counted from 0",
            names.len()
        ))),
        Pick::Named(wanted) => {
            let full = |name: &str| name.parse::<Reference>().ok()?.tagged();
            let same = |name: &String| name == wanted || full(name) == full(wanted);
            let exact = |all: &Vec<String>| all.iter().any(|n| n == wanted);
            let at = names.iter().position(exact);
            at.or_else(|| names.iter().position(|all| all.iter().any(same)))
                .ok_or_else(|| choice(format!("it has no image {wanted}; {}", there())))
        }
    }
}

fn guess(source: &Source) -> Result<String, LoadError> {
    Ok(if source.member("repositories")?.is_some() {
        "it was saved by docker before 1.10, whose format is no longer read; load it with docker and save it again".to_owned()
    } else {
        "there is neither an index.json (OCI layout) nor a manifest.json (docker save) in it; a root file system is taken by `pellicle import`".to_owned()
    })
}

/// A repository name made of a file's: `debian-12.tar.gz` gives `debian-12`.
fn stem(path: &Path) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let stem = [".tar.gz", ".tar.zst", ".tgz", ".tar", ".oci"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(&name)
        .to_owned();
    stem.parse::<Reference>().is_ok().then_some(stem)
}

/// What the readers of both formats share.
struct Loader<'a> {
    images: &'a Images,
    source: &'a Source,
    options: &'a LoadOptions,
    progress: &'a dyn Fn(&str, u64) -> Box<dyn Progress>,
}

impl Loader<'_> {
    /// A small member, which must be there.
    fn document(&self, member: &str, what: &str, max: u64) -> Result<Vec<u8>, LoadError> {
        self.source
            .small(member, max)?
            .ok_or_else(|| LoadError::Missing {
                what: what.to_owned(),
                member: member.to_owned(),
            })
    }

    /// Imports one layer from `member`.
    fn layer(
        &self,
        member: &str,
        diff_id: Digest,
        blob: Option<(Digest, u64)>,
    ) -> Result<ImportedLayer, LoadError> {
        let what = format!("layer {diff_id}");
        let (reader, size) = self
            .source
            .member(member)?
            .ok_or_else(|| LoadError::Missing {
                what: what.clone(),
                member: member.to_owned(),
            })?;
        if let Some((_, promised)) = blob
            && promised != size
        {
            return Err(LoadError::invalid(
                what,
                format!("it has {size} bytes, and {promised} were announced"),
            ));
        }
        let step = (self.progress)(&super::short_id(&blob.map_or(diff_id, |b| b.0)), size);
        let options = ImportOptions {
            name: format!("{what} ({member})"),
            expect_blob: blob.map(|b| b.0),
            expect_diff_id: Some(diff_id),
            cancel: self.options.cancel.clone(),
            ..ImportOptions::default()
        };
        Ok(import::import_layer(
            self.images.store(),
            whole(reader),
            &options,
            &*step,
        )?)
    }

    /// Flattens the layers of an image, so that its first container starts as fast as the next.
    fn flatten(&self, layers: &[ImportedLayer]) -> Result<(), LoadError> {
        let stack: Vec<Digest> = layers.iter().map(|l| l.diff_id).collect();
        self.images.store().image_tree(&stack)?;
        Ok(())
    }
}

fn whole<'a>(reader: Box<dyn Read + Send + 'a>) -> impl Read + Send + 'a {
    reader
}
