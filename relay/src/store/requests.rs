//! Requests in the database.

use rusqlite::{Connection, Row, Transaction, params};
use wire::ids::{RequestId, TaskId};
use wire::{Code, Mode, Risk, Status};

use super::sqlite::parsed;
use super::{ASKABLE_S, Error, Phase, REQUESTS, Request, Unsettled, approvals, tasks};

/// A row of this is read by [`raw`].
const COLUMNS: &str = "r.id, r.target, r.action, r.risk, r.sha256, r.phase, r.mode, r.status, r.code";

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Sent => "sent",
            Self::Settled => "settled",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Recorded, Self::Sent, Self::Settled]
            .into_iter()
            .find(|phase| phase.as_str() == word)
    }
}

/// What becomes of a request.
pub(super) struct End {
    pub(super) task: TaskId,
    pub(super) request: RequestId,
    pub(super) status: Status,
    pub(super) code: Option<Code>,
}

pub(super) fn begin(
    change: &Transaction<'_>,
    task: &TaskId,
    request: &Request,
    payload: Option<&str>,
    now: u64,
) -> Result<(), Error> {
    let kept: usize = change
        .prepare_cached("SELECT count(*) FROM request WHERE task = ?1")?
        .query_row(params![task.as_str()], |row| row.get(0))?;
    if kept >= REQUESTS {
        let gone = change
            .prepare_cached(
                "DELETE FROM request WHERE task = ?1 AND id IN (
                     SELECT id FROM request WHERE task = ?1 AND phase = 'settled' ORDER BY id LIMIT ?2
                 )",
            )?
            .execute(params![task.as_str(), kept + 1 - REQUESTS])?;
        if gone == 0 {
            return Err(Error::Full);
        }
    }
    change
        .prepare_cached(
            "INSERT INTO request (task, id, target, action, risk, sha256, begun, phase, payload, mode)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            task.as_str(),
            request.id.as_str(),
            request.target.as_str(),
            request.action.as_str(),
            request.risk.as_str(),
            request.sha256.as_str(),
            now,
            request.phase.as_str(),
            payload,
            request.mode.as_str(),
        ])?;
    Ok(())
}

pub(super) fn sent(change: &Connection, task: &TaskId, request: &RequestId) -> Result<(), Error> {
    let changed = change
        .prepare_cached("UPDATE request SET phase = 'sent' WHERE task = ?1 AND id = ?2 AND phase <> 'settled'")?
        .execute(params![task.as_str(), request.as_str()])?;
    match changed {
        1 => Ok(()),
        _ => Err(Error::Unavailable("it has no such request under way".to_owned())),
    }
}

/// A request that is settled stays as it is: of two answers the first counts.
pub(super) fn settle(change: &Connection, end: &End) -> Result<(), Error> {
    let stays = end.status == Status::Unknown;
    change
        .prepare_cached(
            "UPDATE request SET status = ?3, code = ?4,
                 phase = iif(?5 AND risk <> 'read', phase, 'settled'),
                 payload = iif(?5, payload, NULL)
             WHERE task = ?1 AND id = ?2 AND phase <> 'settled'",
        )?
        .execute(params![
            end.task.as_str(),
            end.request.as_str(),
            end.status.as_str(),
            end.code.map(Code::as_str),
            stays,
        ])?;
    // Refused, or never sent: people need not approve the same bytes once more.
    let again = end.status == Status::Refused || end.code == Some(Code::NotSent);
    approvals::settle(change, &end.request, again)
}

/// Settles what is unknown and will be.
pub(super) fn give_up(change: &Connection, task: &TaskId, request: &RequestId) -> Result<(), Error> {
    change
        .prepare_cached(
            "UPDATE request SET phase = 'settled', payload = NULL WHERE task = ?1 AND id = ?2 AND status IS NOT NULL",
        )?
        .execute(params![task.as_str(), request.as_str()])?;
    Ok(())
}

/// Settles what has been unknown for so long that nobody can be asked.
pub(super) fn forget(change: &Transaction<'_>, now: u64) -> Result<(), Error> {
    change
        .prepare_cached(
            "UPDATE request SET phase = 'settled', payload = NULL
             WHERE phase <> 'settled' AND status IS NOT NULL AND begun < ?1",
        )?
        .execute(params![now.saturating_sub(ASKABLE_S)])?;
    Ok(())
}

pub(super) fn of_task(connection: &Connection, task: &TaskId) -> Result<Vec<Request>, Error> {
    let rows = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM request r WHERE r.task = ?1 ORDER BY r.id"
        ))?
        .query_map(params![task.as_str()], raw)?
        .collect::<Result<Vec<_>, _>>()?;
    rows.iter().map(request).collect()
}

pub(super) fn unsettled(connection: &Connection) -> Result<Vec<Unsettled>, Error> {
    let mut found = connection.prepare_cached(&format!(
        "SELECT {COLUMNS}, r.payload, r.begun, t.id, t.person, t.brain, t.reason, t.opened, t.ends, t.ended
         FROM request r JOIN task t ON t.id = r.task WHERE r.phase <> 'settled' ORDER BY r.begun, r.id"
    ))?;
    let mut rows = found.query([])?;
    let mut unsettled = Vec::new();
    while let Some(row) = rows.next()? {
        unsettled.push(Unsettled {
            request: request(&raw(row)?)?,
            payload: row.get(9)?,
            begun: row.get(10)?,
            task: tasks::task(connection, tasks::raw(row, 11)?)?,
        });
    }
    Ok(unsettled)
}

/// The columns of [`COLUMNS`], as they stand.
struct Raw {
    texts: [String; 7],
    status: Option<String>,
    code: Option<String>,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        texts: [
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get(3)?,
            row.get(4)?,
            row.get(5)?,
            row.get(6)?,
        ],
        status: row.get(7)?,
        code: row.get(8)?,
    })
}

fn request(raw: &Raw) -> Result<Request, Error> {
    let [id, target, action, risk, sha256, phase, mode] = &raw.texts;
    let status = raw.status.as_deref().map(parsed::<Status>).transpose()?;
    let code = raw.code.as_deref().map(parsed::<Code>).transpose()?;
    Ok(Request {
        id: parsed(id)?,
        target: parsed(target)?,
        action: parsed(action)?,
        risk: parsed::<Risk>(risk)?,
        mode: [Mode::Run, Mode::DryRun]
            .into_iter()
            .find(|known| known.as_str() == mode)
            .ok_or_else(|| Error::Unavailable(format!("it names the mode {mode}")))?,
        sha256: parsed(sha256)?,
        phase: Phase::of(phase).ok_or_else(|| Error::Unavailable(format!("it names the phase {phase}")))?,
        end: status.map(|status| (status, code)),
    })
}
