//! What each instruction does to a stage.

use std::path::{Path, PathBuf};

use pellicle_store::Digest;
use serde_json::json;

use super::{
    BuildError,
    builder::Builder,
    containerfile::{Command, Copy, Instruction, Run},
    copy::{self, Copying},
    layer::{self, Work},
    mounts::{Kind, Mount},
    place::Placer,
    remote::{self, Remote},
    run::{self, Running},
    scope::Scope,
    shown::{Shown, bound},
    source::{self, Source},
};
use crate::{
    container::{request::Network, spec},
    image::{NewLayer, parse_config},
};

impl Builder<'_> {
    /// `WORKDIR`: the directory is made, if it is missing.
    pub(super) fn workdir(
        &self,
        scope: &mut Scope,
        instruction: &Instruction,
        path: &str,
    ) -> Result<(), BuildError> {
        let path = scope.expand(path, &instruction.place)?;
        let path = copy::absolute(&scope.state.settings.working_dir, &path);
        let Some(text) = path.to_str() else {
            return Err(BuildError::request(
                "the path is not UTF-8",
                "give another one",
            ));
        };
        scope.state.settings.working_dir = text.to_owned();
        let mut key = self.key(&scope.state, "WORKDIR")?;
        key.update(text.as_bytes());
        let state = &scope.state;
        let (made, _) = self.made(key, &mut || {
            let lower = self.tree(&state.diff_ids, false)?;
            let work = Work::new(self.images.store().root())?;
            let union = layer::writable(&lower, work.path())?;
            let placer = Placer::new(&union, (0, 0), None, &self.options.cancel);
            placer.directory(&path)?;
            placer.finish()?;
            drop(union);
            self.layer_of(&lower, work.path())
        })?;
        scope.state.add(&instruction.text(), &made);
        Ok(())
    }

    fn layer_of(
        &self,
        lower: &std::sync::Arc<dyn pellicle_layer::Lower>,
        dir: &Path,
    ) -> Result<Option<NewLayer>, BuildError> {
        let store = self.images.store();
        layer::commit(store, lower, dir, &[], self.options.times, &self.watch())
    }

    /// `COPY` and `ADD`.
    pub(super) fn copy(
        &self,
        scope: &mut Scope,
        instruction: &Instruction,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        let place = &instruction.place;
        let all = |list: &[String]| -> Result<Vec<String>, BuildError> {
            list.iter().map(|t| scope.expand(t, place)).collect()
        };
        let one = |text: &Option<String>| -> Result<Option<String>, BuildError> {
            text.as_ref().map(|t| scope.expand(t, place)).transpose()
        };
        let mut texts = Vec::new();
        for doc in &copy.heredocs {
            let text = if doc.expand {
                scope.body(&doc.body, place)?
            } else {
                doc.body.clone()
            };
            texts.push((doc.name.clone(), text));
        }
        let sources = all(&copy.sources)?;
        let (addresses, sources): (Vec<String>, Vec<String>) = sources
            .into_iter()
            .partition(|text| copy.add && remote::is_address(text));
        let remotes = self.remotes(&addresses, one(&copy.checksum)?, sources.len())?;
        let request = copy::Request {
            add: copy.add,
            sources,
            texts,
            to: scope.expand(&copy.to, place)?,
            chown: one(&copy.chown)?,
            chmod: one(&copy.chmod)?,
            workdir: scope.state.settings.working_dir.clone(),
        };
        // Texts of the file itself need no context.
        let source = if request.sources.is_empty() && copy.from.is_none() {
            None
        } else {
            Some(self.source(copy.from.as_deref(), place)?)
        };
        let nothing = NoSource;
        let source: &dyn Source = source.as_deref().unwrap_or(&nothing);
        let copying = Copying::find(&request, &remotes, source)?;
        let mut key = self.key(&scope.state, "COPY")?;
        copying.fingerprint(&mut key)?;
        let state = &scope.state;
        let (made, cached) = self.made(key, &mut || {
            let lower = self.tree(&state.diff_ids, false)?;
            let work = Work::new(self.images.store().root())?;
            let union = layer::writable(&lower, work.path())?;
            copying.write(&union, &self.options.cancel)?;
            drop(union);
            self.layer_of(&lower, work.path())
        })?;
        self.tell(cached);
        scope.state.add(&instruction.text(), &made);
        Ok(())
    }

    /// What ADD takes from `addresses`, beside `others`.
    fn remotes(
        &self,
        addresses: &[String],
        checksum: Option<String>,
        others: usize,
    ) -> Result<Vec<Remote<'_>>, BuildError> {
        let checksum = match (checksum, addresses.len() + others) {
            (None, _) => None,
            (Some(text), 1) if addresses.len() == 1 => {
                Some(text.parse::<Digest>().map_err(|_| {
                    BuildError::request(
                        format!("--checksum={text} is no digest"),
                        "write --checksum=sha256: and 64 hexadecimal digits",
                    )
                })?)
            }
            (Some(_), _) => {
                return Err(BuildError::request(
                    "--checksum is for one address",
                    "write an ADD of its own for each address, and take it out of those of files",
                ));
            }
        };
        addresses
            .iter()
            .map(|address| Remote::look(address, checksum, self.options.fetch, &self.cache))
            .collect()
    }

    fn tell(&self, cached: bool) {
        if cached {
            (self.options.tell)(format_args!("--> Using cache"));
        }
    }

    /// `RUN`.
    pub(super) fn run(
        &self,
        scope: &mut Scope,
        instruction: &Instruction,
        run: &Run,
    ) -> Result<(), BuildError> {
        let place = &instruction.place;
        let (command, script) = command(scope, run);
        let network = match run.network.as_deref() {
            None | Some("default") => self.options.network,
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                return Err(BuildError::bad(
                    place,
                    format!("--network={other} is not known"),
                    "give none, host or default",
                ));
            }
        };
        let (env, proxies) = self.environment(scope);
        let mut key = self.key(&scope.state, "RUN")?;
        key.update(
            json!([command, script, env, format!("{network:?}")])
                .to_string()
                .as_bytes(),
        );
        let mut mounts = Vec::new();
        for text in &run.mounts {
            let text = scope.expand(text, place)?;
            let mount = Mount::parse(&text)?;
            key.update(text.as_bytes());
            if let Kind::Bind { from, source }
            | Kind::Cache {
                begins_with: Some((from, source)),
                ..
            } = &mount.kind
            {
                let tree = self.source(from.as_deref(), place)?;
                source::fingerprint(&*tree, &bound(&*tree, source)?, &mut key)?;
            }
            mounts.push(mount);
        }
        let (config, _) = parse_config(&scope.state.config()?)
            .map_err(|why| BuildError::request(why, "use another base image"))?;
        let state = &scope.state;
        let (made, cached) = self.made(key, &mut || {
            let work = Work::new(self.images.store().root())?;
            let workdir = &state.settings.working_dir;
            let mut shown = Shown::new(self, place, workdir, work.path());
            shown.env.extend(env.iter().chain(&proxies).cloned());
            if let Some((to, text)) = &script {
                let path = work.path().join("script");
                run::file_for(&path, text.as_bytes(), 0o755)?;
                shown.mounts.push(spec::bind(path, to.clone(), true));
            }
            for mount in &mounts {
                shown.add(mount)?;
            }
            let store = self.images.store();
            let running = Running {
                place,
                shown: &instruction.rest,
                config: &config,
                diff_ids: &state.diff_ids,
                command: command.clone(),
                env: std::mem::take(&mut shown.env),
                network,
                tmpfs: std::mem::take(&mut shown.tmpfs),
                mounts: std::mem::take(&mut shown.mounts),
                work: work.path(),
                quiet: self.options.quiet,
                times: self.options.times,
            };
            let tree = |single_id| self.tree(&state.diff_ids, single_id);
            running.run(store, &tree, &self.watch())
        })?;
        self.tell(cached);
        scope.state.add(&instruction.text(), &made);
        Ok(())
    }
}

