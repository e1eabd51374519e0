//! What `RUN --mount` shows in a container: directories and files of the host, and memory.

use std::{
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::runtime::Mount as SpecMount;
use pellicle_store::Hasher;
use rustix::fs::{FlockOperation, flock};

use super::{
    BuildError, Place, Secret,
    agent::Forward,
    builder::Builder,
    cache, copy,
    mounts::{Kind, Mount, Sharing},
    output, run,
    settings::set,
    source::{self, Source},
};
use crate::container::spec;

/// Largest secret, as docker has it.
const SECRET_MAX: u64 = 500 << 10;
/// How many builds can have a private cache of one name at once.
const PRIVATE_MAX: usize = 64;

/// The path in `tree` that `source` of a bind means.
pub(super) fn bound(tree: &dyn Source, source: &str) -> Result<PathBuf, BuildError> {
    let (inside, left) = source::inside(source.as_ref());
    let found = if left {
        None
    } else {
        source::resolve(tree, &inside)?
    };
    found.ok_or_else(|| {
        BuildError::request(
            format!("source={source} of --mount is not in {}", tree.name()),
            "check its name, and that no ignore file leaves it out",
        )
    })
}

/// Gathers what one RUN is shown; to be kept until its command has ended.
pub(super) struct Shown<'a> {
    builder: &'a Builder<'a>,
    place: &'a Place,
    workdir: &'a str,
    work: &'a Path,
    pub(super) mounts: Vec<SpecMount>,
    /// As `run --tmpfs` has them.
    pub(super) tmpfs: Vec<String>,
    /// `NAME=VALUE`
    pub(super) env: Vec<String>,
    /// Held until the command has ended.
    locks: Vec<File>,
    agents: Vec<Forward>,
}

impl<'a> Shown<'a> {
    /// Nothing yet. What has to be written for it goes to `work`.
    pub(super) fn new(
        builder: &'a Builder<'a>,
        place: &'a Place,
        workdir: &'a str,
        work: &'a Path,
    ) -> Self {
        Self {
            builder,
            place,
            workdir,
            work,
            mounts: Vec::new(),
            tmpfs: Vec::new(),
            env: Vec::new(),
            locks: Vec::new(),
            agents: Vec::new(),
        }
    }

    /// Shows one mount more.
    ///
    /// # Errors
    /// What is not there, and the host's.
    pub(super) fn add(&mut self, mount: &Mount) -> Result<(), BuildError> {
        let to = copy::absolute(self.workdir, &mount.target);
        if to == Path::new("/") && !mount.target.is_empty() {
            return Err(BuildError::request(
                "--mount cannot be on the root itself",
                "give a directory below it as target",
            ));
        }
        match &mount.kind {
            Kind::Tmpfs { size } => {
                let size = size
                    .as_ref()
                    .map_or(String::new(), |s| format!(",size={s}"));
                self.tmpfs.push(format!("{}:exec{size}", to.display()));
            }
            Kind::Cache {
                id,
                sharing,
                mode,
                begins_with,
            } => {
                let begins_with = begins_with.as_ref();
                let begins_with =
                    begins_with.map(|(from, source)| (from.as_deref(), source.as_str()));
                let dir = self.cache_dir(id, *sharing, *mode, begins_with)?;
                self.mounts.push(spec::bind(dir, to, mount.read_only));
            }
            Kind::Bind { from, source } => {
                self.bind(from.as_deref(), source, to, mount.read_only)?;
            }
            Kind::Secret {
                id,
                required,
                mode,
                env,
            } => self.secret(mount, id, *required, *mode, env.as_deref())?,
            Kind::Ssh { id, required, mode } => self.ssh(mount, id, *required, *mode)?,
        }
        Ok(())
    }

