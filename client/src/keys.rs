//! Keys of owners and of sessions.

use std::fmt;

use ed25519_dalek::Signer as _;
use k256::ecdsa::SigningKey;
use kvspace_protocol::id::Did;
use sha3::{Digest as _, Keccak256};

use crate::{Error, random};

/// The kinds of key that can own a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519, a did:key.
    Ed25519,
    /// secp256k1 as an Ethereum account of chain 1, a did:pkh.
    Ethereum,
}

/// A key that owns spaces.
#[derive(Debug, Clone)]
pub enum OwnerKey {
    /// A did:key.
    Ed25519(Ed25519Key),
    /// An Ethereum account.
    Ethereum(EthereumKey),
}

/// An Ed25519 key: of an owner, a session or another member.
#[derive(Clone)]
pub struct Ed25519Key(ed25519_dalek::SigningKey);

/// The key of an Ethereum account.
#[derive(Clone)]
pub struct EthereumKey {
    key: SigningKey,
    chain: u64,
}

impl OwnerKey {
    /// A new key, from the randomness of the operating system.
    ///
    /// # Errors
    /// [`Error::Randomness`] when the system gives none.
    pub fn generate(kind: KeyKind) -> Result<Self, Error> {
        match kind {
            KeyKind::Ed25519 => Ed25519Key::generate().map(Self::Ed25519),
            KeyKind::Ethereum => EthereumKey::from_secret(&random::bytes()?, 1).map(Self::Ethereum),
        }
    }

    /// The key of this secret.
    ///
    /// # Errors
    /// [`Error::Secret`] when an Ethereum secret is not in the range of its curve.
    pub fn from_secret(kind: KeyKind, secret: &[u8; 32]) -> Result<Self, Error> {
        match kind {
            KeyKind::Ed25519 => Ok(Self::Ed25519(Ed25519Key::from_secret(secret))),
            KeyKind::Ethereum => EthereumKey::from_secret(secret, 1).map(Self::Ethereum),
        }
    }

    /// The key of a secret written as 64 hex digits, with or without `0x`.
    ///
    /// # Errors
    /// [`Error::Secret`] when it is not that.
    pub fn from_hex(kind: KeyKind, text: &str) -> Result<Self, Error> {
        Self::from_secret(kind, &secret_from_hex(text)?)
    }

    /// Which kind of key it is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Ed25519(_) => KeyKind::Ed25519,
            Self::Ethereum(_) => KeyKind::Ethereum,
        }
    }

    /// The owner this key stands for.
    #[must_use]
    pub fn did(&self) -> Did {
        match self {
            Self::Ed25519(key) => key.did(),
            Self::Ethereum(key) => key.did(),
        }
    }

    /// The secret as 64 hex digits, to be kept in a safe place.
    #[must_use]
    pub fn secret_hex(&self) -> String {
        match self {
            Self::Ed25519(key) => key.secret_hex(),
            Self::Ethereum(key) => random::hex(&key.key.to_bytes()),
        }
    }
}

impl Ed25519Key {
    /// A new key, from the randomness of the operating system.
    ///
    /// # Errors
    /// [`Error::Randomness`] when the system gives none.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self::from_secret(&random::bytes()?))
    }

    /// The key of this seed.
    #[must_use]
    pub fn from_secret(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The key of a seed written as 64 hex digits.
    ///
    /// # Errors
    /// [`Error::Secret`] when it is not that.
    pub fn from_hex(text: &str) -> Result<Self, Error> {
        Ok(Self::from_secret(&secret_from_hex(text)?))
    }

    /// Its did:key.
    #[must_use]
    pub fn did(&self) -> Did {
        Did::from_ed25519(self.0.verifying_key().as_bytes())
    }

    /// The seed as 64 hex digits, to be kept in a safe place.
    #[must_use]
    pub fn secret_hex(&self) -> String {
        random::hex(self.0.as_bytes())
    }

    /// The signature of these bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    pub(crate) fn signing_key(&self) -> &ed25519_dalek::SigningKey {
        &self.0
    }
}

impl EthereumKey {
    /// The account of this secret on a chain.
    ///
    /// # Errors
    /// [`Error::Secret`] when the secret is not in the range of the curve.
    pub fn from_secret(secret: &[u8; 32], chain: u64) -> Result<Self, Error> {
        let key = SigningKey::from_slice(secret).map_err(|_| Error::Secret)?;
        Ok(Self { key, chain })
    }

    /// The account's address: the last 20 bytes of the Keccak-256 of its public key.
    #[must_use]
    pub fn address(&self) -> [u8; 20] {
        let point = self.key.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        let mut address = [0; 20];
        address.copy_from_slice(&hash[12..]);
        address
    }

    /// Its did:pkh.
    #[must_use]
    pub fn did(&self) -> Did {
        Did::from_eip155(self.chain, &self.address())
    }

    /// The chain it signs for.
    #[must_use]
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// The signature of a text as wallets make it (EIP-191 `personal_sign`): r, s, and 27 or 28.
    #[must_use]
    pub fn sign_personal(&self, text: &str) -> [u8; 65] {
        let hash = Keccak256::new_with_prefix(format!("\x19Ethereum Signed Message:\n{}", text.len()))
            .chain_update(text)
            .finalize();
        let (signature, recovery) = self.key.sign_prehash_recoverable(&hash);
        let mut out = [0; 65];
        out[..64].copy_from_slice(&signature.to_bytes());
        out[64] = 27 + recovery.to_byte();
        out
    }
}

fn secret_from_hex(text: &str) -> Result<[u8; 32], Error> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Error::Secret);
    }
    let mut secret = [0; 32];
    for (i, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| Error::Secret)?;
    }
    Ok(secret)
}

impl fmt::Debug for Ed25519Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519Key({})", self.did())
    }
}

impl fmt::Debug for EthereumKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EthereumKey({})", self.did())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALLET: &str = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    #[test]
    fn a_known_secret_gives_its_known_did() {
        let owner = OwnerKey::from_hex(KeyKind::Ethereum, WALLET).expect("a secret");
        assert_eq!(owner.did().as_str(), "did:pkh:eip155:1:0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        let seed = "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f60";
        let bob = OwnerKey::from_hex(KeyKind::Ed25519, seed).expect("a seed");
        assert_eq!(bob.did().as_str(), "did:key:z6Mkr9XVJHgr8os96FL5UUrkdS226nfM3RuAMsqxKk1BJ8N2");
        assert_eq!(bob.secret_hex(), seed);
    }

    #[test]
    fn a_secret_is_never_shown_by_debug() {
        for kind in [KeyKind::Ed25519, KeyKind::Ethereum] {
            let owner = OwnerKey::from_hex(kind, WALLET).expect("a secret");
            let shown = format!("{owner:?}");
            assert!(shown.contains(owner.did().as_str()) && !shown.contains("ac0974"), "{shown}");
            assert!(!shown.contains("172, 9, 116"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "ac", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert!(OwnerKey::from_hex(KeyKind::Ed25519, text).is_err(), "{text}");
        }
        assert!(OwnerKey::from_hex(KeyKind::Ethereum, &"0".repeat(64)).is_err());
        assert!(OwnerKey::from_hex(KeyKind::Ethereum, &"f".repeat(64)).is_err());
    }

    #[test]
    fn new_keys_differ() {
        for kind in [KeyKind::Ed25519, KeyKind::Ethereum] {
            let (a, b) = (OwnerKey::generate(kind).expect("a key"), OwnerKey::generate(kind).expect("a key"));
            assert_ne!(a.did(), b.did());
        }
    }
}
