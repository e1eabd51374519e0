//! Making and removing names: `make`, `link`, `unlink`, `rmdir`.

use std::sync::Arc;

use pellicle_store::{Attr, FileKind, Ino};

use crate::{
    LINK_MAX, Union,
    acl::{self, ACCESS, Acl, DEFAULT},
    change::Change,
    check::{check_name, check_target, is_dir},
    error::Error,
    inode::{Inode, new_node},
    request::{Caller, NewNode},
};

impl Union {
    /// Makes a node (not a hard link).
    ///
    /// `perm` is as the program asked for it: `who.umask` is taken off here, unless the directory
    /// has a default ACL, which then decides instead (`posix_acl_create` of the kernel's
    /// `fs/posix_acl.c`). A caller that has masked already gives an umask of 0. A set-group-ID
    /// directory hands down its group, and to a directory in it the bit.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NotFound`] (also in a removed directory),
    /// [`Error::NotDirectory`], [`Error::NameTooLong`], [`Error::Invalid`],
    /// [`Error::ReadOnly`], and what the upper says.
    pub fn make(
        &self,
        dir: Ino,
        name: &[u8],
        what: NewNode<'_>,
        perm: u16,
        who: Caller,
    ) -> Result<Attr, Error> {
        check_name(name)?;
        let mut change = Change::begin(self)?;
        let parent = change.dir(dir)?;
        if self.child(dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        let kind = what.kind();
        let mut node = new_node(self.new_ino(), kind, change.now);
        let above = parent.now()?;
        node.perm = perm & 0o7777;
        node.uid = who.uid;
        node.gid = who.gid;
        if above.perm & 0o2000 != 0 {
            node.gid = above.gid;
            if is_dir(kind) {
                node.perm |= 0o2000;
            }
        }
        if is_dir(kind) {
            node.parent = dir;
        }
        if let NewNode::CharDevice(rdev) | NewNode::BlockDevice(rdev) = what {
            node.rdev = rdev;
        }
        if let NewNode::Symlink(target) = what {
            check_target(target)?;
            node.perm = 0o777;
            node.size = target.len() as u64;
        }
        let (perm, acls) = self.inherit_acl(&parent, kind, node.perm, who.umask)?;
        node.perm = perm;

        let inode = change.add(node);
        if let NewNode::Symlink(target) = what {
            change.set_target(&inode, target);
        }
        for (name, value) in acls {
            change.set_xattr(&inode, name, Some(&value))?;
        }
        change.set_name(&parent, name, Some((node.ino, kind)))?;
        if is_dir(kind) {
            change.count_subdir(&parent, true)?;
        }
        change.commit()?;
        self.attr_of(&inode)
    }

    /// Makes a regular file without a name (`O_TMPFILE`), and remembers it once, as there is
    /// nothing else to keep it. [`Union::link`] may give it a name.
    ///
    /// # Errors
    /// As [`Union::make`].
    pub fn make_unnamed(&self, dir: Ino, perm: u16, who: Caller) -> Result<Attr, Error> {
        let mut change = Change::begin(self)?;
        let parent = change.dir(dir)?;
        let kind = FileKind::Regular;
        let mut node = new_node(self.new_ino(), kind, change.now);
        let above = parent.now()?;
        node.nlink = 0;
        node.uid = who.uid;
        node.gid = if above.perm & 0o2000 != 0 {
            above.gid
        } else {
            who.gid
        };
        let (perm, acls) = self.inherit_acl(&parent, kind, perm & 0o7777, who.umask)?;
        node.perm = perm;
        let inode = change.add(node);
        for (name, value) in acls {
            change.set_xattr(&inode, name, Some(&value))?;
        }
        change.commit()?;
        self.remember(node.ino);
        self.attr_of(&inode)
    }

    /// The permission bits and ACLs that a new inode in `parent` gets.
    #[allow(clippy::type_complexity, reason = "read in one place, right above")]
    fn inherit_acl(
        &self,
        parent: &Arc<Inode>,
        kind: FileKind,
        perm: u16,
        umask: u32,
    ) -> Result<(u16, Vec<(&'static [u8], Vec<u8>)>), Error> {
        if kind == FileKind::Symlink {
            return Ok((perm, Vec::new()));
        }
        let default = self.xattr_of(parent.ino, DEFAULT)?;
        let Some(default) = default.and_then(|value| Acl::parse(&value)) else {
            let mask = u16::try_from(umask & 0o777).unwrap_or(0);
            return Ok((perm & !mask, Vec::new()));
        };
        let (perm, access) = acl::inherit(&default, perm);
        let mut acls = Vec::new();
        if let Some(access) = access {
            acls.push((ACCESS, access.to_bytes()));
        }
        if is_dir(kind) {
            acls.push((DEFAULT, default.to_bytes()));
        }
        Ok((perm, acls))
    }

    /// Gives `ino` one more name.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for a directory, [`Error::Exists`], [`Error::TooManyLinks`] at
    /// [`LINK_MAX`], and as [`Union::make`].
    pub fn link(&self, ino: Ino, dir: Ino, name: &[u8]) -> Result<Attr, Error> {
        check_name(name)?;
        let mut change = Change::begin(self)?;
        let inode = change.inode(ino)?;
        let parent = change.dir(dir)?;
        let kind = inode.kind;
        if is_dir(kind) {
            return Err(Error::NotPermitted);
        }
        if self.child(dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        if inode.now()?.nlink >= LINK_MAX {
            return Err(Error::TooManyLinks);
        }
        let now = change.now;
        change.edit(&inode, |node| {
            node.nlink += 1;
            node.ctime = now;
        })?;
        change.set_name(&parent, name, Some((ino, kind)))?;
        change.commit()?;
        // The kernel takes what it is told here, whatever it wrote meanwhile by itself.
        self.look_if_lent(&inode)?;
        self.attr_of(&inode)
    }

    /// Removes a name that is no directory's. The inode stays while the kernel remembers it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::IsDirectory`], and as [`Union::make`].
    pub fn unlink(&self, dir: Ino, name: &[u8]) -> Result<(), Error> {
        self.remove_name(dir, name, false)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotEmpty`], [`Error::NotDirectory`], and as [`Union::unlink`].
    pub fn rmdir(&self, dir: Ino, name: &[u8]) -> Result<(), Error> {
        self.remove_name(dir, name, true)
    }

    fn remove_name(&self, dir: Ino, name: &[u8], want_dir: bool) -> Result<(), Error> {
        check_name(name)?;
        let mut change = Change::begin(self)?;
        let parent = change.dir(dir)?;
        let (ino, kind) = self.child(dir, name)?.ok_or(Error::NotFound)?;
        match (is_dir(kind), want_dir) {
            (true, false) => return Err(Error::IsDirectory),
            (false, true) => return Err(Error::NotDirectory),
            _ => (),
        }
        let inode = change.inode(ino)?;
        if want_dir && !self.is_empty(&inode)? {
            return Err(Error::NotEmpty);
        }
        change.set_name(&parent, name, None)?;
        change.drop_link(&inode)?;
        if want_dir {
            change.count_subdir(&parent, false)?;
        }
        change.commit()?;
        self.reap(&inode);
        Ok(())
    }
}
