//! Randomness of the operating system.

use rand::{TryRng as _, rngs::SysRng};

use crate::Error;

/// Fills an array.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut out = [0; N];
    SysRng.try_fill_bytes(&mut out).map_err(|error| Error::Randomness(error.to_string()))?;
    Ok(out)
}

/// A random UUID (RFC 9562, version 4) as URN.
pub(crate) fn uuid_urn() -> Result<String, Error> {
    let mut bytes = bytes::<16>()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex(&bytes);
    Ok(format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// A word of 16 random hex digits, as a SIWE nonce.
pub(crate) fn word() -> Result<String, Error> {
    Ok(hex(&bytes::<8>()?))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_carries_its_version_and_differs_each_time() {
        let (a, b) = (uuid_urn().expect("randomness"), uuid_urn().expect("randomness"));
        assert_eq!(a.len(), "urn:uuid:".len() + 36);
        assert_eq!(a.as_bytes()["urn:uuid:".len() + 14], b'4');
        assert_ne!(a, b);
    }
}
