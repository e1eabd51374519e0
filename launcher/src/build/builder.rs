//! Carries out the stages of a plan.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use pellicle_layer::Lower;
use pellicle_store::{Digest, Hasher, Time};
use pellicle_union::Watch;

use super::{
    BuildError, Built, Options, Place, Stack, base,
    cache::{self, Cache, Made},
    containerfile::{self, Containerfile, Instruction, What},
    context::Context,
    layer::{Times, Work},
    plan::{self, Base, From, Plan},
    scope::Scope,
    source::Source,
    state::State,
    tree::TreeSource,
};
use crate::{
    container::root,
    image::{Image, Images, NewLayer, Platform},
};

/// Arguments that need no ARG (Dockerfile reference, "Predefined ARGs"). What they are changes nothing of
/// what a step comes to, so they are in no key.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A build in progress.
pub(super) struct Builder<'a> {
    pub(super) images: &'a Images,
    pub(super) options: &'a Options<'a>,
    file: Containerfile,
    plan: Plan,
    pub(super) cache: Cache,
    context: Option<Arc<Context>>,
    /// Stages that are done.
    done: Mutex<BTreeMap<usize, Scope>>,
    /// Images that were asked for, by name and platform.
    found: Mutex<HashMap<(String, Option<String>), Image>>,
    /// Keys of the steps.
    keys: Mutex<BTreeSet<Digest>>,
    used_args: Mutex<BTreeSet<String>>,
    step: Mutex<usize>,
}

impl<'a> Builder<'a> {
    /// Reads the file and plans.
    ///
    /// # Errors
    /// What is wrong with the file or the context.
    pub(super) fn new(images: &'a Images, options: &'a Options<'a>) -> Result<Self, BuildError> {
        let file = containerfile::parse(&options.file_name, &options.text)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let plan = plan::plan(
            &file,
            &options.build_args,
            &platform,
            options.target.as_deref(),
        )?;
        let context = match &options.context {
            Some(path) => Some(Arc::new(Context::open(
                images.store().root(),
                path,
                options.file.as_deref(),
            )?)),
            None => None,
        };
        let used = file.args.iter().map(|(_, a)| a.name.clone());
        let used_args = Mutex::new(used.collect());
        Ok(Self {
            images,
            options,
            file,
            plan,
            cache: Cache::open(images.store())?,
            context,
            done: Mutex::default(),
            found: Mutex::default(),
            keys: Mutex::default(),
            used_args,
            step: Mutex::default(),
        })
    }

    /// Builds.
    ///
    /// # Errors
    /// [`BuildError`].
    pub(super) fn build(self) -> Result<Built, BuildError> {
        Work::sweep(self.images.store().root());
        let done = self.plan.groups.iter().try_for_each(|g| self.group(g));
        if let Some(context) = &self.context {
            context.note();
        }
        done?;
        let target = self.plan.groups.last().and_then(|group| group.last());
        let target = target.and_then(|at| self.done.lock().remove(at));
        let Some(Scope { mut state, .. }) = target else {
            return Err(BuildError::request("there is no stage", "begin with FROM"));
        };
        self.add_labels(&mut state)?;
        let stack = |state: &State| Stack {
            layers: state.diff_ids.clone(),
            base: state.base_layers().len(),
        };
        let mut stacks: Vec<Stack> = self.done.lock().values().map(|s| stack(&s.state)).collect();
        stacks.push(stack(&state));
        if self.options.squash {
            self.squash(&mut state)?;
        }
        let used = self.used_args.into_inner();
        let given = self.options.build_args.keys();
        let unused = given.filter(|n| !used.contains(*n) && !PREDEFINED.contains(&n.as_str()));
        Ok(Built {
            state,
            steps: self.keys.into_inner(),
            stacks,
            unused_args: unused.cloned().collect(),
        })
    }

    fn add_labels(&self, state: &mut State) -> Result<(), BuildError> {
        if self.options.labels.is_empty() {
            return Ok(());
        }
        state
            .settings
            .labels
            .extend(self.options.labels.iter().cloned());
        let texts: Vec<String> = self
            .options
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let text = format!("LABEL {}", texts.join(" "));
        self.note(state, &text)
    }

