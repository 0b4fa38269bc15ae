//! Changes in the hands of a relay that has the CA's key: honest action certificates, and every other kind.

use anyhow::{Context as _, Result};
use harness::forge::{Forge, GRANT};
use harness::stack::now;
use harness::{EvilRelay, Stack, effects};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{WEB, grant_of};

/// An honest payload that counts one effect under this word.
pub fn payload(relay: &EvilRelay, word: &str) -> Map<String, Value> {
    relay.payload(effects::ACTION, json!({"word": word, "before": "", "after": ""}))
}

/// An action certificate for exactly this payload, as the CA would sign it, and then changed.
pub fn permit(
    stack: &Stack,
    relay: &EvilRelay,
    payload: &Map<String, Value>,
    change: impl FnOnce(&mut Forge, &mut Value),
) -> Result<String> {
    let text = serde_json::to_string(payload)?;
    let mut grant = grant_of(&relay.task.certificate)?;
    let hash: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    let more = json!({
        "kind": "action", "actions": [payload["action"]], "request_sha256": hash, "manifest": payload["manifest"],
        "approvals": 0, "krl": 0,
    });
    let (Value::Object(grant_keys), Value::Object(more)) = (&mut grant, more) else {
        anyhow::bail!("no grant");
    };
    grant_keys.extend(more);
    let mut forge = stack.honest_forge(WEB, &relay.task.task_id, "");
    forge.principals = vec![format!("action/{WEB}")];
    forge.valid_before = now() + 60;
    change(&mut forge, &mut grant);
    for (name, text) in &mut forge.extensions {
        if name == GRANT && text.is_empty() {
            *text = grant.to_string();
        }
    }
    forge.sign(relay.task.key.public(), &stack.control.task_ca()?)
}

/// Presents an honest certificate for a payload and sends it.
pub fn carry_out(stack: &Stack, relay: &mut EvilRelay, payload: &Map<String, Value>) -> Result<Value> {
    relay.present(&permit(stack, relay, payload, |_, _| {})?)?;
    relay.send(payload).context("no answer to a change")
}
