//! What the registry promises, tried.

use std::{os::unix::fs::symlink, time::Instant};

use super::*;
use crate::container::state::{Settings, State};

fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(dir.path());
    (dir, registry)
}

fn make(registry: &Registry, name: &str) -> Result<(String, Held), ContainerError> {
    let mut state = State::new(names::new_id(), name.to_owned(), Settings::default());
    let held = registry.create(&mut state, &Spec::default())?;
    Ok((state.id, held))
}

#[test]
fn containers_are_found_by_name_id_and_start_of_id() {
    let (_dir, registry) = registry();
    let (id, held) = make(&registry, "web").unwrap();
    drop(held);
    for wanted in ["web", &id, &id[..12], &id[..40]] {
        assert_eq!(registry.find(wanted).unwrap(), id);
    }
    for wanted in ["", "we", "../names/web", "zz", "."] {
        assert!(registry.find(wanted).is_err(), "{wanted}");
    }
}

#[test]
fn a_name_has_one_owner_and_is_free_again_after_removal() {
    let (_dir, registry) = registry();
    let (id, held) = make(&registry, "web").unwrap();
    assert!(matches!(
        make(&registry, "web"),
        Err(ContainerError::NameTaken { .. })
    ));
    assert_eq!(registry.ids().unwrap(), std::slice::from_ref(&id));
    registry.remove(held, &id, Some("web"), None).unwrap();
    assert!(registry.ids().unwrap().is_empty());
    assert!(registry.marked().unwrap().is_empty());
    make(&registry, "web").unwrap();
}

#[test]
fn a_held_container_is_no_orphan_and_a_left_one_is() {
    let (_dir, registry) = registry();
    let (id, held) = make(&registry, "").unwrap();
    assert_eq!(registry.marked().unwrap(), std::slice::from_ref(&id));
    assert!(registry.hold_orphan(&id).is_none());
    drop(held);
    assert!(registry.hold_orphan(&id).is_some());
}

#[test]
fn who_waits_learns_the_code_of_a_container_that_is_gone_by_then() {
    let (_dir, registry) = registry();
    let (id, held) = make(&registry, "").unwrap();
    let watch = registry.watch(&id).unwrap();
    assert!(!watch.wait_until(Instant::now()));
    let waiter = std::thread::spawn(move || watch.wait().unwrap());
    registry.remove(held, &id, None, Some(42)).unwrap();
    assert_eq!(waiter.join().unwrap(), Some(42));
}

#[test]
fn what_died_half_made_is_swept_and_its_name_is_free() {
    let (dir, registry) = registry();
    let (id, held) = make(&registry, "web").unwrap();
    drop(held);
    let containers = dir.path().join("containers");
    fs::rename(registry.dir(&id), containers.join(format!(".gone-{id}"))).unwrap();
    registry.sweep();
    assert_eq!(fs::read_dir(&containers).unwrap().count(), 0);
    assert!(registry.hold_orphan(&id).is_none());
    assert!(registry.marked().unwrap().is_empty());
    make(&registry, "web").unwrap();
}

#[test]
fn what_is_being_emptied_for_the_next_is_not_swept() {
    let (dir, registry) = registry();
    let gone = dir.path().join("containers/.gone-1");
    fs::create_dir_all(&gone).unwrap();
    registry.sweep();
    assert!(gone.exists());
    fs::write(gone.join("lock"), "").unwrap();
    registry.sweep();
    assert!(!gone.exists(), "with a lock that nobody holds it is dead");
}

#[test]
fn damaged_containers_are_listed_beside_the_others() {
    let (_dir, registry) = registry();
    let (bad, _held) = make(&registry, "bad").unwrap();
    let (_good, _held2) = make(&registry, "good").unwrap();
    fs::write(registry.dir(&bad).join("state.json"), b"{").unwrap();
    let listed = registry.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .any(|l| matches!(l, Listed::Damaged { id, .. } if *id == bad))
    );
}

#[test]
fn what_is_no_directory_is_swept_and_no_link_is_followed() {
    let (dir, registry) = registry();
    let (containers, outside) = (dir.path().join("containers"), dir.path().join("outside"));
    fs::create_dir(&containers).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("lock"), "").unwrap();
    fs::write(containers.join(".new-1"), "x").unwrap();
    symlink("nothing", containers.join(".new-2")).unwrap();
    symlink(&outside, containers.join(".gone-3")).unwrap();
    registry.sweep();
    assert_eq!(fs::read_dir(&containers).unwrap().count(), 0);
    assert!(outside.join("lock").exists());
    let id = names::new_id();
    symlink(&outside, containers.join(&id)).unwrap();
    fs::create_dir(dir.path().join("names")).unwrap();
    symlink(&id, dir.path().join("names/web")).unwrap();
    registry.remove_stray(&id).unwrap().unwrap();
    assert!(outside.join("lock").exists());
    assert!(registry.ids().unwrap().is_empty());
    let (web, _held) = make(&registry, "web").unwrap();
    assert!(registry.remove_stray(&web).is_none());
}

#[test]
fn a_name_that_cannot_be_freed_is_said() {
    let (dir, registry) = registry();
    fs::create_dir_all(dir.path().join("names/web/x")).unwrap();
    let said = make(&registry, "web").unwrap_err().to_string();
    assert!(said.contains("names/web"), "{said}");
    assert!(registry.ids().unwrap().is_empty());
}

#[test]
fn who_looks_for_orphans_takes_nothing_from_a_container_that_is_being_made() {
    let (_dir, registry) = registry();
    let makers: Vec<_> = (0..2)
        .map(|n| {
            let (registry, name) = (registry.clone(), format!("web{n}"));
            std::thread::spawn(move || {
                for _ in 0..300 {
                    let (id, held) = make(&registry, &name).unwrap();
                    registry.note_served(&id, "ring").unwrap();
                    registry.remove(held, &id, Some(&name), None).unwrap();
                }
            })
        })
        .collect();
    while !makers.iter().all(std::thread::JoinHandle::is_finished) {
        registry.sweep();
        for id in registry.marked().unwrap() {
            assert!(registry.hold_orphan(&id).is_none(), "it is held, or gone");
        }
    }
    for maker in makers {
        maker.join().unwrap();
    }
    assert!(registry.marked().unwrap().is_empty());
}

#[test]
fn of_those_who_find_a_name_left_behind_one_gets_it() {
    let (dir, registry) = registry();
    fs::create_dir_all(dir.path().join("locks")).unwrap();
    make(&registry, "first").unwrap();
    for _ in 0..200 {
        symlink(names::new_id(), dir.path().join("names/web")).unwrap();
        let start = std::sync::Barrier::new(3);
        let mut made: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        make(&registry, "web").ok()
                    })
                })
                .collect();
            let made = makers.into_iter().filter_map(|m| m.join().unwrap());
            made.collect()
        });
        assert_eq!(made.len(), 1, "one name has one owner");
        let (id, held) = made.remove(0);
        assert_eq!(registry.find("web").unwrap(), id);
        registry.remove(held, &id, Some("web"), None).unwrap();
        assert!(!dir.path().join("names/web").exists());
    }
}
