//! Which approvals `order` counts: every one that is good but for one thing, beside one that is good.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

#[path = "../stage/mod.rs"]
mod stage;

mod keys;
mod people;
mod scene;
mod text;
