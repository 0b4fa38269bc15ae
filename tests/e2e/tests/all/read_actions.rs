//! The shipped read actions, from an MCP client to the target and back.

use harness::ALICE;
use serde_json::{Value, json};

use crate::STACK;

fn call(tool: &str, mut arguments: Value) -> harness::mcp::Called {
    arguments["reason"] = "a test".into();
    STACK.client(ALICE).unwrap().call(tool, arguments).unwrap()
}

/// REQ-OUTCOME-5
#[test]
fn tail_log_gives_the_last_lines() {
    let called = call(
        "tail_log",
        json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 2}),
    );
    assert!(!called.is_error, "{}", called.value);
    let output = called.value["untrusted"]["output"].as_str().unwrap();
    assert_eq!(output.lines().count(), 2);
    assert!(output.ends_with("GET /cart/400 200\n"), "{output}");
}

/// REQ-OUTCOME-6, REQ-MANIFEST-16
#[test]
fn read_file_gives_a_range_as_text_and_as_base64() {
    let text = call(
        "read_file",
        json!({"target": "web-2", "path": "/var/log/shop/web.log", "offset": 0, "limit": 20}),
    );
    assert!(!text.is_error, "{}", text.value);
    assert_eq!(text.value["untrusted"]["output"], "2026-01-01T10:00:01Z");
    let arguments =
        json!({"target": "web-2", "path": "/var/log/shop/web.log", "offset": 0, "limit": 4, "encoding": "base64"});
    let base64 = call("read_file", arguments);
    assert_eq!(base64.value["untrusted"]["output"], "MjAyNg==", "{}", base64.value);
}

/// REQ-MANIFEST-19 to 23
#[test]
fn a_file_outside_or_behind_a_link_or_of_root_is_not_read() {
    for (path, code) in [
        ("/etc/shadow", "path_refused"),
        ("/var/log/../../etc/shadow", "path_refused"),
        ("/var/log/shop/link.log", "path_refused"),
        ("/var/log/shop/private.log", "path_refused"),
        ("/var/log/shop", "path_refused"),
        ("relative", "arguments_invalid"),
        ("/var/log/shop/none.log", "path_not_found"),
    ] {
        let called = call("read_file", json!({"target": "web-1", "path": path}));
        assert!(called.is_error, "{path}: {}", called.value);
        assert_eq!(called.code(), code, "{path}: {}", called.value);
    }
}

#[test]
fn unknown_targets_tools_and_arguments_are_named() {
    let called = call("tail_log", json!({"target": "web-9", "path": "/var/log/shop/web.log"}));
    assert_eq!(called.code(), "unknown_target", "{}", called.value);
    let called = call(
        "tail_log",
        json!({"target": "web-1", "path": "/var/log/shop/web.log", "follow": true}),
    );
    assert_eq!(called.code(), "arguments_invalid", "{}", called.value);
    assert!(
        STACK
            .client(ALICE)
            .unwrap()
            .call("rm_rf", json!({}))
            .is_err_and(|error| error.to_string().contains("rm_rf"))
    );
}
