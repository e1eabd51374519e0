//! Upper directories whose whiteouts are `.wh.` files, as fuse-overlayfs and podman leave them.

use pellicle_tests::Who;

use crate::layers::Layers;

/// A lower directory of which the upper hides `file` and everything in `dir`, that has `own` of its own.
fn with_wh_files(who: Who) -> Layers {
    let layers = Layers::new(who);
    layers.store.directory("upper/dir");
    for name in ["upper/.wh.file", "upper/dir/.wh..wh..opq", "upper/dir/own"] {
        layers.store.file(name, "");
    }
    layers
}

#[test]
fn wh_files_are_understood_and_stay_until_their_directory_changes() {
    for who in Who::all() {
        let layers = with_wh_files(who);
        let upper = || {
            layers
                .sh("find upper -printf '%p %y %s %T@\\n' | sort")
                .ok()
        };
        let before = upper();
        layers.overlay(&layers.options("dir")).ok();
        assert_eq!(
            layers.sh("ls -A merged merged/dir").ok(),
            "merged:\ndir\nlink\n\nmerged/dir:\nown"
        );
        layers.unmount();
        assert_eq!(upper(), before, "looking changes nothing");
    }
}

#[test]
fn wh_files_give_way_to_whiteouts_where_names_change() {
    for who in Who::all() {
        let layers = with_wh_files(who);
        layers.overlay(&layers.options("dir")).ok();
        // A directory in the place of a hidden file, a name beside one, and a name of that kind.
        layers
            .sh("mkdir merged/file; echo x >merged/dir/more; echo mine >merged/dir/.wh.mine; rmdir merged/file")
            .ok();
        layers.unmount();
        assert_eq!(
            layers.sh("cd upper; find . -name '.wh.*'").ok(),
            "./dir/.wh.mine"
        );
        for _ in 0..2 {
            layers.overlay(&layers.options("dir")).ok();
            assert_eq!(
                layers
                    .sh("ls -A merged merged/dir; cat merged/dir/.wh.mine")
                    .ok(),
                "merged:\ndir\nlink\n\nmerged/dir:\n.wh.mine\nmore\nown\nmine"
            );
            layers.unmount();
        }
    }
}

#[test]
fn a_directory_with_wh_files_is_removed_moved_and_replaced() {
    for who in Who::all() {
        let layers = with_wh_files(who);
        layers.overlay(&layers.options("dir")).ok();
        layers
            .sh("rm merged/dir/own; mv merged/dir merged/moved; ls -A merged/moved; rmdir merged/moved
                 mkdir merged/dir; ls -A merged/dir; mv merged/link merged/file")
            .ok();
        layers.unmount();
        layers.overlay(&layers.options("dir")).ok();
        assert_eq!(
            layers
                .sh("ls -A merged merged/dir; readlink merged/file")
                .ok(),
            "merged:\ndir\nfile\n\nmerged/dir:\nfile"
        );
        layers.unmount();
    }
}
