//! A database on the mount.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::{Round, Tree, Work, Writes};
use crate::setup::{Lower, quiet, said};

/// Transactions of one insert, each durable.
const SINGLE: u32 = 200;
/// Inserts of one transaction.
const MANY: u32 = 50_000;

pub(super) fn all() -> Vec<Tree> {
    vec![
        Tree::new(
            "sqlite",
            "200 inserts into a database, each a durable transaction, and 50,000 in one",
            Lower::Empty,
            insert,
        )
        .writes(Writes::Anywhere)
        .programs(["sqlite3"])
        .make(|setup| Ok(fs::write(setup.path("inserts.sql"), script())?)),
    ]
}

fn insert(round: &Round<'_>) -> Result<Work> {
    let script = fs::File::open(round.setup.path("inserts.sql")).context("no SQL")?;
    let mut command = quiet("sqlite3");
    command
        .arg("-batch")
        .arg(round.at.join("database"))
        .stdin(script)
        .stdout(std::process::Stdio::piped());
    let counted = said(&mut command)?;
    let rows = counted.lines().last().map(str::trim).unwrap_or_default();
    ensure!(
        rows == (SINGLE + MANY).to_string(),
        "the database has {rows} rows"
    );
    Ok(Work::default())
}

fn script() -> String {
    let mut sql = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;
CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, number INTEGER);\n"
        .to_owned();
    let row = |n: u32| format!("INSERT INTO t (text, number) VALUES ('row number {n}', {n});\n");
    sql.extend((0..SINGLE).map(row));
    sql.push_str("BEGIN;\n");
    sql.extend((0..MANY).map(row));
    sql.push_str("COMMIT;\nSELECT count(*) FROM t;\n");
    sql
}
