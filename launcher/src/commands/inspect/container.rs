//! What `pellicle inspect` tells about a container.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use serde_json::{Map, Value, json};

use crate::{
    CliError,
    container::{
        registry::Registry,
        state::{State, Status},
    },
};

/// What docker gives for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn describe(registry: &Registry, id: &str) -> Result<Value, CliError> {
    let dir = registry.dir(id);
    let state = State::load(&dir)?;
    let spec = registry.spec(id)?;
    let (path, args) = match state.command.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    Ok(json!({
        "Id": state.id,
        "Created": state.created,
        "Path": path,
        "Args": args,
        "State": life(&state),
        "Image": state.image_id,
        "ImageName": state.image,
        "Name": state.name,
        "LogPath": dir.join("log").display().to_string(),
        "Driver": "pellicle",
        "Config": config(&state, &spec),
        "HostConfig": host_config(&state, &spec),
        "Mounts": mounts(&spec, &dir),
        "RootFS": {"Type": "layers", "Layers": state.diff_ids},
    }))
}

fn life(state: &State) -> Value {
    let status = match state.status {
        Status::Created => "created",
        Status::Running => "running",
        Status::Exited => "exited",
    };
    json!({
        "Status": status,
        "Running": state.status == Status::Running,
        "Pid": state.process.as_ref().map_or(0, |p| p.pid),
        "ExitCode": state.exit_code.unwrap_or(0),
        "Error": state.error.as_deref().unwrap_or_default(),
        "StartedAt": state.started.as_deref().unwrap_or(NEVER),
        "FinishedAt": state.finished.as_deref().unwrap_or(NEVER),
    })
}

fn config(state: &State, spec: &Spec) -> Value {
    let process = spec.process().as_ref();
    let env = process.and_then(|p| p.env().clone()).unwrap_or_default();
    json!({
        "Hostname": spec.hostname(),
        "User": state.settings.user,
        "Env": env,
        "Cmd": state.command,
        "Image": state.image,
        "WorkingDir": process.map(|p| p.cwd().display().to_string()).unwrap_or_default(),
        "Labels": state.settings.labels,
        "Tty": process.and_then(|p| p.terminal()).unwrap_or(false),
        "OpenStdin": state.settings.open_stdin,
        "StopSignal": state.settings.stop_signal,
        "StopTimeout": state.settings.stop_timeout,
    })
}

fn host_config(state: &State, spec: &Spec) -> Value {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|l| l.resources().as_ref());
    let memory = resources.and_then(|r| r.memory().as_ref());
    let cpu = resources.and_then(|r| r.cpu().as_ref());
    let nano = cpu.and_then(|c| {
        let (quota, period) = (c.quota()?, c.period().unwrap_or(100_000));
        let period = i64::try_from(period).ok().filter(|p| *p > 0)?;
        quota.checked_mul(1_000_000_000).map(|q| q / period)
    });
    json!({
        "AutoRemove": state.settings.auto_remove,
        "Init": state.settings.init,
        "NetworkMode": if state.settings.host_network { "host" } else { "none" },
        "ReadonlyRootfs": spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false),
        "Memory": memory.and_then(|m| m.limit()).unwrap_or(0),
        "NanoCpus": nano.unwrap_or(0),
        "PidsLimit": resources.and_then(|r| r.pids().as_ref()).map(|p| p.limit()),
    })
}

/// Those from the host; what every container has, files of its own directory among it, is left out.
fn mounts(spec: &Spec, dir: &Path) -> Vec<Value> {
    let all = spec.mounts().iter().flatten();
    let own = |m: &Mount| m.source().as_ref().is_some_and(|s| s.starts_with(dir));
    all.filter(|m| is_bind(m) && !own(m)).map(mount).collect()
}

fn is_bind(mount: &Mount) -> bool {
    let bind = |o: &String| o == "bind" || o == "rbind";
    mount.options().iter().flatten().any(bind)
        && mount.source().as_ref().is_some_and(|s| s.is_absolute())
}

fn mount(mount: &Mount) -> Value {
    let options = mount.options().clone().unwrap_or_default();
    let mut told = Map::new();
    told.insert("Type".to_owned(), "bind".into());
    let source = mount.source().as_ref().map(|s| s.display().to_string());
    told.insert("Source".to_owned(), source.into());
    let to = mount.destination().display().to_string();
    told.insert("Destination".to_owned(), to.into());
    let writable = !options.iter().any(|o| o == "ro");
    told.insert("RW".to_owned(), writable.into());
    told.insert("Mode".to_owned(), options.join(",").into());
    Value::Object(told)
}
