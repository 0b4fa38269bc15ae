//! The policies behind a refusal, as one metadata entry says them: by their ids, in order, a comma between two.
//!
//! An id is short printable ASCII, so the entry is a header of bounded length, and what a CA writes there can be repeated to
//! anyone. A relay takes the whole entry or nothing of it.

/// Most ids of one entry, and of a record of the CA's; what is beyond is left out.
pub const MOST: usize = 32;
/// Longest id, in bytes.
pub const ID_BYTES: usize = 63;

/// Whether a text has the shape of an id: 1 to [`ID_BYTES`] of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.len() <= ID_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The entry for these policies, the first [`MOST`] of them; none where none decided.
#[must_use]
pub fn written(ids: &[String]) -> Option<String> {
    let ids: Vec<&str> = ids
        .iter()
        .map(String::as_str)
        .filter(|id| is_id(id))
        .take(MOST)
        .collect();
    (!ids.is_empty()).then(|| ids.join(","))
}

/// The policies of an entry; `None` where it is anything but 1 to [`MOST`] ids, sorted, each once.
#[must_use]
pub fn read(entry: &str) -> Option<Vec<String>> {
    if entry.len() > MOST * (ID_BYTES + 1) {
        return None;
    }
    let ids: Vec<String> = entry.split(',').map(str::to_owned).collect();
    let sorted = ids.is_sorted_by(|one, next| one < next);
    (ids.len() <= MOST && sorted && ids.iter().all(|id| is_id(id))).then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// REQ-CARPC-12
    #[test]
    fn what_is_written_is_read() {
        for names in [ids(&["a"]), ids(&["night-shift", "no.db_1", "policy0"])] {
            assert_eq!(read(&written(&names).unwrap()), Some(names));
        }
        let many: Vec<String> = (0..1000).map(|n| format!("{n:063}")).collect();
        let entry = written(&many).unwrap();
        assert_eq!(entry.len(), MOST * (ID_BYTES + 1) - 1);
        assert_eq!(read(&entry).as_deref(), many.get(..MOST));
    }

    /// REQ-CARPC-12
    #[test]
    fn what_is_no_id_is_not_written() {
        assert_eq!(written(&[]), None);
        assert_eq!(written(&ids(&["", "a b", "a,b", "ä", &"x".repeat(64)])), None);
        assert_eq!(written(&ids(&["x\ny", "ok"])).as_deref(), Some("ok"));
    }

    /// REQ-CARPC-12
    #[test]
    fn an_entry_of_anything_else_is_no_entry() {
        let bad = [
            String::new(),
            ",".into(),
            "a,".into(),
            "a, b".into(),
            "a\u{202e}".into(),
            "-a".into(),
            "b,a".into(),
            "a,a".into(),
            "x".repeat(64),
            (0..=MOST).map(|n| format!("p{n:02}")).collect::<Vec<_>>().join(","),
            "x,".repeat(1 << 20),
        ];
        for entry in &bad {
            assert_eq!(read(entry), None, "{}", entry.get(..20).unwrap_or(entry));
        }
        println!("{} attacks, {} refused", bad.len(), bad.len());
    }
}