/// What stands for the context where none is needed.
struct NoSource;

impl Source for NoSource {
    fn name(&self) -> String {
        "the Containerfile".to_owned()
    }
    fn entry(&self, _: &Path) -> Result<Option<source::Entry>, BuildError> {
        Ok(None)
    }
    fn names(&self, _: &Path) -> Result<Vec<std::ffi::OsString>, BuildError> {
        Ok(Vec::new())
    }
    fn open(&self, _: &Path) -> Result<Box<dyn std::io::Read + '_>, BuildError> {
        Ok(Box::new(std::io::empty()))
    }
    fn link(&self, _: &Path) -> Result<Vec<u8>, BuildError> {
        Ok(Vec::new())
    }
    fn xattrs(&self, _: &Path) -> Result<source::Xattrs, BuildError> {
        Ok(Vec::new())
    }
    fn digest(&self, _: &Path, _: &source::Entry) -> Result<pellicle_store::Digest, BuildError> {
        Ok(pellicle_store::Digest::of(b""))
    }
}

/// The command line of a RUN, and a script that it executes: where, and its text.
fn command(scope: &Scope, run: &Run) -> (Vec<String>, Option<(PathBuf, String)>) {
    let text = match &run.command {
        Command::Exec(list) => return (list.clone(), None),
        Command::Shell(text) => text,
    };
    let mut line = scope.state.shell();
    let text = match run.heredocs.as_slice() {
        [] => text.clone(),
        // Nothing but the heredoc: it is the script.
        [only] if text.split_whitespace().count() == 1 => {
            if only.body.starts_with("#!") {
                let to = PathBuf::from("/dev/pipes").join(&only.name);
                let line = vec![to.to_string_lossy().into_owned()];
                return (line, Some((to, only.body.clone())));
            }
            only.body.clone()
        }
        all => all.iter().fold(format!("{text}\n"), |whole, doc| {
            format!("{whole}{}{}\n", doc.body, doc.name)
        }),
    };
    line.push(text);
    (line, None)
}
