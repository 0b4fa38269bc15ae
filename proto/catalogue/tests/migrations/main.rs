//! The shipped migrations, against real databases by their own programs: what the manifest makes of a request is started as
//! agent-exec would start it, with the migration as a sealed file on standard input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use catalogue::{Exec, Manifest};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::json;
use wire::Mode;

mod postgresql;
mod sqlite;

/// What became of one run.
#[derive(Debug)]
struct Ran {
    exit: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// It was applied, and that is what it says last.
    #[track_caller]
    fn applied(&self, id: &str) {
        let last = self.stdout.lines().last().unwrap_or_default();
        assert!(
            self.exit == 0 && (last == format!("applied {id}") || last.starts_with(&format!("applied {id} "))),
            "{self:?}"
        );
    }

    /// It was not, and these words say why.
    #[track_caller]
    fn refused(&self, words: &str) {
        assert_ne!(self.exit, 0, "{self:?}");
        assert!(!self.stdout.contains("\napplied "), "{self:?}");
        let told = format!("{}{}", self.stdout, self.stderr);
        assert!(told.contains(words), "{words}: {self:?}");
    }
}

/// A database's manifest, with the places of this test in place of the shipped ones.
struct Runner {
    manifest: Manifest,
    database: Option<&'static str>,
}

impl Runner {
    /// The manifest `action` of `databases/kind`, whose SQL files are laid out below `place`.
    fn new(kind: &str, action: &str, place: &Path, changes: &[(&str, &str)]) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("databases").join(kind);
        let laid = place.join(kind);
        std::fs::create_dir_all(&laid).unwrap();
        let installed = format!("/usr/share/writ/databases/{kind}");
        for entry in std::fs::read_dir(&shipped).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace(&installed, laid.to_str().unwrap());
            std::fs::write(laid.join(path.file_name().unwrap()), text).unwrap();
        }
        let mut text = std::fs::read_to_string(laid.join(format!("{action}.toml"))).unwrap();
        for (shipped, ours) in changes {
            assert!(text.contains(shipped), "{shipped} is not in the shipped manifest");
            text = text.replace(shipped, ours);
        }
        let manifest = Manifest::parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?}"));
        let database = manifest.schema().properties().contains_key("database").then_some("app");
        Self { manifest, database }
    }

    /// Starts it. `lay` may change the command, as the account it is started by would be another.
    fn start(&self, mode: Mode, migration: &[u8]) -> Child {
        let mut args = json!({
            "migration": {"path": "/etc/writ/migrations/app/0001_x.sql", "sha256": "0".repeat(64)},
        });
        if let Some(database) = self.database {
            args["database"] = database.into();
        }
        if self.manifest.files().is_empty() {
            args.as_object_mut().unwrap().remove("migration");
        }
        let checked = self.manifest.check_args(args.as_object().unwrap()).unwrap();
        let argv = match mode {
            Mode::Run => checked.argv(),
            Mode::DryRun => checked.dry_run().unwrap(),
        };
        let Exec::Program { program, .. } = self.manifest.exec() else {
            panic!("not a program")
        };
        Command::new(program)
            .args(argv)
            .env_clear()
            .envs([
                ("HOME", "/"),
                ("LANG", "C.UTF-8"),
                ("PATH", "/usr/bin:/bin"),
                ("TZ", "UTC0"),
            ])
            .current_dir("/")
            .stdin(sealed(migration))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn end(child: Child) -> Ran {
        let output = child.wait_with_output().unwrap();
        Ran {
            exit: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn run(&self, migration: impl AsRef<[u8]>) -> Ran {
        Self::end(self.start(Mode::Run, migration.as_ref()))
    }

    fn dry_run(&self, migration: impl AsRef<[u8]>) -> Ran {
        Self::end(self.start(Mode::DryRun, migration.as_ref()))
    }
}

/// What agent-exec hands over for a pinned file.
fn sealed(content: &[u8]) -> File {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"pinned", flags).unwrap());
    file.write_all(content).unwrap();
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    file.rewind().unwrap();
    file
}

/// A migration with this id and these statements.
fn migration(id: &str, statements: &str) -> String {
    format!("-- migration {id}\n{statements}\n")
}
