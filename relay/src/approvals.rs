//! The approvers' door: a unix socket of its own, for the people of this machine who may see what is to be approved.
//!
//! A line with a question, a line with the answer, and the connection is over. Clients of the relay do not come in here: who
//! calls actions and who reads statements are never one group. No private key comes near it: a signature is made elsewhere
//! and brought here, and whether it counts, the target says. Spec: docs/spec/asking.md.

pub mod verbs;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use audit::ApprovalState;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use wire::ids::{ActionName, ApprovalId, BrainName, Fingerprint, PersonName, Reason, TargetName, TaskId};
use wire::{Code, Mode, strict};

use crate::call::Shown;
use crate::error::{About, Refusal};
use crate::lines::{Lines, Piece};
use crate::pipeline::Relay;

/// Where the socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/writ-relay/approvals.sock";
/// Its name in the folder of the clients' socket, where the configuration names none.
pub const SOCKET_NAME: &str = "approvals.sock";
/// Longest question, in bytes: a signature has at most 4,096.
const QUESTION: usize = 16 * 1024;
/// Longest answer that is read, in bytes: a Statement with all its arguments.
const ANSWER: usize = 2 * 1024 * 1024;
/// How long a question may take to come, and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections of one account at a time.
pub const CONNECTIONS: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// To do what.
    pub verb: Verb,
    /// With which approval; absent for `list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ApprovalId>,
    /// The SSHSIG in base64, without its armour; for `approve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// What is open.
    List,
    /// One, with its Statement.
    Show,
    /// Here is a signature.
    Approve,
    /// No.
    Deny,
}

/// What is answered: one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// To `list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Vec<Item>>,
    /// To the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Item>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<No>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct No {
    /// The stable Code.
    pub code: Code,
    /// The same for people, one line.
    pub message: String,
}

/// An approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its id.
    pub id: ApprovalId,
    /// How far it has come.
    pub state: ApprovalState,
    /// Whether something can still become of it.
    pub open: bool,
    /// What.
    pub action: ActionName,
    /// To do it, or to try it out.
    pub mode: Mode,
    /// Where.
    pub targets: Vec<TargetName>,
    /// How many people must sign.
    pub needed: u8,
    /// The keys that have.
    pub signed: Vec<Fingerprint>,
    /// When people were asked, Unix time.
    pub asked: u64,
    /// Until when, Unix time.
    pub ends: u64,
    /// In which task.
    pub task: TaskId,
    /// For whom.
    pub person: PersonName,
    /// Through which brain.
    pub brain: BrainName,
    /// Why, in their words.
    pub reason: Reason,
    /// The text to sign; in the answer to `show`, as long as something can become of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
}

/// Answers one visitor.
pub async fn serve(relay: Arc<Relay>, mut stream: UnixStream, uid: u32) {
    let answer = match timeout(PATIENCE, question(&mut stream)).await {
        Ok(Some(question)) => answer(&relay, question, uid).await,
        Ok(None) | Err(_) => {
            let text = format!("uid {uid} sent the approvers' door what is no question");
            relay.note_stranger(Code::LineMalformed, &text).await;
            refused(&Refusal::new(Code::LineMalformed, &About::default()))
        }
    };
    say(&mut stream, &answer).await;
}

/// Tells somebody that there is no place for them.
pub async fn turn_away(mut stream: UnixStream) {
    say(&mut stream, &refused(&Refusal::new(Code::Capacity, &About::default()))).await;
}

async fn question(stream: &mut UnixStream) -> Option<Question> {
    let mut lines = Lines::new(QUESTION);
    let mut buffer = [0; 4096];
    loop {
        match lines.next_piece() {
            Some(Piece::Line(line)) => return strict::read(&line, QUESTION).ok(),
            Some(Piece::TooLong) => return None,
            None => {}
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => lines.push(buffer.get(..count)?),
        }
    }
}

async fn answer(relay: &Relay, question: Question, uid: u32) -> Answer {
    let Question { verb, id, signature } = question;
    let said = match (verb, id, signature) {
        (Verb::List, None, None) => {
            return match relay.open_approvals().await {
                Ok(open) => Answer {
                    approvals: Some(open.into_iter().map(Item::from).collect()),
                    ..Answer::default()
                },
                Err(refusal) => refused(&refusal),
            };
        }
        (Verb::Show, Some(id), None) => relay.show_approval(&id).await,
        (Verb::Approve, Some(id), Some(signature)) => relay.approve_request(&id, &signature, uid).await,
        (Verb::Deny, Some(id), None) => relay.deny_request(&id, uid).await,
        _ => Err(Refusal::new(Code::LineMalformed, &About::default())),
    };
    match said {
        Ok(shown) => Answer {
            approval: Some(shown.into()),
            ..Answer::default()
        },
        Err(refusal) => {
            if refusal.record.is_none() {
                let text = format!("uid {uid} at the approvers' door: {}", refusal.message);
                relay.note_stranger(refusal.code, &text).await;
            }
            refused(&refusal)
        }
    }
}

fn refused(refusal: &Refusal) -> Answer {
    Answer {
        refused: Some(No {
            code: refusal.code,
            message: refusal.message.clone(),
        }),
        ..Answer::default()
    }
}

/// Whoever does not take the answer does without it: what was done is done, and `show` tells.
async fn say(stream: &mut UnixStream, answer: &Answer) {
    let mut line = serde_json::to_string(answer).unwrap_or_default();
    line.push('\n');
    let _ = timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
}

impl From<Shown> for Item {
    fn from(shown: Shown) -> Self {
        let Shown {
            view,
            task,
            person,
            brain,
            reason,
            signed,
            statement,
        } = shown;
        Self {
            id: view.id,
            state: view.state,
            open: view.open,
            action: view.action,
            mode: view.mode,
            targets: view.targets,
            needed: view.needed,
            signed,
            asked: view.asked,
            ends: view.ends,
            task,
            person,
            brain,
            reason,
            statement,
        }
    }
}
