//! Ctrl-C: the first asks the run to stop and clear up, another one a second later ends the program.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

/// Signals this soon after the first are the same request: timeout(1) sends two at once.
const SAME: Duration = Duration::from_secs(1);

/// A flag that SIGINT, SIGTERM and SIGHUP raise from now on.
pub(super) fn raised_on_signals() -> Result<Arc<AtomicBool>> {
    let (raised, insisted) = (Arc::default(), Arc::default());
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The default action, for work that hangs in a system call.
        flag::register_conditional_default(signal, Arc::clone(&insisted))
            .and_then(|_| flag::register(signal, Arc::clone(&raised)))
            .context("cannot handle signals")?;
    }
    let seen: Arc<AtomicBool> = Arc::clone(&raised);
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(SAME / 4);
            }
            thread::sleep(SAME);
            insisted.store(true, Ordering::Relaxed);
        })
        .context("cannot start a thread")?;
    Ok(raised)
}
