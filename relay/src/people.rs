//! Who is at the other end of the unix socket: the kernel's word for the uid, the configuration's word for the person.

use std::collections::BTreeMap;

use wire::ids::PersonName;

/// The persons whose clients may connect, by uid. A uid that is not listed is nobody.
#[derive(Debug, Clone, Default)]
pub struct People {
    by_uid: BTreeMap<u32, PersonName>,
}

impl People {
    /// From pairs that the configuration has checked: each uid once.
    #[must_use]
    pub fn new(pairs: impl IntoIterator<Item = (u32, PersonName)>) -> Self {
        Self {
            by_uid: pairs.into_iter().collect(),
        }
    }

    /// The person behind `uid`.
    #[must_use]
    pub fn behind(&self, uid: u32) -> Option<&PersonName> {
        self.by_uid.get(&uid)
    }
}
