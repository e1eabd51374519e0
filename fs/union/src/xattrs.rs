//! Extended attributes: the lower tree's, with what was set and removed since.

use std::collections::BTreeSet;

use pellicle_store::{FileKind, Ino};

use crate::{
    Union,
    acl::{ACCESS, Acl, DEFAULT},
    change::Change,
    check::{XATTR_LIST_MAX, XATTR_SIZE_MAX, check_xattr_name, check_xattr_namespace},
    error::Error,
    table::Found,
};

/// File capabilities: a write or a change of owner by an ordinary user takes them away.
const CAPABILITY: &[u8] = b"security.capability";

impl Union {
    /// The value of extended attribute `name`.
    ///
    /// # Errors
    /// [`Error::NoAttribute`], [`Error::NotFound`], [`Error::Range`] for a bad name, or damage.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Error> {
        check_xattr_name(name)?;
        self.xattr_of(ino, name)?.ok_or(Error::NoAttribute)
    }

    pub(crate) fn xattr_of(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.table.find(ino) {
            Found::Absent => return Err(Error::NotFound),
            Found::Untouched => (),
            Found::Inode(inode) => {
                let state = inode.state.read();
                if state.gone {
                    return Err(Error::NotFound);
                }
                if let Some(said) = state.xattrs.get(name) {
                    return Ok(said.as_ref().map(|value| value.to_vec()));
                }
            }
        }
        self.lower_xattr(ino, name)
    }

    /// What the lower tree has.
    pub(crate) fn lower_xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !self.table.is_lower(ino) || !self.lower.has_xattrs(ino)? {
            return Ok(None);
        }
        let mut found = None;
        self.lower.xattrs(ino, &mut |n, value| {
            if n == name {
                found = Some(value.to_vec());
            }
        })?;
        Ok(found)
    }

    pub(crate) fn names_of_xattrs(&self, ino: Ino) -> Result<BTreeSet<Vec<u8>>, Error> {
        let mut names = BTreeSet::new();
        let found = self.table.find(ino);
        if matches!(found, Found::Absent) {
            return Err(Error::NotFound);
        }
        if self.table.is_lower(ino) && self.lower.has_xattrs(ino)? {
            self.lower.xattrs(ino, &mut |name, _| {
                names.insert(name.to_vec());
            })?;
        }
        if let Found::Inode(inode) = found {
            let state = inode.state.read();
            if state.gone {
                return Err(Error::NotFound);
            }
            for (name, value) in &state.xattrs {
                if value.is_some() {
                    names.insert(name.to_vec());
                } else {
                    names.remove(&**name);
                }
            }
        }
        Ok(names)
    }

    /// All names, sorted, each followed by a NUL, as `listxattr(2)` gives them.
    ///
    /// # Errors
    /// [`Error::NotFound`], or damage.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<u8>, Error> {
        let mut list = Vec::new();
        for name in self.names_of_xattrs(ino)? {
            list.extend_from_slice(&name);
            list.push(0);
        }
        Ok(list)
    }

    /// Sets an extended attribute. `create`: fail if it exists (`XATTR_CREATE`); `replace`: fail if
    /// it does not.
    ///
    /// Setting an access ACL sets the mode bits it stands for, and one that says no more than the
    /// mode is not kept.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoAttribute`], [`Error::Range`] for a bad name,
    /// [`Error::Unsupported`] for one in no namespace of xattr(7),
    /// [`Error::TooBig`] for a value of more than 64 KiB, [`Error::NoSpace`] where the names
    /// would be more than `listxattr(2)` can give, [`Error::Invalid`] for a malformed ACL,
    /// [`Error::ReadOnly`], and what the upper says.
    pub fn set_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        create: bool,
        replace: bool,
    ) -> Result<(), Error> {
        check_xattr_name(name)?;
        check_xattr_namespace(name)?;
        if value.len() > XATTR_SIZE_MAX {
            return Err(Error::TooBig);
        }
        let mut change = Change::begin(self)?;
        let inode = change.inode(ino)?;
        let there = self.xattr_of(ino, name)?.is_some();
        if create && there {
            return Err(Error::Exists);
        }
        if replace && !there {
            return Err(Error::NoAttribute);
        }
        if !there && self.xattr_names(ino)?.len() + name.len() + 1 > XATTR_LIST_MAX {
            return Err(Error::NoSpace);
        }
        let now = change.now;
        let mut keep = Some(value);
        if name == ACCESS || name == DEFAULT {
            let acl = Acl::parse(value).ok_or(Error::Invalid)?;
            if name == DEFAULT && inode.kind != FileKind::Directory {
                return Err(Error::NotPermitted);
            }
            if name == ACCESS {
                change.edit(&inode, |node| node.perm = acl.mode(node.perm))?;
                keep = keep.filter(|_| !acl.is_minimal());
            }
        }
        change.edit(&inode, |node| node.ctime = now)?;
        if keep.is_some() || there {
            change.set_xattr(&inode, name, keep)?;
        }
        change.commit()
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`], and as [`Union::set_xattr`].
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), Error> {
        check_xattr_name(name)?;
        let mut change = Change::begin(self)?;
        let inode = change.inode(ino)?;
        if self.xattr_of(ino, name)?.is_none() {
            // To have no ACL is what removing it asks for: ext4 and XFS take it so.
            return match name {
                ACCESS | DEFAULT => Ok(()),
                _ => Err(Error::NoAttribute),
            };
        }
        let now = change.now;
        change.edit(&inode, |node| node.ctime = now)?;
        change.set_xattr(&inode, name, None)?;
        change.commit()
    }

    /// Takes file capabilities away in the same change that calls for it.
    pub(crate) fn drop_capability(&self, change: &mut Change<'_>, ino: Ino) -> Result<(), Error> {
        if self.xattr_of(ino, CAPABILITY)?.is_some() {
            let inode = change.inode(ino)?;
            change.set_xattr(&inode, CAPABILITY, None)?;
        }
        Ok(())
    }

    /// Makes the access ACL follow a `chmod` to `perm`.
    pub(crate) fn chmod_acl(
        &self,
        change: &mut Change<'_>,
        ino: Ino,
        perm: u16,
    ) -> Result<(), Error> {
        let value = self.xattr_of(ino, ACCESS)?;
        if let Some(acl) = value.and_then(|value| Acl::parse(&value)) {
            let inode = change.inode(ino)?;
            change.set_xattr(&inode, ACCESS, Some(&acl.chmod(perm).to_bytes()))?;
        }
        Ok(())
    }
}
