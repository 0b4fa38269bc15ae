//! `harness rpc NAME`: one call of the CA by hand, as whatever account this process is: what a hijacked relay can say.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use grpc::v1::ca_client::CaClient;
use grpc::v1::{DescribeRequest, OpenTaskRequest, RenewTaskRequest, TaskCertificate};
use serde_json::{Value, json};
use tonic::Status;

/// Reads the fields as JSON from standard input, calls, and writes `{"ok": …}` or `{"refused": …}`.
pub fn main(name: &str) -> Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let fields: Value = serde_json::from_str(&text).context("the fields are not JSON")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(call(name, &fields))?;
    println!("{answer}");
    Ok(())
}

async fn call(name: &str, fields: &Value) -> Result<Value> {
    let mut client = match CaClient::connect(format!("unix://{}", crate::control::CA_SOCKET)).await {
        Ok(client) => client,
        Err(error) => return Ok(json!({"unreachable": format!("{error:?}")})),
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let answer = match name {
        "describe" => client.describe(DescribeRequest {}).await.map(|reply| {
            let reply = reply.into_inner();
            json!({"relay": reply.relay, "task_ca": reply.task_ca, "persons": reply.persons, "targets": reply.targets})
        }),
        "open_task" => {
            let request = OpenTaskRequest {
                task_id: text("task_id"),
                brain: text("brain"),
                person: text("person"),
                proof: text("proof"),
                reason: text("reason"),
                target: text("target"),
                public_key: text("public_key"),
            };
            client
                .open_task(request)
                .await
                .map(|reply| certificate(reply.into_inner()))
        }
        "renew_task" => {
            let request = RenewTaskRequest {
                task_id: text("task_id"),
                target: text("target"),
                public_key: text("public_key"),
            };
            client
                .renew_task(request)
                .await
                .map(|reply| certificate(reply.into_inner()))
        }
        other => bail!("no such call: {other}"),
    };
    Ok(match answer {
        Ok(value) => json!({"ok": value}),
        Err(status) => refused(&status),
    })
}

fn certificate(reply: TaskCertificate) -> Value {
    json!({
        "certificate": reply.certificate, "valid_after": reply.valid_after, "valid_before": reply.valid_before,
        "receipt_key": reply.receipt_key, "actions": reply.actions, "policy": reply.policy,
    })
}

fn refused(status: &Status) -> Value {
    let text = |key: &str| {
        status
            .metadata()
            .get(key)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    json!({"refused": {"code": text(grpc::CODE), "message": text(grpc::MESSAGE), "status": format!("{:?}", status.code())}})
}
