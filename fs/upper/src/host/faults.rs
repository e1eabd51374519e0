//! Which calls fail, as a test decides, and what a test may watch.

use std::{fmt, fs::File, io, sync::Arc};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::Op;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No room.
    Enospc,
    /// No room for this user.
    Edquot,
    /// The device failed.
    Eio,
    /// The file system became read-only.
    Erofs,
    /// Half of a write is done; then there is no room.
    Short,
    /// The process dies.
    Crash,
}

impl Mode {
    /// All of them, with the last part of their failpoints' names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Enospc, "enospc"),
        (Self::Edquot, "edquot"),
        (Self::Eio, "eio"),
        (Self::Erofs, "erofs"),
        (Self::Short, "short"),
        (Self::Crash, "crash"),
    ];

    fn errno(self) -> Errno {
        match self {
            Self::Enospc | Self::Short => Errno::NOSPC,
            Self::Edquot => Errno::DQUOT,
            Self::Erofs => Errno::ROFS,
            Self::Eio | Self::Crash => Errno::IO,
        }
    }
}

/// Something that a test may watch.
#[derive(Debug)]
pub enum Event<'a> {
    /// This call is about to be made.
    Before(Op),
    /// This file or directory is on disk as it is now.
    Flushed(&'a File),
    /// So is everything.
    FlushedAll,
}

/// What a test does at an [`Event`].
type Watch = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Which calls of one writable layer to its host fail; shared with the test that decides.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug)]
struct Armed {
    op: Op,
    mode: Mode,
    /// Calls to let through first.
    skip: u32,
    times: u32,
}

#[derive(Default)]
struct State {
    armed: Vec<Armed>,
    dead: bool,
    hits: Vec<String>,
    watch: Option<Watch>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("armed", &self.armed)
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Makes the call with the failpoint `name` fail `times` times. Returns whether there is such
    /// a failpoint.
    pub fn arm(&self, name: &str, times: u32) -> bool {
        self.arm_after(name, 0, times)
    }

    /// As [`Self::arm`], after the next `skip` such calls. Only what writes can fail as `short`.
    pub fn arm_after(&self, name: &str, skip: u32, times: u32) -> bool {
        let Some((call, mode)) = name.rsplit_once("::") else {
            return false;
        };
        let op = Op::ALL.into_iter().find(|(_, name)| *name == call);
        let mode = Mode::ALL.into_iter().find(|(_, name)| *name == mode);
        let (Some((op, _)), Some((mode, _))) = (op, mode) else {
            return false;
        };
        if mode == Mode::Short && !op.writes() {
            return false;
        }
        self.0.lock().armed.push(Armed {
            op,
            mode,
            skip,
            times,
        });
        true
    }

    /// Lets everything succeed again, except after a crash.
    pub fn clear(&self) {
        self.0.lock().armed.clear();
    }

    /// Whether a call was the last of the "process".
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// How many calls failed that were armed to.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.0.lock().hits.len()
    }

    /// How many calls failed by the failpoint `name`.
    #[must_use]
    pub fn hits_of(&self, name: &str) -> usize {
        let state = self.0.lock();
        state.hits.iter().filter(|hit| *hit == name).count()
    }

    /// How many calls failed by a failpoint of `call`, as `journal::append`.
    #[must_use]
    pub fn hits_of_call(&self, call: &str) -> usize {
        let state = self.0.lock();
        let of = |hit: &&String| hit.rsplit_once("::").is_some_and(|(c, _)| c == call);
        state.hits.iter().filter(of).count()
    }

    /// Calls `watch` at every event from now on, with whatever locks the caller then holds.
    pub fn watch(&self, watch: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.0.lock().watch = Some(Arc::new(watch));
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        let watch = self.0.lock().watch.clone();
        if let Some(watch) = watch {
            watch(&event);
        }
    }

    /// Fails, or returns whether only half of a write is to be done.
    pub(super) fn trip(&self, op: Op) -> io::Result<bool> {
        self.tell(Event::Before(op));
        let mut state = self.0.lock();
        if state.dead {
            return Err(Errno::IO.into());
        }
        let mut hit = None;
        if let Some(armed) = state.armed.iter_mut().find(|f| f.op == op && f.times > 0) {
            if armed.skip > 0 {
                armed.skip -= 1;
            } else {
                armed.times -= 1;
                hit = Some(armed.mode);
            }
        }
        let Some(mode) = hit else {
            return Ok(false);
        };
        let part = |all: &[(Mode, &'static str)]| {
            all.iter()
                .find(|(m, _)| *m == mode)
                .map_or("", |(_, name)| name)
        };
        let call = Op::ALL.into_iter().find(|(o, _)| *o == op);
        let name = format!(
            "{}::{}",
            call.map_or("", |(_, name)| name),
            part(&Mode::ALL)
        );
        state.hits.push(name);
        state.dead = mode == Mode::Crash;
        if mode == Mode::Short {
            return Ok(true);
        }
        Err(mode.errno().into())
    }
}
