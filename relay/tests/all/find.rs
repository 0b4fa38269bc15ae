//! find_actions: what a brain is shown of the catalogue, and of what is in its way.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::target::Manner;
use crate::world::{ALICE, BOB, World};

fn names(found: &Value) -> Vec<&str> {
    let actions = found["actions"].as_array().unwrap();
    actions
        .iter()
        .map(|action| action["action"].as_str().unwrap())
        .collect()
}

fn one<'a>(found: &'a Value, name: &str) -> &'a Value {
    let mut actions = found["actions"].as_array().unwrap().iter();
    actions.find(|action| action["action"] == name).unwrap()
}

/// REQ-TOOL-8
#[tokio::test]
async fn an_action_is_found_by_words_target_and_risk_with_all_that_a_call_needs() {
    let world = World::new(Manner::Mute).await;
    let mut client = world.client(ALICE).await;
    let (found, is_error) = client.call("find_actions", json!({ "words": "Restart SERVICE" })).await;
    assert!(!is_error, "{found}");
    assert_eq!(names(&found)[0], "restart_service", "it has both words in its name");
    let action = &found["actions"][0];
    assert_eq!(
        (&action["risk"], &action["approvals"], &action["dry_run"]["risk"]),
        (&json!("change"), &json!(0), &json!("read"))
    );
    assert_eq!(action["args"]["additionalProperties"], false);
    assert_eq!(
        action["args"]["properties"]["unit"]["enum"],
        json!(["shop", "shop-db", "cron"])
    );
    assert_eq!(
        (&action["run"]["targets"], &action["run"]["targets_in_all"]),
        (&json!(["denied-1", "web-1", "web-2"]), &json!(3))
    );
    // By the value of an argument.
    let (found, _) = client.call("find_actions", json!({ "words": "shop-db" })).await;
    assert_eq!(names(&found), ["restart_service"]);
    let (found, _) = client
        .call("find_actions", json!({ "risk": "destroy", "target": "web-1" }))
        .await;
    assert_eq!(names(&found), ["wipe_cache"]);
    let action = one(&found, "wipe_cache");
    assert_eq!(
        (&action["approvals"], &action["run"]["targets"]),
        (&json!(1), &json!(["web-1"]))
    );
    let (found, _) = client.call("find_actions", json!({ "words": "quantum" })).await;
    assert_eq!((names(&found).len(), &found["actions_in_all"]), (0, &json!(0)));
    assert!(world.events().is_empty(), "nobody is asked, and nothing is refused");
}

/// REQ-TOOL-9. What is denied is said: left out, an agent would look for another way.
#[tokio::test]
async fn what_the_relay_denies_is_said_with_its_rule_for_whoever_asks() {
    let mut world = World::new(Manner::Mute).await;
    world.rule(
        r#"mode = "readonly"
        deny = [
            { id = "not-bob", persons = "bob", targets = "web-1", actions = "restart_service" },
            { id = "no-secrets", actions = "tail_log", args = { path = { beneath = "/var/log/secret" } } },
        ]"#,
    );
    let (mut alice, mut bob) = (world.client(ALICE).await, world.client(BOB).await);
    let question = json!({ "words": "restart_service tail_log" });
    let (found, _) = alice.call("find_actions", question.clone()).await;
    let restart = one(&found, "restart_service");
    let everywhere = json!(["denied-1", "web-1", "web-2"]);
    assert_eq!(restart["run"]["targets"], json!([]));
    assert_eq!(
        restart["run"]["denied"],
        json!([{ "by": "readonly", "when": "always", "targets": everywhere, "targets_in_all": 3 }])
    );
    assert_eq!(restart["dry_run"]["targets"], everywhere, "it can still be tried out");
    assert!(restart["dry_run"].get("denied").is_none());
    let tail = one(&found, "tail_log");
    assert_eq!(tail["run"]["targets"], everywhere);
    assert_eq!(
        tail["run"]["denied"],
        json!([{ "by": "no-secrets", "when": "some_args", "targets": everywhere, "targets_in_all": 3 }])
    );
    let (found, _) = bob.call("find_actions", question).await;
    let restart = one(&found, "restart_service");
    assert_eq!(restart["dry_run"]["targets"], json!(["denied-1", "web-2"]));
    assert_eq!(restart["dry_run"]["denied"][0]["by"], "not-bob");
    assert!(
        !found.to_string().contains("secret/"),
        "where the secrets are is not said"
    );
}

/// REQ-TOOL-10
#[tokio::test]
async fn a_large_catalogue_comes_in_pages_that_together_are_the_whole() {
    let mut world = World::new(Manner::Mute).await;
    let folder = tempfile::tempdir().unwrap();
    for number in 0..35 {
        let text = format!(
            "name = \"act_{number:02}\"\ntitle = \"Act\"\ndescription = \"Acts.\"\nrisk = \"read\"\ntimeout_ms = 1000\n\
             [exec]\nprogram = \"/bin/true\"\nargv = []\n"
        );
        std::fs::write(folder.path().join(format!("act_{number:02}.toml")), text).unwrap();
    }
    let (catalogue, faults) = catalogue::Catalogue::lint(folder.path(), &[0, nix::unistd::geteuid().as_raw()]);
    assert!(faults.is_empty(), "{faults:?}");
    Arc::get_mut(&mut world.relay).unwrap().catalogue = catalogue;
    let mut client = world.client(ALICE).await;
    let mut seen = Vec::new();
    let mut question = json!({ "words": "acts" });
    let first = loop {
        let (found, is_error) = client.call("find_actions", question.clone()).await;
        assert!(!is_error, "{found}");
        assert_eq!(found["actions_in_all"], 35);
        assert!(names(&found).len() <= 10);
        seen.extend(names(&found).iter().map(|name| (*name).to_owned()));
        match found.get("cursor") {
            Some(cursor) => question["cursor"] = cursor.clone(),
            None => break found,
        }
    };
    assert_eq!(names(&first).len(), 5, "the last page");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 35, "each once");
    // A cursor is good for its own search; what is none is said.
    let cursor = question["cursor"].clone();
    for (name, bad) in [
        ("of another search", json!({ "words": "act_07", "cursor": cursor })),
        ("none", json!({ "cursor": "10" })),
        ("forged", json!({ "words": "acts", "cursor": "0.000000000000" })),
        ("too long", json!({ "cursor": "x".repeat(65) })),
        ("a number", json!({ "cursor": 10 })),
        ("words without end", json!({ "words": "x".repeat(201) })),
        ("words in a list", json!({ "words": ["x"] })),
        ("a risk that is none", json!({ "risk": "write" })),
        ("something else", json!({ "shell": "sh" })),
    ] {
        let (said, is_error) = client.call("find_actions", bad).await;
        assert!(is_error);
        assert_eq!(said["code"], "arguments_invalid", "{name}: {said}");
    }
    let (said, _) = client.call("find_actions", json!({ "target": "nowhere" })).await;
    assert_eq!(said["code"], "unknown_target", "{said}");
}
