//! The relay's copy of the inventory: which targets there are, where, and how their hosts are recognised.
//!
//! Whoever could write it could point a name at another machine, so a file that others can write is refused. Receipt
//! keys in it are not used: the CA names them.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use catalogue::Inventory;
use catalogue::inventory::MAX_BYTES;

use crate::config::Fault;

/// Reads and checks the file.
///
/// # Errors
/// Every fault of it.
pub fn load(path: &Path) -> Result<Inventory, Vec<Fault>> {
    let text = read(path).map_err(|fault| vec![fault])?;
    Inventory::parse(&text).map_err(|faults| {
        faults
            .iter()
            .map(|fault| Fault::new(format!("inventory: {}: {fault}", path.display())))
            .collect()
    })
}

fn read(path: &Path) -> Result<String, Fault> {
    let fault = |what: &dyn std::fmt::Display| Fault::new(format!("inventory: {}: {what}", path.display()));
    let file = File::open(path).map_err(|error| fault(&error))?;
    let found = file.metadata().map_err(|error| fault(&error))?;
    let own = nix::unistd::geteuid().as_raw();
    if ![0, own].contains(&found.uid()) || found.permissions().mode() & 0o022 != 0 {
        return Err(fault(
            &"must belong to root or this account, and be writable for nobody else",
        ));
    }
    let mut text = String::new();
    file.take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| fault(&error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.toml");
        std::fs::write(&path, "").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(load(&path).unwrap().is_empty());
        mode(0o664);
        assert!(load(&path).unwrap_err()[0].to_string().contains("writable"));
        assert!(load(&folder.path().join("none.toml")).is_err());
    }
}
