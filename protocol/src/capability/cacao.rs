//! The CACAO: a wallet's signed SIWE message as canonical DAG-CBOR.

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    TokenError,
    facts::Facts,
    recap::{self, Recap},
    signature::{Signature, eip191_digest},
    siwe::{Checked, Message},
    token::{Audience, Form, Role, Token, distinct},
};
use crate::{
    id::{Address, Identity},
    limits::TOKEN_BYTES_MAX,
};

const HEADER_TYPE: &str = "eip4361";
const SIGNATURE_TYPE: &str = "eip191";
/// What the audience of a revocation starts with; the CID of the revoked delegation follows.
const REVOKES: &str = "ucan:";
/// The first byte of every CACAO: a CBOR map of three. No JWT starts with it.
pub(super) const FIRST_BYTE: u8 = 0xa3;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cacao {
    h: Header,
    p: Message,
    s: Signed,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    t: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    #[serde(with = "serde_bytes")]
    s: Vec<u8>,
    t: String,
}

/// The bytes of a message with its signature.
pub(super) fn encode(message: Message, signature: [u8; 65]) -> Bytes {
    let header = Header { t: HEADER_TYPE.into() };
    let signed = Signed { s: signature.into(), t: SIGNATURE_TYPE.into() };
    to_bytes(&Cacao { h: header, p: message, s: signed }).into()
}

fn to_bytes(cacao: &Cacao) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(cacao).expect("text, bytes and a number are CBOR")
}

/// Reads the value of an `Authorization` header: padded base64url.
pub(super) fn from_header(text: &str) -> Result<Token, TokenError> {
    if text.len() > TOKEN_BYTES_MAX.div_ceil(3) * 4 {
        return Err(TokenError::TooLong);
    }
    parse(URL_SAFE.decode(text).map_err(|_| TokenError::Base64("the token"))?.into())
}

/// Writes the value of an `Authorization` header.
pub(super) fn to_header(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

/// Reads the bytes as they are stored.
pub(super) fn parse(bytes: Bytes) -> Result<Token, TokenError> {
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let cacao: Cacao = serde_ipld_dagcbor::from_slice(&bytes).map_err(|error| TokenError::Cbor(error.to_string()))?;
    if to_bytes(&cacao) != bytes {
        return Err(TokenError::NotCanonical("the CACAO"));
    }
    if cacao.h.t != HEADER_TYPE {
        return Err(TokenError::Field("h.t"));
    }
    if cacao.s.t != SIGNATURE_TYPE {
        return Err(TokenError::Field("s.t"));
    }
    let signature = cacao.s.s.as_slice().try_into().map_err(|_| TokenError::SignatureLength)?;
    let message = cacao.p;
    let Checked { issuer, address, not_before, expiry, text } = message.check()?;
    let (recap, resources) = split_recap(&message.resources)?;
    let (capabilities, proofs) = match &recap {
        Some(recap) => (recap.capabilities()?, recap.proofs()?),
        None => Default::default(),
    };
    let stated = message.statement.as_deref().unwrap_or_default();
    if recap.is_some() && !stated.ends_with(&recap::words(&capabilities)) {
        return Err(TokenError::Statement);
    }
    let audience = Audience::of_uri(&message.aud);
    Ok(Token {
        form: Form::Cacao,
        identity: Identity::of(text.as_bytes()),
        role: role(&audience)?,
        signature: Signature::Eip191 { address, digest: eip191_digest(&text), signature },
        issuer,
        audience,
        capabilities,
        proofs: distinct(proofs),
        not_before,
        expiry,
        facts: Facts::of_resources(resources)?,
        bytes,
    })
}

/// Takes the ReCap off the end of the resources; anywhere else there is none.
fn split_recap(resources: &[String]) -> Result<(Option<Recap>, &[String]), TokenError> {
    let (recap, rest) = match resources.split_last() {
        Some((last, rest)) if last.starts_with(recap::PREFIX) => (Some(Recap::from_resource(last)?), rest),
        Some(_) | None => (None, resources),
    };
    if rest.iter().any(|resource| resource.starts_with(recap::PREFIX)) {
        return Err(TokenError::RecapPlace);
    }
    Ok((recap, rest))
}

fn role(audience: &Audience) -> Result<Role, TokenError> {
    match audience.text.strip_prefix(REVOKES) {
        Some(cid) => {
            let target = Address::from_proof(cid).map_err(|_| TokenError::RevocationTarget)?;
            Ok(Role::Revocation { target })
        }
        None => Ok(Role::Delegation),
    }
}