    fn cache_dir(
        &mut self,
        id: &str,
        sharing: Sharing,
        mode: Option<u32>,
        begins_with: Option<(Option<&str>, &str)>,
    ) -> Result<PathBuf, BuildError> {
        let start = match begins_with {
            Some((from, source)) => {
                let tree = self.builder.source(from, self.place)?;
                let path = bound(&*tree, source)?;
                Some((tree, path))
            }
            None => None,
        };
        let mut name = Hasher::default();
        name.update(id.as_bytes());
        if let Some((tree, path)) = &start {
            // One that begins with other files is another one, as docker has it.
            source::fingerprint(&**tree, path, &mut name)?;
        }
        let dir = cache::dir(self.builder.images.store().root())
            .join("mounts")
            .join(name.finish().0.hex());
        fs::create_dir_all(&dir).map_err(BuildError::io("make", &dir))?;
        // For those who look at what is there; the name is a digest.
        let _ = fs::write(dir.join(cache::MOUNT_ID), id);
        let how = match sharing {
            Sharing::Shared => FlockOperation::LockShared,
            Sharing::Locked => FlockOperation::LockExclusive,
            Sharing::Private => FlockOperation::NonBlockingLockExclusive,
        };
        for n in 0..PRIVATE_MAX {
            let path = dir.join(format!("{n}.lock"));
            let lock = File::create(&path).map_err(BuildError::io("make", &path))?;
            match flock(&lock, how) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => continue,
                Err(e) => return Err(BuildError::io("lock", &path)(e.into())),
            }
            self.locks.push(lock);
            let path = dir.join(n.to_string());
            if !path.is_dir() {
                self.fill_cache(&path, mode, start.as_ref())?;
            }
            return Ok(path);
        }
        Err(BuildError::request(
            format!("{PRIVATE_MAX} builds use the cache {id} at once"),
            "wait for one of them to end",
        ))
    }

    /// Makes a cache with what it begins with. It is there whole or not at all, and of two who make it at
    /// once one does.
    fn fill_cache(
        &self,
        path: &Path,
        mode: Option<u32>,
        start: Option<&(Arc<dyn Source>, PathBuf)>,
    ) -> Result<(), BuildError> {
        let fail = || BuildError::io("make", path);
        let part = self.work.join(format!("cache-{}", self.mounts.len()));
        fs::create_dir(&part).map_err(fail())?;
        let mode = match start {
            Some((tree, from)) => {
                output::write(&**tree, from, &part, &self.builder.options.cancel)?;
                mode
            }
            None => Some(mode.unwrap_or(0o755)),
        };
        if let Some(mode) = mode {
            fs::set_permissions(&part, Permissions::from_mode(mode)).map_err(fail())?;
        }
        match fs::rename(&part, path) {
            Err(_) if path.is_dir() => Ok(()),
            other => other.map_err(fail()),
        }
    }

    fn bind(
        &mut self,
        from: Option<&str>,
        source: &str,
        to: PathBuf,
        read_only: bool,
    ) -> Result<(), BuildError> {
        let tree = self.builder.source(from, self.place)?;
        let path = bound(&*tree, source)?;
        let whole = self.builder.whole_context().filter(|_| from.is_none());
        let at = match whole {
            Some(context) if read_only => fs::canonicalize(context.path().join(&path))
                .map_err(BuildError::io("open", context.path().join(&path)))?,
            _ => {
                // A copy: of a tree that is nowhere on the host, or for what is written to be lost.
                let copy = self.work.join(format!("bind-{}", self.mounts.len()));
                output::write(&*tree, &path, &copy, &self.builder.options.cancel)?;
                copy
            }
        };
        self.mounts.push(spec::bind(at, to, read_only));
        Ok(())
    }

    fn secret(
        &mut self,
        mount: &Mount,
        id: &str,
        required: bool,
        mode: u32,
        env: Option<&str>,
    ) -> Result<(), BuildError> {
        let Some(secret) = self.builder.options.secrets.get(id) else {
            return if required {
                Err(BuildError::request(
                    format!("the secret {id} is required and was not given"),
                    format!("give it with --secret id={id},src=FILE"),
                ))
            } else {
                Ok(())
            };
        };
        let value = read_secret(id, secret)?;
        if let Some(name) = env {
            let text = String::from_utf8(value.clone()).map_err(|_| {
                BuildError::request(
                    format!("the secret {id} is not UTF-8, and a variable has to be"),
                    "take env= out and read it as a file",
                )
            })?;
            set(&mut self.env, name, &text);
            if mount.target.is_empty() {
                return Ok(());
            }
        }
        let to = if mount.target.is_empty() {
            Path::new("/run/secrets").join(id)
        } else {
            copy::absolute(self.workdir, &mount.target)
        };
        let path = self.work.join(format!("secret-{}", self.mounts.len()));
        run::file_for(&path, &value, mode)?;
        self.mounts.push(spec::bind(path, to, mount.read_only));
        Ok(())
    }
}

impl Shown<'_> {
    fn ssh(
        &mut self,
        mount: &Mount,
        id: &str,
        required: bool,
        mode: u32,
    ) -> Result<(), BuildError> {
        let Some(agent) = self.builder.options.agents.get(id) else {
            return if required {
                Err(BuildError::request(
                    format!("the ssh agent {id} is required and was not given"),
                    format!("give it with --ssh {id}, or --ssh {id}=SOCKET"),
                ))
            } else {
                Ok(())
            };
        };
        let n = self.agents.len();
        let name = format!("agent-{n}");
        let forward = Forward::start(agent, self.work, &name, mode)?;
        let to = if mount.target.is_empty() {
            PathBuf::from(format!("/run/buildkit/ssh_agent.{n}"))
        } else {
            copy::absolute(self.workdir, &mount.target)
        };
        if n == 0 {
            set(&mut self.env, "SSH_AUTH_SOCK", &to.to_string_lossy());
        }
        let from = forward.path().to_owned();
        self.mounts.push(spec::bind(from, to, mount.read_only));
        self.agents.push(forward);
        Ok(())
    }
}

fn read_secret(id: &str, secret: &Secret) -> Result<Vec<u8>, BuildError> {
    let bytes = match secret {
        Secret::Variable(name) => match std::env::var_os(name) {
            Some(value) => value.as_os_str().as_bytes().to_vec(),
            None => {
                return Err(BuildError::request(
                    format!("the variable {name} of the secret {id} is not set"),
                    "set it, or give a file with src=FILE",
                ));
            }
        },
        Secret::File(path) => {
            let mut bytes = Vec::new();
            File::open(path)
                .and_then(|f| f.take(SECRET_MAX + 1).read_to_end(&mut bytes))
                .map_err(BuildError::io("read the secret", path))?;
            bytes
        }
    };
    if bytes.len() as u64 > SECRET_MAX {
        return Err(BuildError::request(
            format!("the secret {id} has more than {SECRET_MAX} bytes"),
            "put large files into the context, or mount them with type=bind",
        ));
    }
    Ok(bytes)
}
