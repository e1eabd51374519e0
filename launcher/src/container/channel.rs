//! What the supervisor and the container's first process say to each other while the container is
//! being made: whole packets over a socket pair, some with a descriptor.
//!
//! The process's end is close-on-exec: when it closes after `Executing` and without an error having been
//! told, the command runs. Without `Executing` the process was killed on the way.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
        recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize};

use super::passwd::Identity;

/// No packet is larger.
const PACKET_MAX: usize = 64 << 10;

/// Texts of errors and warnings are cut here.
const TEXT_MAX: usize = 8 << 10;

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

/// One packet.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// To the process: what it is to be, in a file whose descriptor comes with it.
    Plan,
    /// To the process: the id maps are written; go on.
    Go,
    /// To the process: who it becomes in the end.
    Be(Identity),
    /// The `/dev/fuse` descriptor of the mounted root; a descriptor comes with it.
    Fuse,
    /// The master side of the terminal; a descriptor comes with it.
    Terminal,
    /// A descriptor of the process that becomes the command, where that is not the first one;
    /// comes with it.
    Joined,
    /// Nothing is left to be done but to execute the command.
    Executing,
    /// Something that does not stop the container from running.
    Warning(String),
    /// It cannot run; exit code, what happened, and the next step.
    Failed(u8, String, Option<String>),
}

impl Channel {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// Sends `message`, and `fd` with it.
    pub(super) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(&message.cut())?;
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// Sends `message` unless the other end is closed; whether it was there. Why it is closed, that end
    /// may have told.
    pub(super) fn tell(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        match self.send(message, fd) {
            Ok(()) => Ok(true),
            Err(e) => match e.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(false),
                _ => Err(e),
            },
        }
    }

    /// The next packet; `None` once the other end is closed.
    pub(super) fn receive(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        self.take(RecvFlags::empty())
    }

    /// The next packet if it is there already; `None` also if it is not.
    pub(super) fn receive_now(&self) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        match self.take(RecvFlags::DONTWAIT) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            taken => taken,
        }
    }

    fn take(&self, how: RecvFlags) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
        // Most are of a few bytes: room for the longest would cost more than all else here.
        let peek = how | RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, length) = retry(|| recv(&self.0, &mut [0_u8; 0], peek))?;
        let length = length.min(PACKET_MAX);
        let mut bytes = vec![0; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = retry(|| {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            recvmsg(
                &self.0,
                &mut parts,
                &mut control,
                how | RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut fd = None;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                fd = fds.last().or(fd);
            }
        }
        let message = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
        Ok(Some((message, fd)))
    }

    /// Whether the other end is closed already; does not wait.
    pub(super) fn is_abandoned(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
            && fds
                .iter()
                .any(|f| f.revents().intersects(PollFlags::HUP | PollFlags::ERR))
    }
}

/// `call`, again where a signal came, and where the other end was closed with our packets unread: the
/// kernel says so once, before it hands out what that end had sent.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            result => return result,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Message {
    /// Bounded texts, so that a packet always fits.
    fn cut(&self) -> Self {
        let short = |text: &String| text.chars().take(TEXT_MAX / 4).collect::<String>();
        match self {
            Self::Plan => Self::Plan,
            Self::Go => Self::Go,
            Self::Be(identity) => Self::Be(identity.clone()),
            Self::Fuse => Self::Fuse,
            Self::Terminal => Self::Terminal,
            Self::Joined => Self::Joined,
            Self::Executing => Self::Executing,
            Self::Warning(text) => Self::Warning(short(text)),
            Self::Failed(code, text, next) => {
                Self::Failed(*code, short(text), next.as_ref().map(short))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_and_descriptors_arrive_whole_and_the_end_is_noticed() {
        let (a, b) = Channel::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        a.send(&Message::Fuse, Some(write.as_fd())).unwrap();
        a.send(&Message::Failed(127, "x".repeat(1 << 20), None), None)
            .unwrap();
        drop(write);
        let (message, fd) = b.receive().unwrap().unwrap();
        assert!(matches!(message, Message::Fuse));
        rustix::io::write(fd.unwrap(), b"hello").unwrap();
        let mut got = [0; 5];
        rustix::io::read(&read, &mut got).unwrap();
        assert_eq!(&got, b"hello");
        let (message, fd) = b.receive().unwrap().unwrap();
        assert!(matches!(message, Message::Failed(127, text, None) if text.len() == TEXT_MAX / 4));
        assert!(fd.is_none());
        assert!(!b.is_abandoned());
        drop(a);
        assert!(b.is_abandoned());
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_from_an_end_that_did_not_listen() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Go, None).unwrap();
        let last = Message::Failed(125, "no /dev/fuse".to_owned(), None);
        b.send(&last, None).unwrap();
        drop(b);
        let (message, _) = a.receive().unwrap().unwrap();
        assert!(matches!(message, Message::Failed(125, text, None) if text == "no /dev/fuse"));
        assert!(a.receive().unwrap().is_none());
    }

    #[test]
    fn what_is_there_is_heard_without_waiting_for_more() {
        let (a, b) = Channel::pair().unwrap();
        assert!(a.receive_now().unwrap().is_none());
        b.send(&Message::Executing, None).unwrap();
        assert!(matches!(
            a.receive_now().unwrap().unwrap().0,
            Message::Executing
        ));
        assert!(a.receive_now().unwrap().is_none());
        drop(b);
        assert!(a.receive_now().unwrap().is_none());
    }

    #[test]
    fn to_tell_an_end_that_did_not_listen_does_not_hide_its_last_words() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&Message::Go, None).unwrap();
        b.send(&Message::Failed(125, "broken".to_owned(), None), None)
            .unwrap();
        drop(b);
        assert!(!a.tell(&Message::Go, None).unwrap());
        assert!(matches!(
            a.receive().unwrap().unwrap().0,
            Message::Failed(..)
        ));
    }
}
