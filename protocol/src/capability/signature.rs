//! The two signatures: Ed25519 of a did:key, and EIP-191 of an Ethereum wallet. Neither needs a network.

use ed25519_dalek::VerifyingKey;
use k256::ecdsa::{RecoveryId, Signature as Secp256k1Signature, VerifyingKey as Secp256k1Key};
use sha3::{Digest, Keccak256};

use super::InvalidSignature;

/// A signature with what it needs to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signature {
    /// Over the JWT's `header.payload`.
    Ed25519 { key: [u8; 32], signature: [u8; 64] },
    /// `r ‖ s ‖ v` over the EIP-191 digest of the SIWE text.
    Eip191 { address: [u8; 20], digest: [u8; 32], signature: [u8; 65] },
}

/// Where Ed25519 keys are kept between tokens, decompressed: finding the point costs a tenth of a signature. `()` keeps
/// none.
pub trait KnownKeys {
    /// The key with these bytes.
    fn get(&self, bytes: &[u8; 32]) -> Option<VerifyingKey>;
    /// A key by which a token was verified.
    fn keep(&self, key: &VerifyingKey);
}

impl KnownKeys for () {
    fn get(&self, _: &[u8; 32]) -> Option<VerifyingKey> {
        None
    }

    fn keep(&self, _: &VerifyingKey) {}
}

impl Signature {
    /// Checks the signature; `signed` is the text an Ed25519 key signed.
    pub(super) fn verify(&self, signed: &[u8], keys: &impl KnownKeys) -> Result<(), InvalidSignature> {
        match self {
            Self::Ed25519 { key, signature } => verify_ed25519(key, signed, signature, keys),
            Self::Eip191 { address, digest, signature } => verify_eip191(address, digest, signature),
        }
    }
}

/// Strictly: keys and points of small order, for which one signature fits many messages, are refused.
fn verify_ed25519(
    bytes: &[u8; 32],
    signed: &[u8],
    signature: &[u8; 64],
    keys: &impl KnownKeys,
) -> Result<(), InvalidSignature> {
    let known = keys.get(bytes);
    let key = known.map_or_else(|| VerifyingKey::from_bytes(bytes), Ok).map_err(|_| InvalidSignature)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    key.verify_strict(signed, &signature).map_err(|_| InvalidSignature)?;
    if known.is_none() {
        keys.keep(&key);
    }
    Ok(())
}

/// Recovers the key and compares the 20 bytes of its address. The recovery byte is 0, 1, 27 or 28, and `s` is the
/// lower of its two values.
fn verify_eip191(address: &[u8; 20], digest: &[u8; 32], signature: &[u8; 65]) -> Result<(), InvalidSignature> {
    let recovery = match signature[64] {
        0 | 27 => RecoveryId::new(false, false),
        1 | 28 => RecoveryId::new(true, false),
        _ => return Err(InvalidSignature),
    };
    let signature = Secp256k1Signature::from_slice(&signature[..64]).map_err(|_| InvalidSignature)?;
    if signature.normalize_s() != signature {
        return Err(InvalidSignature);
    }
    let key = Secp256k1Key::recover_from_prehash(digest, &signature, recovery).map_err(|_| InvalidSignature)?;
    if address_of(&key) == *address { Ok(()) } else { Err(InvalidSignature) }
}

/// The Ethereum address of a key: the last 20 bytes of the Keccak-256 of its point.
fn address_of(key: &Secp256k1Key) -> [u8; 20] {
    let point = key.to_sec1_point(false);
    let hash: [u8; 32] = Keccak256::digest(&point.as_bytes()[1..]).into();
    hash[12..].try_into().expect("32 less 12 bytes are 20")
}

/// The digest a wallet signs for a text (EIP-191, version 0x45).
pub(super) fn eip191_digest(text: &str) -> [u8; 32] {
    let mut hasher = Keccak256::new();
    hasher.update(format!("\x19Ethereum Signed Message:\n{}", text.len()));
    hasher.update(text);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // The identity point with R the identity and s = 0 passes the plain equation for every message.
        let mut identity = [0u8; 32];
        identity[0] = 1;
        let mut signature = [0u8; 64];
        signature[0] = 1;
        assert_eq!(Signature::Ed25519 { key: identity, signature }.verify(b"any", &()), Err(InvalidSignature));
    }
}
