//! Who a container runs as: `user[:group]` looked up in the container's own `/etc/passwd` and
//! `/etc/group` (passwd(5), group(5)), never in the host's.
//!
//! Both files come from the image and may hold anything: they are bytes, a line that is no entry is
//! skipped, and nothing grows with what they claim.

use serde::{Deserialize, Serialize};

use super::ContainerError;

/// More supplementary groups than this are cut off (the kernel takes 65,536; a hostile group file
/// should not be able to make that many).
const GROUPS_MAX: usize = 1024;

/// The ids a process gets, as the container sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory, `/` where none is known.
    pub home: String,
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|b| *b == b'\n')
}

fn number(text: &[u8]) -> Option<u32> {
    // Digits only: `parse` alone would take a sign. The last value is "no id" to chown(2).
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (n != u32::MAX).then_some(n)
}

fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let (_password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
        let (_gecos, home) = (fields.next(), fields.next().unwrap_or_default());
        Some(User {
            name,
            uid: number(uid)?,
            gid: number(gid)?,
            home,
        })
    })
}

/// Name, id and members of each group.
fn groups(group: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let (_password, gid) = (fields.next()?, fields.next()?);
        Some((name, number(gid)?, fields.next().unwrap_or_default()))
    })
}

/// The identity that `wanted` (`name|uid[:group|gid]`, empty for root) means.
///
/// As docker does it: a name must exist; a number need not, and has group 0 then. Without a group
/// in `wanted` the groups that list the user as a member come on top.
///
/// # Errors
/// [`ContainerError::Invalid`] if a name is unknown or a number is out of range.
pub fn resolve(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, ContainerError> {
    let (user_text, group_text) = match wanted.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (wanted, None),
    };
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let by_name = users(passwd).find(|u| u.name == user_text.as_bytes());
    let as_number = number(user_text.as_bytes());
    let entry = by_name.or_else(|| as_number.and_then(|n| users(passwd).find(|u| u.uid == n)));
    let (uid, gid) = match (&entry, as_number) {
        (Some(user), _) => (user.uid, user.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => {
            let why = "no such user in the container's /etc/passwd";
            return Err(ContainerError::invalid("user", user_text, why));
        }
    };
    let mut identity = Identity {
        uid,
        gid,
        groups: Vec::new(),
        home: entry
            .as_ref()
            .filter(|u| u.home.starts_with(b"/"))
            .and_then(|u| std::str::from_utf8(u.home).ok())
            .unwrap_or("/")
            .to_owned(),
    };
    match group_text {
        Some(text) => identity.gid = group_id(text, group)?,
        None => {
            if let Some(user) = &entry {
                identity.groups = member_of(user.name, group);
            }
        }
    }
    Ok(identity)
}

fn group_id(text: &str, group: &[u8]) -> Result<u32, ContainerError> {
    groups(group)
        .find(|(name, ..)| *name == text.as_bytes())
        .map(|(_, gid, _)| gid)
        .or_else(|| number(text.as_bytes()))
        .ok_or_else(|| {
            let why = "no such group in the container's /etc/group";
            ContainerError::invalid("group", text, why)
        })
}

fn member_of(user: &[u8], group: &[u8]) -> Vec<u32> {
    let mut ids: Vec<u32> = Vec::new();
    for (_, gid, members) in groups(group) {
        if ids.len() < GROUPS_MAX
            && !ids.contains(&gid)
            && members.split(|b| *b == b',').any(|m| m == user)
        {
            ids.push(gid);
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\
        daemon:x:1:1::/usr/sbin:\nweb:x:33:33:www:/var/www:/bin/sh\n\
        1000:x:7:7::/seven:\nshort:x:5\n:x:6:6::/:\nneg:x:-1:0::/:\nhuge:x:4294967296:0::/:\n\
        last:x:4294967295:0::/:\n\xff\xfe:x:9:9:\xff:/\xff:\nrel:x:12:12::relative:";
    const GROUP: &[u8] =
        b"root:x:0:\nwww:x:33:\nadm:x:4:web,root\nbad\nvideo:x:44:web\nvideo2:x:44:web";

    fn ids(wanted: &str) -> Option<(u32, u32, Vec<u32>, String)> {
        let i = resolve(wanted, PASSWD, GROUP).ok()?;
        Some((i.uid, i.gid, i.groups, i.home))
    }

    #[test]
    fn names_numbers_and_groups_resolve_as_docker_has_them() {
        assert_eq!(ids(""), Some((0, 0, vec![4], "/root".into())));
        assert_eq!(ids("web"), Some((33, 33, vec![4, 44], "/var/www".into())));
        assert_eq!(ids("33"), Some((33, 33, vec![4, 44], "/var/www".into())));
        assert_eq!(ids("web:adm"), Some((33, 4, vec![], "/var/www".into())));
        assert_eq!(ids("web:77"), Some((33, 77, vec![], "/var/www".into())));
        assert_eq!(ids("4321"), Some((4321, 0, vec![], "/".into())));
        assert_eq!(ids("4321:5"), Some((4321, 5, vec![], "/".into())));
        assert_eq!(ids(":www"), Some((0, 33, vec![], "/root".into())));
        // A user whose name is a number wins over the number.
        assert_eq!(ids("1000"), Some((7, 7, vec![], "/seven".into())));
    }

    #[test]
    fn hostile_lines_are_no_users() {
        for name in [
            "short",
            "neg",
            "huge",
            "last",
            "nobody-here",
            "-1",
            "+1",
            "web:nogroup",
        ] {
            assert_eq!(ids(name), None, "{name}");
        }
        assert_eq!(ids("rel").map(|i| i.3).as_deref(), Some("/"));
        assert_eq!(ids("9").map(|i| (i.0, i.3)), Some((9, "/".into())));
        assert_eq!(ids("4294967295"), None);
        assert!(resolve("root", b"", b"").is_err());
        assert_eq!(resolve("0", &[0xff; 4096], &[b':'; 4096]).unwrap().uid, 0);
    }

    #[test]
    fn the_number_of_supplementary_groups_is_bounded() {
        let group: String = (1..5000).map(|g| format!("g{g}:x:{g}:root\n")).collect();
        let identity = resolve("root", PASSWD, group.as_bytes()).unwrap();
        assert_eq!(identity.groups.len(), GROUPS_MAX);
    }
}
