//! Keys of clients, decompressed once: finding the point costs a tenth of checking a signature.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use ed25519_dalek::VerifyingKey;
use kvspace_protocol::capability::KnownKeys;

/// Keys kept at one time: 2 MB. Then all are forgotten, which costs each client its next point.
const KEYS_MAX: usize = 10_000;

/// The keys by which tokens were verified lately.
#[derive(Debug, Default)]
pub(crate) struct Keys(RwLock<BTreeMap<[u8; 32], VerifyingKey>>);

impl KnownKeys for Keys {
    fn get(&self, bytes: &[u8; 32]) -> Option<VerifyingKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(bytes).copied()
    }

    fn keep(&self, key: &VerifyingKey) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() == KEYS_MAX {
            keys.clear();
        }
        keys.insert(key.to_bytes(), *key);
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn keys_come_back_and_there_are_never_too_many() {
        let keys = Keys::default();
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        keys.keep(&key);
        assert_eq!(keys.get(&key.to_bytes()), Some(key));
        let mut map = BTreeMap::new();
        for n in 0..KEYS_MAX {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            map.insert(bytes, key);
        }
        let keys = Keys(RwLock::new(map));
        keys.keep(&key);
        assert_eq!(keys.0.read().expect("not poisoned").len(), 1);
    }
}
