//! Tasks in the database.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use wire::ids::{TargetName, TaskId};

use super::sqlite::parsed;
use super::{ALL_OPEN_TASKS, Error, OPEN_TASKS, OVER, Owner, Task};

/// A row of this is read by [`task`].
const TASK: &str = "SELECT t.id, t.person, t.brain, t.reason, t.opened, t.ends, t.ended FROM task t";

pub(super) fn open(change: &Transaction<'_>, task: &Task, now: u64) -> Result<(), Error> {
    let (all, own): (usize, usize) = change
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE person = ?1) FROM task WHERE ended IS NULL AND ends > ?2",
        )?
        .query_row(params![task.owner.person.as_str(), now], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if own >= OPEN_TASKS || all >= ALL_OPEN_TASKS {
        return Err(Error::Full);
    }
    change
        .prepare_cached("INSERT INTO task (id, person, brain, reason, opened, ends) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            task.id.as_str(),
            task.owner.person.as_str(),
            task.owner.brain.as_str(),
            task.reason.as_str(),
            task.opened,
            task.ends,
        ])?;
    for target in &task.targets {
        place(change, &task.id, target)?;
    }
    Ok(())
}

pub(super) fn reach(change: &Transaction<'_>, id: &TaskId, target: &TargetName, ends: u64) -> Result<bool, Error> {
    let open = change
        .prepare_cached("UPDATE task SET ends = min(ends, ?2) WHERE id = ?1 AND ended IS NULL")?
        .execute(params![id.as_str(), ends])?;
    if open == 0 {
        return Ok(false);
    }
    place(change, id, target)?;
    Ok(true)
}

fn place(change: &Transaction<'_>, id: &TaskId, target: &TargetName) -> Result<(), Error> {
    change
        .prepare_cached("INSERT OR IGNORE INTO place (task, target) VALUES (?1, ?2)")?
        .execute(params![id.as_str(), target.as_str()])?;
    Ok(())
}

pub(super) fn find(connection: &Connection, owner: &Owner, id: &TaskId) -> Result<Option<Task>, Error> {
    let row = connection
        .prepare_cached(&format!("{TASK} WHERE t.id = ?1 AND t.person = ?2 AND t.brain = ?3"))?
        .query_row(
            params![id.as_str(), owner.person.as_str(), owner.brain.as_str()],
            |row| raw(row, 0),
        )
        .optional()?;
    row.map(|row| task(connection, row)).transpose()
}

pub(super) fn open_on(
    connection: &Connection,
    owner: &Owner,
    target: &TargetName,
    now: u64,
) -> Result<Option<Task>, Error> {
    // Ids are time-ordered (UUID version 7), so they settle which of two in one second is newer.
    let row = connection
        .prepare_cached(&format!(
            "{TASK} JOIN place p ON p.task = t.id AND p.target = ?3
             WHERE t.person = ?1 AND t.brain = ?2 AND t.ended IS NULL AND t.ends > ?4
             ORDER BY t.opened DESC, t.id DESC LIMIT 1"
        ))?
        .query_row(
            params![owner.person.as_str(), owner.brain.as_str(), target.as_str(), now],
            |row| raw(row, 0),
        )
        .optional()?;
    row.map(|row| task(connection, row)).transpose()
}

pub(super) fn places(connection: &Connection, owner: &Owner, now: u64) -> Result<BTreeMap<TargetName, TaskId>, Error> {
    let mut found = BTreeMap::new();
    let mut rows = connection.prepare_cached(
        "SELECT p.target, t.id FROM task t JOIN place p ON p.task = t.id
         WHERE t.person = ?1 AND t.brain = ?2 AND t.ended IS NULL AND t.ends > ?3
         ORDER BY t.opened, t.id",
    )?;
    let mut rows = rows.query(params![owner.person.as_str(), owner.brain.as_str(), now])?;
    while let Some(row) = rows.next()? {
        found.insert(parsed(&row.get::<_, String>(0)?)?, parsed(&row.get::<_, String>(1)?)?);
    }
    Ok(found)
}

pub(super) fn close(change: &Transaction<'_>, owner: &Owner, id: &TaskId, now: u64) -> Result<Option<Task>, Error> {
    let Some(mut task) = find(change, owner, id)? else {
        return Ok(None);
    };
    if !task.closed {
        end(change, id, now)?;
        task.closed = true;
    }
    Ok(Some(task))
}

pub(super) fn expire(change: &Transaction<'_>, now: u64) -> Result<Vec<Task>, Error> {
    let rows = change
        .prepare_cached(&format!("{TASK} WHERE t.ended IS NULL AND t.ends <= ?1"))?
        .query_map(params![now], |row| raw(row, 0))?
        .collect::<Result<Vec<_>, _>>()?;
    let mut over = Vec::new();
    for row in rows {
        let task = task(change, row)?;
        end(change, &task.id, now)?;
        over.push(Task { closed: true, ..task });
    }
    Ok(over)
}

/// Ends a task, and forgets those that have been over for longest. What nobody knows the end of is not forgotten.
fn end(change: &Transaction<'_>, id: &TaskId, now: u64) -> Result<(), Error> {
    change
        .prepare_cached("UPDATE task SET ended = ?2 WHERE id = ?1")?
        .execute(params![id.as_str(), now])?;
    let over: usize = change
        .prepare_cached("SELECT count(*) FROM task WHERE ended IS NOT NULL")?
        .query_row([], |row| row.get(0))?;
    if over > OVER {
        change
            .prepare_cached(
                "DELETE FROM task WHERE id IN (
                     SELECT id FROM task WHERE ended IS NOT NULL AND NOT EXISTS (
                         SELECT 1 FROM request WHERE request.task = task.id AND phase <> 'settled'
                     ) ORDER BY ended, id LIMIT ?1
                 )",
            )?
            .execute(params![over - OVER])?;
    }
    Ok(())
}

/// The columns of [`TASK`], as they stand.
pub(super) struct Raw {
    texts: [String; 4],
    opened: u64,
    ends: u64,
    ended: Option<u64>,
}

/// The columns of a task from the one with this number on.
pub(super) fn raw(row: &Row<'_>, from: usize) -> rusqlite::Result<Raw> {
    Ok(Raw {
        texts: [
            row.get(from)?,
            row.get(from + 1)?,
            row.get(from + 2)?,
            row.get(from + 3)?,
        ],
        opened: row.get(from + 4)?,
        ends: row.get(from + 5)?,
        ended: row.get(from + 6)?,
    })
}

/// A row as a task, with its targets.
pub(super) fn task(connection: &Connection, raw: Raw) -> Result<Task, Error> {
    let [id, person, brain, reason] = &raw.texts;
    let targets = connection
        .prepare_cached("SELECT target FROM place WHERE task = ?1")?
        .query_map(params![id], |row| row.get::<_, String>(0))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Task {
        id: parsed(id)?,
        owner: Owner {
            person: parsed(person)?,
            brain: parsed(brain)?,
        },
        reason: parsed(reason)?,
        opened: raw.opened,
        ends: raw.ends,
        targets: targets
            .iter()
            .map(|target| parsed(target))
            .collect::<Result<BTreeSet<_>, _>>()?,
        closed: raw.ended.is_some(),
    })
}
