//! `inspect process`: whether a process of an exact name runs.

use crate::End;

/// The kernel keeps 15 bytes of a process's name (TASK_COMM_LEN - 1, proc_pid_comm(5)).
const COMM: usize = 15;

/// Counts the living processes of that name.
pub(crate) fn probe(name: &str) -> End {
    if name.is_empty() || name.len() > COMM {
        return End::Usage(format!(
            "NAME must have 1 to {COMM} bytes, which is what the kernel keeps, not {name:?}"
        ));
    }
    match count(name) {
        Ok(0) => End::Unhealthy(format!("process {name}: not running")),
        Ok(1) => End::Healthy(format!("process {name}: 1 running")),
        Ok(number) => End::Healthy(format!("process {name}: {number} running")),
        Err(error) => End::Unhealthy(format!("process {name}: failed to read /proc: {error}")),
    }
}

fn count(name: &str) -> std::io::Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name();
        if !pid.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // One that ended meanwhile cannot be read, and does not run.
        if let Ok(stat) = std::fs::read(entry.path().join("stat"))
            && lives_as(&stat, name.as_bytes())
        {
            found += 1;
        }
    }
    Ok(found)
}

/// Reads `PID (NAME) STATE …`, where the name may itself hold brackets and newlines. A zombie does not live.
fn lives_as(stat: &[u8], name: &[u8]) -> bool {
    let (Some(open), Some(close)) = (
        stat.iter().position(|b| *b == b'('),
        stat.iter().rposition(|b| *b == b')'),
    ) else {
        return false;
    };
    stat.get(open + 1..close) == Some(name) && !matches!(stat.get(close + 2), None | Some(b'Z' | b'X' | b'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_whole_and_zombies_do_not_count() {
        assert!(lives_as(b"1 (nginx) S 0", b"nginx"));
        assert!(lives_as(b"1 (a) R (b)) S 0", b"a) R (b)"));
        assert!(!lives_as(b"1 (nginx-old) S 0", b"nginx"));
        assert!(!lives_as(b"1 (nginx) Z 0", b"nginx"));
        assert!(!lives_as(b"", b"nginx"));
    }

    #[test]
    fn this_process_is_found() {
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(matches!(probe(own.trim_end_matches('\n')), End::Healthy(_)));
        assert!(matches!(probe("no-such-name"), End::Unhealthy(_)));
    }
}
