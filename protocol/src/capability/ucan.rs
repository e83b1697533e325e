//! The UCAN: a JWT signed by an Ed25519 did:key.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    Ability, Capability, Caveats, Resource, TokenError,
    facts::Facts,
    json,
    signature::Signature,
    time,
    token::{Audience, Form, Role, Token, distinct},
};
use crate::{
    id::{Address, Did, Identity},
    limits::TOKEN_BYTES_MAX,
};

/// What the resource of a revocation starts with; the CID of the revoked delegation follows.
const REVOKES: &str = "urn:cid:";

#[derive(Deserialize)]
struct Header {
    typ: String,
    ucv: String,
    alg: String,
}

#[derive(Deserialize)]
struct Payload<'a> {
    iss: String,
    aud: String,
    #[serde(borrow)]
    exp: &'a RawValue,
    #[serde(borrow, default)]
    nbf: Option<&'a RawValue>,
    #[serde(default)]
    fct: Option<Value>,
    #[serde(default)]
    prf: Vec<String>,
    att: BTreeMap<String, BTreeMap<String, Vec<Map<String, Value>>>>,
}

/// Reads a JWT, which is stored as it is sent.
pub(super) fn parse(bytes: Bytes) -> Result<Token, TokenError> {
    if bytes.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let parts: Vec<&[u8]> = bytes.splitn(4, |byte| *byte == b'.').collect();
    let [header, payload, signature] = parts[..] else { return Err(TokenError::Parts) };
    let signed = &bytes[..header.len() + 1 + payload.len()];
    let identity = Identity::of(signed);
    check_header(&decode(header, "the header")?)?;
    let payload = decode(payload, "the payload")?;
    let payload: Payload<'_> = json::read("the payload", &payload)?;
    let signature: [u8; 64] =
        decode(signature, "the signature")?.try_into().map_err(|_| TokenError::SignatureLength)?;
    let issuer: Did = payload.iss.parse().map_err(|_| TokenError::Field("iss"))?;
    let key = issuer.ed25519().ok_or(TokenError::Field("iss"))?;
    let audience: Did = payload.aud.parse().map_err(|_| TokenError::Field("aud"))?;
    let capabilities = read_capabilities(payload.att)?;
    let proofs = read_proofs(&payload.prf)?;
    let expiry = time::from_seconds(payload.exp.get()).ok_or(TokenError::Field("exp"))?;
    let not_before = payload.nbf.map(|nbf| time::from_seconds(nbf.get()).ok_or(TokenError::Field("nbf")));
    Ok(Token {
        form: Form::Ucan,
        identity,
        role: role(&issuer, &audience, &capabilities, &proofs)?,
        signature: Signature::Ed25519 { key, signature },
        issuer,
        audience: Audience::of_did(audience),
        capabilities,
        proofs,
        not_before: not_before.transpose()?,
        expiry: Some(expiry),
        facts: Facts::read(payload.fct)?,
        bytes,
    })
}

/// The part of a JWT that is signed: all before the last dot.
pub(super) fn signed(bytes: &[u8]) -> &[u8] {
    bytes.iter().rposition(|byte| *byte == b'.').map_or(&[], |dot| &bytes[..dot])
}

fn decode(part: &[u8], name: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Base64(name))
}

/// The algorithm is EdDSA and the key is the issuer's: whatever else the header says about keys is not looked at.
fn check_header(bytes: &[u8]) -> Result<(), TokenError> {
    let header: Header = json::read("the header", bytes)?;
    match (&*header.typ, &*header.ucv, &*header.alg) {
        ("JWT", "0.10.0", "EdDSA") => Ok(()),
        ("JWT", "0.10.0", _) => Err(TokenError::Header("alg")),
        ("JWT", _, _) => Err(TokenError::Header("ucv")),
        _ => Err(TokenError::Header("typ")),
    }
}

fn read_capabilities(
    att: BTreeMap<String, BTreeMap<String, Vec<Map<String, Value>>>>,
) -> Result<Vec<Capability>, TokenError> {
    let mut capabilities = Vec::new();
    for (resource, abilities) in att {
        let resource = Resource::parse(&resource);
        for (ability, caveats) in abilities {
            if caveats.is_empty() {
                return Err(TokenError::Caveats);
            }
            let (ability, caveats) = (ability.parse()?, Caveats::new(caveats));
            capabilities.push(Capability { resource: resource.clone(), ability, caveats });
        }
    }
    Ok(capabilities)
}

fn read_proofs(texts: &[String]) -> Result<Vec<Address>, TokenError> {
    let proofs: Result<_, _> = texts.iter().map(|text| Address::from_proof(text)).collect();
    proofs.map(distinct).map_err(|_| TokenError::Proof)
}

/// The rules of [`Role`].
fn role(issuer: &Did, audience: &Did, capabilities: &[Capability], proofs: &[Address]) -> Result<Role, TokenError> {
    if issuer != audience {
        return Ok(Role::Delegation);
    }
    let mut revoked =
        capabilities.iter().filter(|capability| capability.ability.as_str() == Ability::REVOKE).peekable();
    if revoked.peek().is_none() {
        return Ok(Role::Invocation);
    }
    let target = match revoked.find_map(|capability| capability.resource.text().strip_prefix(REVOKES)) {
        Some(cid) => Some(Address::from_proof(cid).map_err(|_| TokenError::RevocationTarget)?),
        None => proofs.first().copied(),
    };
    Ok(target.map_or(Role::Invocation, |target| Role::Revocation { target }))
}
