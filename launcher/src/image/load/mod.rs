//! Loading images from an OCI image layout (image-spec image-layout.md) or from what `docker save`
//! writes, as a directory or an archive.
//!
//! Nothing in the source is believed: every manifest, configuration and layer is hashed and
//! compared with what names it, every small part has a limit, indexes nest only so deep. Images are
//! listed all at once when the last is in the store, so a load gives all of its images or none.

mod docker;
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
use source::Source;

use super::{Images, NewImage, Platform, Reference};

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
