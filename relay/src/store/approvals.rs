//! Approvals in the database.

use audit::ApprovalState;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use wire::ids::{ApprovalId, Digest, PersonName, RequestId, TaskId};
use wire::{Mode, Risk};

use super::sqlite::{Sqlite, Survives, parsed};
use super::{
    Answer, Approval, Approvals, DENIED_S, Error, Frozen, OPEN_APPROVALS, Owner, PAST_APPROVALS, Request, Signed, Step,
    requests,
};

/// A row of this is read by [`raw`].
const COLUMNS: &str = "a.id, a.task, t.person, t.brain, t.reason, a.action, a.mode, a.same, a.state, a.needed, a.asked, \
                       a.ends, a.since, a.open, a.told";
/// Where those columns are from.
const FROM: &str = "FROM approval a JOIN task t ON t.id = a.task";

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Running => "running",
            Self::Done => "done",
        }
    }
}

impl Approvals for Sqlite {
    fn count(&self, person: &PersonName) -> Answer<'_, usize> {
        let person = person.clone();
        self.work(move |kept| count(&kept.connection, &person))
    }

    fn ask(&self, approval: Approval) -> Answer<'_, ()> {
        self.work(move |kept| kept.change(Survives::PowerCut, |change| ask(change, &approval)))
    }

    fn newest(&self, same: &Digest) -> Answer<'_, Option<Approval>> {
        let same = same.clone();
        self.work(move |kept| newest(&kept.connection, &same))
    }

    fn find(&self, id: &ApprovalId) -> Answer<'_, Option<Approval>> {
        let id = id.clone();
        self.work(move |kept| find(&kept.connection, &id))
    }

    fn of_task(&self, task: &TaskId) -> Answer<'_, Vec<Approval>> {
        let task = task.clone();
        self.work(move |kept| of_task(&kept.connection, &task))
    }

    fn all_open(&self) -> Answer<'_, Vec<Approval>> {
        self.work(|kept| all_open(&kept.connection))
    }

    fn due(&self, now: u64) -> Answer<'_, Vec<Approval>> {
        self.work(move |kept| due(&kept.connection, now))
    }

    fn sign(&self, id: &ApprovalId, signed: Signed, state: ApprovalState) -> Answer<'_, ()> {
        let id = id.clone();
        self.work(move |kept| kept.change(Survives::PowerCut, |change| sign(change, &id, &signed, state)))
    }

    fn end(&self, id: &ApprovalId, state: ApprovalState, now: u64) -> Answer<'_, ()> {
        let id = id.clone();
        self.work(move |kept| kept.change(Survives::PowerCut, |change| end(change, &id, state, now)))
    }

    fn need(&self, id: &ApprovalId, needed: u8, now: u64) -> Answer<'_, ()> {
        let id = id.clone();
        self.work(move |kept| kept.change(Survives::Kill, |change| need(change, &id, needed, now)))
    }

    fn tell(&self, id: &ApprovalId) -> Answer<'_, ()> {
        let id = id.clone();
        self.work(move |kept| tell(&kept.connection, &id))
    }

    fn carry_out(
        &self,
        approval: &ApprovalId,
        task: &TaskId,
        request: Request,
        payload: &str,
        now: u64,
    ) -> Answer<'_, ()> {
        let (approval, task) = (approval.clone(), task.clone());
        let payload = (request.risk != Risk::Read).then(|| payload.to_owned());
        self.work(move |kept| {
            kept.change(Survives::Kill, |change| {
                carry_out(change, &approval, &task, &request, payload.as_deref(), now)
            })
        })
    }
}

/// Keeps one that people are asked for from now on.
pub(super) fn ask(change: &Transaction<'_>, approval: &Approval) -> Result<(), Error> {
    if count(change, &approval.owner.person)? >= OPEN_APPROVALS {
        return Err(Error::Full);
    }
    forget(change, &approval.task, approval.asked)?;
    change
        .prepare_cached(
            "INSERT INTO approval (id, task, action, mode, same, needed, asked, ends, state, since, open)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?7, 1)",
        )?
        .execute(params![
            approval.id.as_str(),
            approval.task.as_str(),
            approval.action.as_str(),
            approval.mode.as_str(),
            approval.same.as_str(),
            approval.needed,
            approval.asked,
            approval.ends,
            approval.state.as_str(),
        ])?;
    for one in &approval.on {
        change
            .prepare_cached(
                "INSERT INTO frozen (approval, request, target, sha256, payload, step) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                approval.id.as_str(),
                one.request.as_str(),
                one.target.as_str(),
                one.sha256.as_str(),
                one.payload,
                one.step.as_str(),
            ])?;
    }
    Ok(())
}

/// How many are open in a person's name.
pub(super) fn count(connection: &Connection, person: &PersonName) -> Result<usize, Error> {
    let count = connection
        .prepare_cached(
            "SELECT count(*) FROM approval a JOIN task t ON t.id = a.task WHERE a.open = 1 AND t.person = ?1",
        )?
        .query_row(params![person.as_str()], |row| row.get(0))?;
    Ok(count)
}

