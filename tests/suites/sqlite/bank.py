"""A bank on SQLite: what the suite `sqlite` runs in a mount whose server is killed.

    bank.py make DATABASE MODE          100 accounts of 1,000 each
    bank.py write DATABASE NAME ACKS    moves money for ever; each transaction that was committed
                                        is told by a line in ACKS, outside the mount
    bank.py read DATABASE SEEN          looks for ever; a line in SEEN for each look
    bank.py check DATABASE NAME=N...    N transactions of NAME were told: they are all there
"""

import random
import sqlite3
import sys
import time

TOTAL = 100 * 1000


def connect(path):
    return sqlite3.connect(path, timeout=300, isolation_level=None)


def make(path, mode):
    db = connect(path)
    db.execute(f"pragma journal_mode={mode}")
    db.execute("create table account(id integer primary key, balance integer not null)")
    db.execute("create table moved(who text, n integer, note text, primary key(who, n))")
    db.execute("create index by_note on moved(note)")
    db.execute("begin")
    db.executemany("insert into account values(?, 1000)", ((i,) for i in range(100)))
    notes = ((i, "x" * (i % 300)) for i in range(2000))
    db.executemany("insert into moved values('before', ?, ?)", notes)
    db.execute("commit")
    db.close()


def write(path, who, acks):
    db = connect(path)
    n = db.execute("select coalesce(max(n), 0) from moved where who = ?", (who,)).fetchone()[0]
    with open(acks, "a", buffering=1) as told:
        while True:
            n += 1
            a, b, amount = random.randrange(100), random.randrange(100), random.randrange(50)
            db.execute("begin immediate")
            db.execute("update account set balance = balance - ? where id = ?", (amount, a))
            db.execute("update account set balance = balance + ? where id = ?", (amount, b))
            db.execute("insert into moved values(?, ?, ?)", (who, n, "y" * random.randrange(900)))
            db.execute("delete from moved where who = 'before' and n = ?", (n,))
            db.execute("commit")
            print(n, file=told)
            # SQLite's locks are not fair: who waits looks ten times a second, and would find the database
            # locked for a minute by another that never pauses.
            time.sleep(random.random() / 500)


def looks_right(db):
    total = db.execute("select sum(balance) from account").fetchone()[0]
    assert total == TOTAL, f"the bank has {total}"
    gaps = "select who, max(n), count(*) from moved where who != 'before' group by who"
    rows = db.execute(gaps).fetchall()
    for who, last, count in rows:
        assert last == count, f"{who} has {count} transactions up to {last}"
    return {who: last for who, last, _ in rows}


def read(path, seen):
    db = connect(path)
    with open(seen, "a", buffering=1) as told:
        while True:
            db.execute("begin")
            try:
                looks_right(db)
            except AssertionError as wrong:
                print(f"wrong: {wrong}", file=told)
            db.execute("commit")
            print("looked", file=told)


def check(path, *acknowledged):
    db = connect(path)
    found = db.execute("pragma integrity_check").fetchall()
    assert found == [("ok",)], f"integrity_check: {found}"
    there = looks_right(db)
    for told in acknowledged:
        who, n = told.split("=")
        assert there.get(who, 0) >= int(n), f"{who} was told of {n}, there are {there.get(who)}"
    print("fine")


if __name__ == "__main__":
    {"make": make, "write": write, "read": read, "check": check}[sys.argv[1]](*sys.argv[2:])
