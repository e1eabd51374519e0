//! Changes of attributes, among them of the size.

use std::sync::Arc;

use pellicle_store::{Attr, FileKind, Ino};

use crate::{
    Union,
    change::Change,
    error::Error,
    inode::{Inode, clear_set_id},
    request::{KillSetId, SetAttr},
    table::Found,
};

impl Union {
    /// Changes attributes as one step, and gives what they then are.
    ///
    /// Beyond what is asked: any change sets the change time (unless given); a change of size
    /// sets the modification time (unless given); a change of owner clears set-id bits and file
    /// capabilities of what is no directory, for any caller, as the kernel's `chown_common` does
    /// (a server that has FUSE_HANDLE_KILLPRIV_V2 must); a change of size takes file capabilities
    /// away; a change of mode changes the access ACL.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`] or [`Error::Invalid`] for a size of what is no
    /// regular file, [`Error::TooLarge`], [`Error::ReadOnly`], and what the upper says.
    pub fn set_attr(&self, ino: Ino, set: SetAttr) -> Result<Attr, Error> {
        self.refuse_if_read_only()?;
        match set.size {
            Some(size) => self.truncate(ino, size, |change| self.apply_attr(change, ino, set))?,
            None if set.asks_nothing() => (),
            None => {
                let found = match self.table.find(ino) {
                    Found::Inode(inode) => Some(inode),
                    Found::Untouched | Found::Absent => None,
                };
                let is_lent = |inode: &&Arc<Inode>| inode.state.read().data.lent.is_some();
                let lock = found
                    .as_ref()
                    .filter(is_lent)
                    .map(|inode| inode.lock_content());
                // Times that are set would be taken for older than the host's, and a dir upper sets the
                // host's, which is no change of content.
                let _lent = match &lock {
                    Some(lock) => self.change_lent(lock)?,
                    None => None,
                };
                let mut change = Change::begin(self)?;
                self.apply_attr(&mut change, ino, set)?;
                change.commit()?;
            }
        }
        self.attr(ino)
    }

    /// Everything but the size.
    fn apply_attr(&self, change: &mut Change<'_>, ino: Ino, set: SetAttr) -> Result<(), Error> {
        let inode = change.inode(ino)?;
        let now = change.now;
        let chown = set.uid.is_some() || set.gid.is_some();
        change.edit(&inode, |node| {
            node.uid = set.uid.unwrap_or(node.uid);
            node.gid = set.gid.unwrap_or(node.gid);
            node.atime = set.atime.unwrap_or(node.atime);
            let mtime = set.size.map_or(node.mtime, |_| now);
            node.mtime = set.mtime.unwrap_or(mtime);
            node.ctime = set.ctime.unwrap_or(now);
            match set.perm {
                Some(perm) => node.perm = perm & 0o7777,
                None if chown => clear_set_id(node, KillSetId::Member),
                None => (),
            }
            clear_set_id(node, set.kill_suid_sgid);
        })?;
        let changed = chown || set.size.is_some() || set.kill_suid_sgid != KillSetId::No;
        if changed && inode.kind != FileKind::Directory {
            self.drop_capability(change, ino)?;
        }
        if let Some(perm) = set.perm {
            self.chmod_acl(change, ino, perm)?;
        }
        Ok(())
    }
}