/// Of those that are over the newest of a task are remembered, and every no that still counts.
fn forget(change: &Transaction<'_>, task: &TaskId, now: u64) -> Result<(), Error> {
    change
        .prepare_cached(
            "DELETE FROM approval WHERE open = 0 AND NOT (state = 'denied' AND since + ?3 > ?4) AND id IN (
                 SELECT id FROM approval WHERE task = ?1 AND open = 0 ORDER BY asked DESC, id DESC LIMIT -1 OFFSET ?2
             )",
        )?
        .execute(params![task.as_str(), PAST_APPROVALS, DENIED_S, now])?;
    Ok(())
}

/// The newest for this very call.
pub(super) fn newest(connection: &Connection, same: &Digest) -> Result<Option<Approval>, Error> {
    one(
        connection,
        "WHERE a.same = ?1 ORDER BY a.open DESC, a.asked DESC, a.id DESC LIMIT 1",
        same.as_str(),
    )
}

pub(super) fn find(connection: &Connection, id: &ApprovalId) -> Result<Option<Approval>, Error> {
    one(connection, "WHERE a.id = ?1", id.as_str())
}

pub(super) fn of_task(connection: &Connection, task: &TaskId) -> Result<Vec<Approval>, Error> {
    many(
        connection,
        "WHERE a.task = ?1 ORDER BY a.asked, a.id",
        params![task.as_str()],
    )
}

/// Those that are open, oldest first.
pub(super) fn all_open(connection: &Connection) -> Result<Vec<Approval>, Error> {
    many(connection, "WHERE a.open = 1 ORDER BY a.asked, a.id", [])
}

/// Those that are open although their time is up, or their task's; but for what is being carried out.
pub(super) fn due(connection: &Connection, now: u64) -> Result<Vec<Approval>, Error> {
    many(
        connection,
        "WHERE a.open = 1 AND (a.ends <= ?1 OR t.ended IS NOT NULL)
         AND NOT EXISTS (SELECT 1 FROM frozen f WHERE f.approval = a.id AND f.step = 'running')",
        params![now],
    )
}

/// One more signature, after which it is in this state.
pub(super) fn sign(
    change: &Transaction<'_>,
    id: &ApprovalId,
    signed: &Signed,
    state: ApprovalState,
) -> Result<(), Error> {
    change
        .prepare_cached("INSERT INTO signature (approval, fingerprint, sig, at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id.as_str(), signed.fingerprint.as_str(), signed.sig, signed.at])?;
    put(change, id, state, true, signed.at)
}

/// Nothing more becomes of it. What was being carried out is not ended by this.
pub(super) fn end(change: &Transaction<'_>, id: &ApprovalId, state: ApprovalState, now: u64) -> Result<(), Error> {
    put(change, id, state, false, now)?;
    change
        .prepare_cached("UPDATE frozen SET payload = NULL WHERE approval = ?1")?
        .execute(params![id.as_str()])?;
    Ok(())
}

fn put(change: &Connection, id: &ApprovalId, state: ApprovalState, open: bool, now: u64) -> Result<(), Error> {
    let changed = change
        .prepare_cached(
            "UPDATE approval SET since = iif(state = ?2, since, ?4), state = ?2, open = ?3 WHERE id = ?1 AND open = 1",
        )?
        .execute(params![id.as_str(), state.as_str(), open, now])?;
    match changed {
        1 => Ok(()),
        _ => Err(Error::Taken),
    }
}

/// More people than were asked have to sign.
pub(super) fn need(change: &Transaction<'_>, id: &ApprovalId, needed: u8, now: u64) -> Result<(), Error> {
    put(change, id, ApprovalState::Waiting, true, now)?;
    change
        .prepare_cached("UPDATE approval SET needed = ?2 WHERE id = ?1")?
        .execute(params![id.as_str(), needed])?;
    Ok(())
}

pub(super) fn tell(change: &Connection, id: &ApprovalId) -> Result<(), Error> {
    change
        .prepare_cached("UPDATE approval SET told = 1 WHERE id = ?1")?
        .execute(params![id.as_str()])?;
    Ok(())
}

/// A request that was approved begins: it is nobody else's until it is settled. It may have begun before, and nothing came
/// of it.
pub(super) fn carry_out(
    change: &Transaction<'_>,
    id: &ApprovalId,
    task: &TaskId,
    request: &Request,
    payload: Option<&str>,
    now: u64,
) -> Result<(), Error> {
    let taken = change
        .prepare_cached(
            "UPDATE frozen SET step = 'running' WHERE approval = ?1 AND request = ?2 AND step = 'kept'
             AND EXISTS (SELECT 1 FROM approval WHERE id = ?1 AND open = 1 AND state = 'approved' AND ends > ?3)",
        )?
        .execute(params![id.as_str(), request.id.as_str(), now])?;
    if taken != 1 {
        return Err(Error::Taken);
    }
    change
        .prepare_cached("DELETE FROM request WHERE task = ?1 AND id = ?2 AND phase = 'settled'")?
        .execute(params![task.as_str(), request.id.as_str()])?;
    requests::begin(change, task, request, payload, now)
}

/// What was being carried out has an end. `again`: nothing came of it, and the same bytes may be sent.
pub(super) fn settle(change: &Connection, request: &RequestId, again: bool) -> Result<(), Error> {
    let step = if again { Step::Kept } else { Step::Done };
    let changed = change
        .prepare_cached("UPDATE frozen SET step = ?2 WHERE request = ?1 AND step = 'running'")?
        .execute(params![request.as_str(), step.as_str()])?;
    if changed > 0 && !again {
        change
            .prepare_cached("UPDATE frozen SET payload = NULL WHERE request = ?1")?
            .execute(params![request.as_str()])?;
        change
            .prepare_cached(
                "UPDATE approval SET open = 0 WHERE id IN (SELECT approval FROM frozen WHERE request = ?1)
                 AND NOT EXISTS (SELECT 1 FROM frozen f WHERE f.approval = approval.id AND f.step <> 'done')",
            )?
            .execute(params![request.as_str()])?;
    }
    Ok(())
}

fn one(connection: &Connection, which: &str, value: &str) -> Result<Option<Approval>, Error> {
    let row = connection
        .prepare_cached(&format!("SELECT {COLUMNS} {FROM} {which}"))?
        .query_row(params![value], raw)
        .optional()?;
    row.map(|row| approval(connection, row)).transpose()
}

fn many(connection: &Connection, which: &str, values: impl rusqlite::Params) -> Result<Vec<Approval>, Error> {
    let rows = connection
        .prepare_cached(&format!("SELECT {COLUMNS} {FROM} {which}"))?
        .query_map(values, raw)?
        .collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(|row| approval(connection, row)).collect()
}

/// The columns of [`COLUMNS`], as they stand.
struct Raw {
    texts: [String; 9],
    needed: u8,
    times: [u64; 3],
    open: bool,
    told: bool,
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
            row.get(7)?,
            row.get(8)?,
        ],
        needed: row.get(9)?,
        times: [row.get(10)?, row.get(11)?, row.get(12)?],
        open: row.get(13)?,
        told: row.get(14)?,
    })
}

