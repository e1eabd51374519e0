//! Ctrl-C during long work: the first asks it to stop and clean up, the second ends the program.

use pellicle_store::import::Cancel;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::sync::{Arc, atomic::AtomicBool};

use crate::CliError;

/// A request to stop that SIGINT, SIGTERM and SIGHUP raise from now on. The same signal once more
/// has its default meaning, for work that hangs in a read.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn cancel_on_signals() -> Result<Cancel, CliError> {
    let raised = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the default action must look at the flag before this signal sets it.
        flag::register_conditional_default(signal, Arc::clone(&raised))
            .and_then(|_| flag::register(signal, Arc::clone(&raised)))
            .map_err(|e| CliError::failed("cannot handle signals").because(e))?;
    }
    Ok(Cancel::from_flag(raised))
}
