//! The relay's copy of the inventory: which targets there are, where, and how their hosts are recognised.
//!
//! Whoever could write it could point a name at another machine, so a file that others can write is refused. Receipt
//! keys in it are not used: the CA names them.

use std::path::Path;

use catalogue::Inventory;
use catalogue::inventory::MAX_BYTES;

use crate::config::{Fault, read_trusted};

/// Reads and checks the file.
///
/// # Errors
/// Every fault of it.
pub fn load(path: &Path) -> Result<Inventory, Vec<Fault>> {
    let fault = |what: &dyn std::fmt::Display| Fault::new(format!("inventory: {}: {what}", path.display()));
    let bytes = read_trusted("inventory", path, MAX_BYTES as u64).map_err(|fault| vec![fault])?;
    let text = String::from_utf8(bytes).map_err(|_| vec![fault(&"failed to read it: not UTF-8")])?;
    Inventory::parse(&text).map_err(|faults| faults.iter().map(|found| fault(found)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-INVENTORY-8
    #[test]
    fn an_inventory_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.toml");
        std::fs::write(&path, "").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(load(&path).unwrap().is_empty());
        mode(0o664);
        assert!(load(&path).unwrap_err()[0].to_string().contains("writable"));
        assert!(load(&folder.path().join("none.toml")).is_err());
    }
}
