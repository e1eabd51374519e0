//! The command line: global options, dispatch, exit codes.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser};

use crate::{
    commands::{self, Command, build::BuildRunArgs, exec::ExecArgs, run::RunArgs},
    context::Context,
    error::CliError,
    logging,
    output::Output,
};

/// Exit code for an error of Pellicle itself in `run` and `exec`, whose other codes are the
/// container's own (docker run, "Exit status").
pub const EXIT_ENGINE: u8 = 125;

/// Run containers and look into images, on a layered file system in user space.
///
/// No daemon, no root, no kernel overlayfs: an image is a stack of read-only layers that are stored
/// once and shared, and each container adds a thin writable layer of its own.
#[derive(Parser, Debug)]
#[command(
    name = "pellicle",
    version,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100,
    after_help = "Examples:
  pellicle import rootfs.tar.gz debian:12       make an image of a tar archive
  pellicle run -it --rm debian:12 bash          run a shell in it
  pellicle ps -a                                list containers
  pellicle mount debian:12 /mnt                 look into an image

'pellicle COMMAND --help' tells more about a command, with examples."
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Directory of the store [default: $XDG_DATA_HOME/pellicle, ~/.local/share/pellicle, as root /var/lib/pellicle]
    #[arg(
        long,
        value_name = "DIR",
        env = "PELLICLE_ROOT",
        global = true,
        hide_env = true
    )]
    pub root: Option<PathBuf>,
    /// Say more of what is done, on standard error: error, warn, info, debug or trace, or a filter such as `pellicle_fuse=debug` [env: PELLICLE_LOG]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "PELLICLE_LOG",
        global = true,
        hide_env = true
    )]
    pub log_level: Option<String>,
}

/// Runs the program on the process's own arguments and environment; what `main` returns.
#[must_use]
pub fn main() -> ExitCode {
    main_with(std::env::args_os().collect())
}

/// Runs the program on `args`, the first being the program's name.
#[must_use]
pub fn main_with(args: Vec<OsString>) -> ExitCode {
    let out = Output::detect();
    // Found in the arguments, not in the parsed command: it must be known when parsing fails.
    let engine = match subcommand_in(&args) {
        Some("run" | "exec") => true,
        Some("container") => args.iter().any(|a| a == "run" || a == "exec"),
        _ => false,
    };
    match parse(args).and_then(|parsed| match parsed {
        Parsed::Command(cli) => dispatch(*cli, out),
        Parsed::Answered(code) => Ok(code),
    }) {
        Ok(code) => code,
        Err(error) => {
            error.print(&out);
            ExitCode::from(error.exit_code().unwrap_or(if engine {
                EXIT_ENGINE
            } else {
                error.kind().exit_code()
            }))
        }
    }
}

/// The whole command line as clap sees it; also for completion and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

enum Parsed {
    Command(Box<Cli>),
    /// `--help` or `--version`: already printed.
    Answered(ExitCode),
}

fn parse(args: Vec<OsString>) -> Result<Parsed, CliError> {
    if let Some(cli) = parse_alone(&args) {
        return Ok(Parsed::Command(Box::new(cli)));
    }
    let parsed = command()
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(Parsed::Command(Box::new(cli))),
        Err(error) if !error.use_stderr() => {
            // A reader that has gone away (`pellicle --help | head -1`) is no failure.
            let _ = error.print();
            Ok(Parsed::Answered(ExitCode::SUCCESS))
        }
        Err(error) => Err(CliError::from_clap(&error)),
    }
}

/// Parses a command that is to start at once without the definitions of all others, which take longer
/// to make than the rest of parsing. `None` for every other command, and for whatever is not a
/// complete command, which the whole parser explains.
fn parse_alone(args: &[OsString]) -> Option<Cli> {
    let name = subcommand_in(args)?;
    let define = match name {
        "run" => RunArgs::augment_args,
        "exec" => ExecArgs::augment_args,
        "__build-run" => BuildRunArgs::augment_args,
        _ => return None,
    };
    let matches = Global::augment_args(clap::Command::new("pellicle"))
        .subcommand(define(clap::Command::new(name.to_owned())))
        .try_get_matches_from(args)
        .ok()?;
    Cli::from_arg_matches(&matches).ok()
}

fn dispatch(cli: Cli, out: Output) -> Result<ExitCode, CliError> {
    logging::start(cli.global.log_level.as_deref(), out)?;
    let context = Context::new(cli.global, out);
    commands::run(&context, cli.command)
}

/// The subcommand's name in `args`, without parsing them.
fn subcommand_in(args: &[OsString]) -> Option<&str> {
    let mut rest = args.iter().skip(1).map(OsString::as_os_str);
    while let Some(arg) = rest.next() {
        if arg == OsStr::new("--root") || arg == OsStr::new("--log-level") {
            rest.next();
        } else if !arg.as_encoded_bytes().starts_with(b"-") {
            return arg.to_str();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_has_an_example() {
        for sub in command().get_subcommands() {
            let after = sub.get_after_help().map(ToString::to_string);
            let has = after.is_some_and(|text| text.contains("Example"));
            assert!(has, "{} --help has none", sub.get_name());
        }
    }

    #[test]
    fn a_command_parsed_alone_is_what_it_is_among_all() {
        for line in [
            "pellicle run --rm -it -e A=1 -v /a:/b:ro -m 5m image sh -c --version",
            "pellicle --root /r run image",
            "pellicle run --log-level debug --name n -u 1:2 image ls -la",
            "pellicle exec -it --root /r c sh -c exit",
            "pellicle run",
            "pellicle run --help",
            "pellicle run --no-such image",
            "pellicle run --memory x image",
            "pellicle exec c",
            "pellicle --version run image",
            "pellicle ps -a",
            "pellicle",
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let whole = command()
                .try_get_matches_from(&args)
                .and_then(|matches| Cli::from_arg_matches(&matches));
            match parse_alone(&args) {
                Some(alone) => {
                    assert_eq!(format!("{alone:?}"), format!("{:?}", whole.expect(line)));
                }
                None => assert!(whole.is_err() || line.ends_with("ps -a"), "{line}"),
            }
        }
    }

    #[test]
    fn subcommand_is_found_behind_global_options() {
        let find = |s: &str| {
            let args: Vec<OsString> = s.split(' ').map(OsString::from).collect();
            subcommand_in(&args).map(str::to_owned)
        };
        assert_eq!(find("pellicle run x").as_deref(), Some("run"));
        assert_eq!(find("pellicle --root run exec x").as_deref(), Some("exec"));
        assert_eq!(
            find("pellicle --root=a --log-level debug ps").as_deref(),
            Some("ps")
        );
        assert_eq!(find("pellicle --help"), None);
    }
}