fn approval(connection: &Connection, raw: Raw) -> Result<Approval, Error> {
    let [id, task, person, brain, reason, action, mode, same, state] = &raw.texts;
    let unknown = |what: &str, word: &str| Error::Unavailable(format!("it names the {what} {word}"));
    let [asked, ends, since] = raw.times;
    Ok(Approval {
        id: parsed(id)?,
        task: parsed(task)?,
        owner: Owner {
            person: parsed(person)?,
            brain: parsed(brain)?,
        },
        reason: parsed(reason)?,
        action: parsed(action)?,
        mode: [Mode::Run, Mode::DryRun]
            .into_iter()
            .find(|known| known.as_str() == mode)
            .ok_or_else(|| unknown("mode", mode))?,
        same: parsed(same)?,
        state: ApprovalState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .ok_or_else(|| unknown("state", state))?,
        needed: raw.needed,
        asked,
        ends,
        since,
        open: raw.open,
        told: raw.told,
        on: frozen(connection, id)?,
        signed: signed(connection, id)?,
    })
}

fn frozen(connection: &Connection, id: &str) -> Result<Vec<Frozen>, Error> {
    let mut found = connection.prepare_cached(
        "SELECT request, target, sha256, payload, step FROM frozen WHERE approval = ?1 ORDER BY target, request",
    )?;
    let mut rows = found.query(params![id])?;
    let mut frozen = Vec::new();
    while let Some(row) = rows.next()? {
        let word: String = row.get(4)?;
        frozen.push(Frozen {
            request: parsed(&row.get::<_, String>(0)?)?,
            target: parsed(&row.get::<_, String>(1)?)?,
            sha256: parsed(&row.get::<_, String>(2)?)?,
            payload: row.get(3)?,
            step: [Step::Kept, Step::Running, Step::Done]
                .into_iter()
                .find(|step| step.as_str() == word)
                .ok_or_else(|| Error::Unavailable(format!("it names the step {word}")))?,
        });
    }
    Ok(frozen)
}

fn signed(connection: &Connection, id: &str) -> Result<Vec<Signed>, Error> {
    let mut found = connection
        .prepare_cached("SELECT fingerprint, sig, at FROM signature WHERE approval = ?1 ORDER BY at, fingerprint")?;
    let mut rows = found.query(params![id])?;
    let mut signed = Vec::new();
    while let Some(row) = rows.next()? {
        signed.push(Signed {
            fingerprint: parsed(&row.get::<_, String>(0)?)?,
            sig: row.get(1)?,
            at: row.get(2)?,
        });
    }
    Ok(signed)
}
