//! What was made in a container's root only to mount something on: no change of the container's.

use std::collections::HashSet;

use pellicle_union::{Difference, DifferenceKind, LayerChange};

/// Leaves out of `changes` what `differences` says was made only for `points`.
pub fn leave_out(changes: &mut Vec<LayerChange>, differences: Vec<Difference>, points: &[String]) {
    let all: HashSet<Vec<u8>> = differences.iter().map(|d| d.path.clone()).collect();
    let kept = without_mount_points(differences, points);
    let kept: HashSet<&[u8]> = kept.iter().map(|d| d.path.as_slice()).collect();
    changes.retain(|c| kept.contains(c.path.as_slice()) || !all.contains(&c.path));
}

/// Leaves out what was made only to mount something on, and directories that changed by that alone.
#[must_use]
pub fn without_mount_points(all: Vec<Difference>, points: &[String]) -> Vec<Difference> {
    // Each point, and the directories above it, which may have been made for it.
    let mut made: HashSet<&[u8]> = HashSet::new();
    for point in points {
        let mut path = point.as_bytes();
        while path.len() > 1 {
            made.insert(path);
            path = parent(path);
        }
    }
    if made.is_empty() {
        return all;
    }
    // From the end, so that what is inside a directory was seen before it.
    let mut kept: Vec<Difference> = Vec::new();
    let mut needed: HashSet<Vec<u8>> = HashSet::new();
    let mut dropped: HashSet<Vec<u8>> = HashSet::new();
    let mut sorted = all;
    sorted.sort_by(|a, b| b.path.cmp(&a.path));
    for difference in sorted {
        let is_made = made.contains(difference.path.as_slice());
        let by_that_alone = match difference.kind {
            DifferenceKind::Added => is_made,
            DifferenceKind::Changed => dropped.contains(&difference.path),
            DifferenceKind::Deleted => false,
        };
        let above = parent(&difference.path).to_vec();
        if by_that_alone && !needed.contains(&difference.path) {
            dropped.insert(above);
        } else {
            needed.insert(above);
            kept.push(difference);
        }
    }
    kept.reverse();
    kept
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        None | Some(0) => b"/",
        Some(at) => path.get(..at).unwrap_or(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(all: &[&str], points: &[&str]) -> Vec<String> {
        let all = all
            .iter()
            .map(|line| Difference {
                path: line.as_bytes()[2..].to_vec(),
                kind: match line.as_bytes()[0] {
                    b'A' => DifferenceKind::Added,
                    b'C' => DifferenceKind::Changed,
                    _ => DifferenceKind::Deleted,
                },
            })
            .collect();
        let points: Vec<String> = points.iter().map(|p| (*p).to_owned()).collect();
        without_mount_points(all, &points)
            .iter()
            .map(|d| {
                let letter = match d.kind {
                    DifferenceKind::Added => 'A',
                    DifferenceKind::Changed => 'C',
                    DifferenceKind::Deleted => 'D',
                };
                format!("{letter} {}", String::from_utf8_lossy(&d.path))
            })
            .collect()
    }

    #[test]
    fn what_was_made_to_mount_on_is_left_out_and_the_person_s_changes_are_not() {
        let all = [
            "C /",
            "C /etc",
            "A /etc/hosts",
            "A /srv",
            "A /srv/data",
            "A /x",
        ];
        assert_eq!(lines(&all, &["/etc/hosts", "/srv/data"]), ["C /", "A /x"]);
        let all = [
            "C /etc",
            "A /etc/hosts",
            "A /etc/mine",
            "A /srv",
            "A /srv/data",
            "A /srv/y",
        ];
        assert_eq!(
            lines(&all, &["/etc/hosts", "/srv/data"]),
            ["C /etc", "A /etc/mine", "A /srv", "A /srv/y"]
        );
        assert_eq!(lines(&["C /etc", "D /etc/hosts"], &["/etc/hosts"]).len(), 2);
        assert_eq!(lines(&["C /a-b", "A /a-b/c", "A /a"], &["/a"]).len(), 2);
    }
}
