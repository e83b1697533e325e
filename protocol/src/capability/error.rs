//! What can be wrong with a token. It is always the fault of whoever made or sent it.

use super::AbilityError;

/// Why a text or bytes are no token this protocol knows. The caller has to send another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`limits::TOKEN_BYTES_MAX`](crate::limits::TOKEN_BYTES_MAX).
    #[error("the token is longer than {} bytes", crate::limits::TOKEN_BYTES_MAX)]
    TooLong,
    /// Not base64url in its one spelling: padded for a CACAO, unpadded for a JWT and a ReCap.
    #[error("{0} is not canonical base64url")]
    Base64(&'static str),
    /// A JWT without exactly three parts.
    #[error("a JWT has three parts")]
    Parts,
    /// JSON that does not parse, nests too deep, names a member twice or has a member of another type.
    #[error("{part}: {problem}")]
    Json {
        /// Which JSON: the header, the payload or the ReCap.
        part: &'static str,
        /// What the parser says.
        problem: String,
    },
    /// A JWT header that says something else than type JWT, version 0.10.0, algorithm EdDSA.
    #[error("the header's {0} is not supported")]
    Header(&'static str),
    /// Not the CBOR of a CACAO.
    #[error("not a CACAO: {0}")]
    Cbor(String),
    /// The same content has another, canonical encoding.
    #[error("{0} is not canonical")]
    NotCanonical(&'static str),
    /// A field that does not hold what its name says.
    #[error("the field {0} is malformed")]
    Field(&'static str),
    /// An ability that is none.
    #[error(transparent)]
    Ability(#[from] AbilityError),
    /// Caveats in a shape this kind of token does not have.
    #[error("caveats are a non-empty array of objects; in a ReCap exactly [{{}}]")]
    Caveats,
    /// A proof that is no CID with a BLAKE3-256 hash.
    #[error("a proof is not the CID of a token")]
    Proof,
    /// A signature of the wrong length.
    #[error("the signature has the wrong length")]
    SignatureLength,
    /// A ReCap that is not the last of the resources.
    #[error("a ReCap is the last resource")]
    RecapPlace,
    /// A statement that does not end with what the ReCap says in words.
    #[error("the statement does not end with the words of its ReCap")]
    Statement,
    /// A fact this protocol knows, in another shape than it has.
    #[error("the fact {0} is malformed")]
    Fact(&'static str),
    /// A revocation of something that is no CID.
    #[error("what is to be revoked is not the CID of a token")]
    RevocationTarget,
}

/// The signature is not the issuer's over this token. Whoever sent it has to sign again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Failed to verify signature")]
pub struct InvalidSignature;
