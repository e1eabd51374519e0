//! `pellicle push` into layouts and archives.

use std::path::Path;

use pellicle_union::Watch;

use super::{outfile::OutFile, registry_args::clearly};
use crate::{
    CliError,
    image::{
        FileKind, FileLocation, Image, Images, Pick, Reference,
        save::{SaveFormat, Saved, save_archive},
    },
    registry::{
        layout::{Ship, archive, push_to_layout},
        push::Pushed,
    },
};

/// Puts `image` where `at` says.
pub(super) fn push(
    images: &Images,
    image: &Image,
    at: &FileLocation,
    ship: &Ship<'_>,
) -> Result<Pushed, CliError> {
    let tag = match &at.pick {
        Pick::Only => None,
        Pick::Named(name) => Some(name.as_str()),
        Pick::At(index) => {
            return Err(CliError::usage(format!(
                "@{index} is the place of an image that is there, not of a new one"
            ))
            .with_hint(format!("give it a tag: {}PATH:TAG", at.kind.prefix())));
        }
    };
    let ship = Ship { tag, ..*ship };
    match at.kind {
        FileKind::Oci => push_to_layout(images, image, &at.path, &ship).map_err(clearly),
        FileKind::OciArchive => as_archive(images, image, &at.path, &ship),
        FileKind::DockerArchive => saved(images, image, &at.path, &ship),
    }
}

/// Through a layout beside the archive.
fn as_archive(
    images: &Images,
    image: &Image,
    path: &Path,
    ship: &Ship<'_>,
) -> Result<Pushed, CliError> {
    // Before the work: a name that nothing can be written to is refused at once.
    let mut file = OutFile::new(Some(path), "an archive of images")?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let dir = tempfile::Builder::new()
        .prefix(".pellicle-")
        .tempdir_in(parent.unwrap_or(Path::new(".")))
        .map_err(|e| CliError::failed(format!("cannot make {}", path.display())).because(e))?;
    let pushed = push_to_layout(images, image, dir.path(), ship).map_err(clearly)?;
    archive(dir.path(), &mut file)?;
    file.finish()?;
    Ok(pushed)
}

/// As `save` does: layers are not compressed for it.
fn saved(images: &Images, image: &Image, path: &Path, ship: &Ship<'_>) -> Result<Pushed, CliError> {
    if std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() > 0) {
        return Err(CliError::failed(format!("{} is there already", path.display())).with_hint(
            "a docker-archive cannot be added to: remove it, or `pellicle save` several images at once",
        ));
    }
    let names = match ship.tag {
        Some(tag) => vec![tag.parse::<Reference>()?],
        None => Vec::new(),
    };
    let _lock = images.store().lock_shared()?;
    let mut file = OutFile::new(Some(path), "an archive of images")?;
    let saved = Saved {
        image: image.clone(),
        names: names.iter().filter_map(Reference::tagged).collect(),
    };
    let watch = Watch {
        cancel: ship.cancel.clone(),
        progress: &(),
    };
    save_archive(
        images,
        &[saved],
        SaveFormat::DockerArchive,
        &mut file,
        &watch,
    )?;
    file.finish()?;
    Ok(Pushed {
        digest: image.manifest,
        size: images.raw_manifest(&image.manifest)?.len() as u64,
        blobs: Vec::new(),
        referrers: Vec::new(),
    })
}