    /// Carries out stages that do not need each other, at the same time.
    fn group(&self, group: &[usize]) -> Result<(), BuildError> {
        let one = |at: usize| -> Result<(), BuildError> {
            let scope = self.stage(at)?;
            self.done.lock().insert(at, scope);
            Ok(())
        };
        if let [only] = group {
            return one(*only);
        }
        let failed: Mutex<Option<BuildError>> = Mutex::default();
        std::thread::scope(|scope| {
            for at in group {
                let (failed, one) = (&failed, &one);
                scope.spawn(move || {
                    if let Err(error) = one(*at) {
                        // The others end because this one did; that is what is worth telling.
                        failed.lock().get_or_insert(error);
                        self.options.cancel.cancel();
                    }
                });
            }
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    fn stage(&self, at: usize) -> Result<Scope, BuildError> {
        let Some(stage) = self.file.stages.get(at) else {
            return Err(BuildError::request(
                "there is no such stage",
                "check --target",
            ));
        };
        self.say(&stage.text);
        let scope = self.begin(at, &stage.place);
        let mut scope = scope.map_err(|e| e.at(&stage.place, "FROM"))?;
        for trigger in scope.state.take_triggers() {
            let instruction = containerfile::parse_trigger(&stage.place, &trigger)?;
            (self.options.tell)(format_args!("ONBUILD {}", instruction.text()));
            self.instruction(&mut scope, &instruction)?;
        }
        for instruction in &stage.instructions {
            if self.options.cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            self.say(&instruction.text());
            self.instruction(&mut scope, instruction)?;
        }
        Ok(scope)
    }

    fn say(&self, text: &str) {
        let mut step = self.step.lock();
        *step += 1;
        (self.options.tell)(format_args!("STEP {}/{}: {text}", *step, self.plan.steps));
    }

    fn begin(&self, at: usize, place: &Place) -> Result<Scope, BuildError> {
        let platform = self.plan.platforms.get(at).cloned().flatten();
        let platform = platform.or_else(|| self.options.platform.clone());
        let state = match self.plan.bases.get(at) {
            None | Some(Base::Scratch) => State::scratch(&platform.unwrap_or_else(Platform::host)),
            // With its arguments, as docker has it.
            Some(Base::Stage(stage)) => return self.done(*stage),
            Some(Base::Image(name)) => {
                let image = self.image(name, platform.as_ref(), place)?;
                State::of(self.images, &image)?
            }
        };
        Ok(Scope {
            state,
            args: BTreeMap::new(),
            escape: self.file.escape,
        })
    }

    fn done(&self, at: usize) -> Result<Scope, BuildError> {
        let done = self.done.lock();
        done.get(&at).cloned().ok_or_else(|| {
            BuildError::request(
                "a stage is used before it is built",
                "an ONBUILD cannot take from stages: copy from it in this file",
            )
        })
    }

    fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        place: &Place,
    ) -> Result<Image, BuildError> {
        let key = (name.to_owned(), platform.map(ToString::to_string));
        if let Some(image) = self.found.lock().get(&key) {
            return Ok(image.clone());
        }
        let image = base::find(self.images, name, platform, place, self.options)?;
        self.found.lock().insert(key, image.clone());
        Ok(image)
    }

    /// Where `from` takes files from; the context without.
    pub(super) fn source(
        &self,
        from: Option<&str>,
        place: &Place,
    ) -> Result<Arc<dyn Source>, BuildError> {
        let Some(name) = from else {
            return match &self.context {
                Some(context) => Ok(Arc::clone(context) as Arc<dyn Source>),
                None => Err(BuildError::bad(
                    place,
                    "there is no context to take files from",
                    "give a directory after the options, as `pellicle build -f - .`",
                )),
            };
        };
        let (diff_ids, shown) = match plan::from(&self.file, place, name)? {
            From::Stage(at) => (self.done(at)?.state.diff_ids, format!("stage {name}")),
            From::Image(image) => (
                self.image(&image, self.options.platform.as_ref(), place)?
                    .diff_ids,
                format!("image {name}"),
            ),
        };
        Ok(Arc::new(TreeSource::new(
            self.tree(&diff_ids, false)?,
            shown,
        )))
    }

    /// The context's directory, if all of it is seen.
    pub(super) fn whole_context(&self) -> Option<&Context> {
        self.context.as_deref().filter(|c| c.is_whole())
    }

    /// The tree of a stack of layers.
    pub(super) fn tree(
        &self,
        diff_ids: &[Digest],
        single_id: bool,
    ) -> Result<Arc<dyn Lower>, BuildError> {
        Ok(root::tree(self.images.store(), diff_ids, single_id)?)
    }

    /// Nobody but a request to stop watches.
    pub(super) fn watch(&self) -> Watch<'static> {
        Watch {
            cancel: self.options.cancel.clone(),
            progress: &(),
        }
    }

    /// The start of the key of a step on top of `state`.
    pub(super) fn key(&self, state: &State, kind: &str) -> Result<Hasher, BuildError> {
        let mut hash = Hasher::default();
        hash.update(&state.digest()?.0);
        hash.update(format!("{}\0{kind}\0{:?}\0", cache::VERSION, self.options.times).as_bytes());
        Ok(hash)
    }

    /// What the step with this key comes to: as it did before, or as `make` makes it.
    pub(super) fn made(
        &self,
        key: Hasher,
        make: &mut dyn FnMut() -> Result<Option<NewLayer>, BuildError>,
    ) -> Result<(Made, bool), BuildError> {
        let (key, _) = key.finish();
        self.keys.lock().insert(key);
        if !self.options.no_cache
            && let Some(made) = self.cache.find(&key)
        {
            return Ok((made, true));
        }
        let made = Made {
            layer: make()?,
            created: self.now(),
        };
        self.cache.note(&key, &made)?;
        Ok((made, false))
    }

    /// Adds a step that changes no file.
    pub(super) fn note(&self, state: &mut State, text: &str) -> Result<(), BuildError> {
        let mut key = self.key(state, "settings")?;
        key.update(text.as_bytes());
        let (made, _) = self.made(key, &mut || Ok(None))?;
        state.add(text, &made);
        Ok(())
    }

    /// What is said of when something was made.
    fn now(&self) -> String {
        let fixed = match self.options.times {
            Times::Keep => None,
            Times::AtMost(time) | Times::All(time) => Some(time),
        };
        let Time { sec, .. } = fixed.unwrap_or_else(Time::now);
        match fixed.and_then(|_| jiff::Timestamp::from_second(sec).ok()) {
            Some(time) => time.to_string(),
            None => jiff::Timestamp::now().to_string(),
        }
    }

    fn instruction(&self, scope: &mut Scope, instruction: &Instruction) -> Result<(), BuildError> {
        let place = &instruction.place;
        let done = match &instruction.what {
            What::Run(run) => self.run(scope, instruction, run),
            What::Copy(copy) => self.copy(scope, instruction, copy),
            What::Workdir(path) => self.workdir(scope, instruction, path),
            What::Arg(list) => self.arguments(scope, place, list),
            _ => self
                .settings(scope, instruction)
                .and_then(|()| self.note(&mut scope.state, &instruction.text())),
        };
        done.map_err(|e| e.at(place, &instruction.keyword))
    }

    fn arguments(
        &self,
        scope: &mut Scope,
        place: &Place,
        list: &[containerfile::Argument],
    ) -> Result<(), BuildError> {
        for arg in list {
            let given = self.options.build_args.get(&arg.name);
            self.used_args.lock().insert(arg.name.clone());
            let value = match (given, &arg.default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => scope.expand(default, place)?,
                (None, None) => match self.plan.globals.get(&arg.name) {
                    Some(value) => value.clone(),
                    None => continue,
                },
            };
            scope.args.insert(arg.name.clone(), value);
        }
        Ok(())
    }

    /// `NAME=VALUE` of all arguments for a RUN: those that count for its key, and those that do not.
    pub(super) fn environment(&self, scope: &Scope) -> (Vec<String>, Vec<String>) {
        let set = |name: &str| {
            let prefix = format!("{name}=");
            scope
                .state
                .settings
                .env
                .iter()
                .any(|e| e.starts_with(&prefix))
        };
        let args = scope.args.iter().filter(|(n, _)| !set(n));
        let args = args.map(|(n, v)| format!("{n}={v}")).collect();
        let proxies = PREDEFINED
            .iter()
            .filter(|n| !scope.args.contains_key(**n) && !set(n))
            .filter_map(|n| Some(format!("{n}={}", self.options.build_args.get(*n)?)));
        (args, proxies.collect())
    }
}
