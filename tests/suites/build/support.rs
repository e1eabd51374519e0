//! What the tests of `build` share.

use std::{fs, path::Path};

use pellicle_tests::{Cmd, Outcome, TestStore, Who};
use serde_json::Value;

/// A store with the image `tools` and an empty context.
pub(crate) struct Site {
    pub(crate) s: TestStore,
}

impl Site {
    pub(crate) fn new(who: Who) -> Self {
        let s = TestStore::with_tools(who);
        s.directory("ctx");
        Self { s }
    }

    /// Writes a file of the context, and its Containerfile.
    pub(crate) fn file(&self, name: &str, bytes: &str) -> &Self {
        let mut above = Path::new(name).parent();
        let mut dirs = Vec::new();
        while let Some(dir) = above.filter(|d| !d.as_os_str().is_empty()) {
            dirs.push(dir.to_owned());
            above = dir.parent();
        }
        for dir in dirs.iter().rev() {
            self.s.directory(&format!("ctx/{}", dir.display()));
        }
        self.s.file(&format!("ctx/{name}"), bytes);
        self
    }

    /// `pellicle build ARGS... CONTEXT` with this Containerfile.
    pub(crate) fn build(&self, text: &str, args: &[&str]) -> Cmd {
        self.file("Containerfile", text);
        self.s.cmd(["build"]).args(args).arg(self.s.path("ctx"))
    }

    /// Builds `x`, which must succeed; what it said.
    pub(crate) fn built(&self, text: &str, args: &[&str]) -> Outcome {
        let out = self.build(text, &[&["-t", "x"], args].concat()).run();
        let out = out.succeeded();
        assert!(
            out.out().starts_with("sha256:") && out.out().len() == 71,
            "only the id goes to standard output: {out}"
        );
        out
    }

    /// What `script` says in image `x`.
    pub(crate) fn says(&self, script: &str) -> String {
        self.s.sh("x", script).ok()
    }

    pub(crate) fn inspect(&self, image: &str) -> Value {
        let text = self.s.cmd(["inspect", image]).ok();
        let all: Value = serde_json::from_str(&text).expect("JSON");
        all.get(0).expect("one image").clone()
    }

    /// A member of the configuration of image `x`.
    pub(crate) fn config(&self, member: &str) -> Value {
        let told = self.inspect("x");
        told.pointer(&format!("/Config/{member}"))
            .cloned()
            .unwrap_or(Value::Null)
    }

    pub(crate) fn layers(&self, image: &str) -> usize {
        let told = self.inspect(image);
        told.pointer("/RootFS/Layers")
            .and_then(Value::as_array)
            .expect("layers")
            .len()
    }

    /// Names and ids of all images.
    pub(crate) fn images(&self) -> String {
        let told = self.s.cmd(["images", "-a", "--no-trunc"]).ok();
        let lines = told.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_whitespace().take(3).collect();
            words.join(" ")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Files of the store that hold `text`.
    pub(crate) fn store_has(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut todo = vec![self.s.root()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                let meta = fs::symlink_metadata(&path).expect("metadata");
                if meta.is_dir() {
                    todo.push(path);
                } else if meta.is_file()
                    && fs::read(&path)
                        .is_ok_and(|b| b.windows(text.len()).any(|w| w == text.as_bytes()))
                {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }
}

/// Whether a command is installed here.
pub(crate) fn installed(name: &str) -> bool {
    std::process::Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .output()
        .is_ok_and(|o| o.status.success())
}
